"""Labels under other names: data.keys reads them in every format, and where one is missing the nearest name is said."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from published_files import RAW_FILES, write_gdb9, write_tar
from tiny_runs import small_run, write_molecules

import eval as evaluation
from configs.loading import ConfigError, load_config, names_of, override_of
from configs.writing import config_to_yaml
from data_tools.dataset import make_dataset, open_graphs, open_two_files, resolve_task
from data_tools.formats.md17 import SAMPLE_TEST, SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.formats.spelling import nearest_names
from data_tools.graph import DataError
from data_tools.graphs.packed_folder import save
from data_tools.labels.splits import Split
from data_tools.labels.targets import get_target, label_values
from data_tools.units import BOHR, HARTREE, KCAL_PER_MOL
from training import checkpoint

KEYS = {"energy": "REF_energy", "forces": "REF_forces"}
WATER = [[0, 0, 0.1], [0, 0.76, -0.48], [0, -0.76, -0.48]]
FORCES = np.arange(9.0).reshape(3, 3)


def write_xyz(path: Path, comment: str = "REF_energy=-1.5", forces: str = "REF_forces", count: int = 2) -> Path:
    atoms = "".join(f"{symbol} {' '.join(map(str, [*place, *force]))}\n" for symbol, place, force in
                    zip("OHH", WATER, FORCES, strict=True))  # fmt: skip
    path.write_text(f"3\nProperties=species:S:1:pos:R:3:{forces}:R:3 {comment}\n{atoms}" * count)
    return path


def write_database(path: Path, units: dict | None = None, distance: str | None = None, **data: object) -> Path:
    """As schnetpack 2 writes it: labels as arrays in the data, their units in the metadata."""
    with connect(path) as database:
        for _ in range(2):
            database.write(ase.Atoms("OHH", WATER), data={name: np.array(value) for name, value in data.items()})
        if units is not None:
            database.metadata = {"_property_unit_dict": units, "_distance_unit": distance or "Ang", "atomrefs": {}}
    return path


# ---- every format ----------------------------------------------------------------------------------------------------


def test_extended_xyz(tmp_path):
    path = write_xyz(tmp_path / "a.xyz", "REF_energy=-1.5 energy=7 charge=0")
    table = read_table(path, keys=KEYS)
    assert table.of_structures["energy"].tolist() == [-1.5, -1.5] and "REF_energy" not in table.label_names
    np.testing.assert_array_equal(table.of_atoms["forces"], np.tile(FORCES, (2, 1)))
    assert table.source.endswith("; labels not read: energy")
    assert read_table(path).of_structures["energy"].tolist() == [7, 7]
    table = read_table(write_xyz(tmp_path / "b.xyz", "Energy=-2", "Force"), keys={"energy": "Energy"})
    assert table.of_structures["energy"].tolist() == [-2, -2] and "forces" in table.label_names  # the usual spelling


def test_npz_of_frames():
    table = read_table(SAMPLE_TRAIN, keys={"energy": "old_energies", "forces": "old_forces"})
    with np.load(SAMPLE_TRAIN) as file:
        np.testing.assert_allclose(table.of_structures["energy"], file["old_energies"] * KCAL_PER_MOL)
        np.testing.assert_allclose(table.of_atoms["forces"], file["old_forces"].reshape(-1, 3) * KCAL_PER_MOL)
    assert table.source.endswith("; arrays not read: energies, forces, old_indices")
    with pytest.raises(DataError, match="expected energy or forces of frames, found gap"):
        read_table(SAMPLE_TRAIN, keys={"gap": "energies"})


def test_packed_npz(tmp_path):
    path = write_molecules(tmp_path / "a.npz", range(3))
    with np.load(path) as file:
        arrays = dict(file)
    more = {"my_gap": arrays["gap"] * 2, "E": np.arange(3.0), "F": arrays["R"] * 1.0}
    np.savez(path, **arrays, **more)
    table = read_table(path, keys={"gap": "my_gap", "energy": "E", "forces": "F"})
    np.testing.assert_allclose(table.of_structures["gap"], arrays["gap"] * 2 * HARTREE)
    assert table.of_structures["energy"].tolist() == [0, 1, 2]
    assert table.of_atoms["forces"].shape == (len(table.numbers), 3)
    with pytest.raises(DataError, match=r"expected one number per structure as energy, found .* shape \(\d+, 3\)"):
        read_table(path, keys={"energy": "F"})


def test_csv_beside_sdf(tmp_path):
    _, labels = write_gdb9(tmp_path, RAW_FILES)
    table = read_table(labels, keys={"U0": "U"})
    np.testing.assert_array_equal(table.of_structures["U0"], read_table(labels).of_structures["U"])
    assert len(table.label_names) == 14 and table.source.endswith("; labels not read: U0")


def test_archives(tmp_path):
    """QM9's own, its two files, and any one file: renamed once."""
    sdf, labels = write_gdb9(tmp_path, RAW_FILES)
    raw = {path.name: path.read_bytes() for path in RAW_FILES}
    pair = {path.name: path.read_bytes() for path in (sdf, labels)}
    other = {"a/b.xyz": write_xyz(tmp_path / "b.xyz").read_bytes()}
    for files in (raw, pair, {"all.xyz": b"".join(raw.values())}, other):
        path, keys = write_tar(tmp_path / "a.tar", files, "w"), KEYS if files is other else {"U0": "U"}
        table = read_table(path, keys=keys)
        assert set(keys) <= set(table.label_names) and not set(keys.values()) & set(table.label_names)
        with pytest.raises(DataError, match="expected other, the U0"):
            read_table(path, keys={"U0": "other"})


def test_graphs_of_any_file(tmp_path):
    path = write_xyz(tmp_path / "a.xyz")
    graphs = open_graphs(path, 5.0, keys=KEYS)
    assert set(graphs.table.label_names) == {"energy", "forces"}
    save(open_graphs(path, 5.0), tmp_path / "packed")
    assert set(open_graphs(tmp_path / "packed", 5.0, keys=KEYS).table.label_names) == {"energy", "forces"}
    both = open_two_files(str(path), str(path), 5.0, keys=KEYS).table
    assert set(both.label_names) == {"energy", "forces"} and len(both) == 4
    frames = open_two_files(str(SAMPLE_TRAIN), str(SAMPLE_TEST), 3.0, keys={"energy": "old_energies"}).table
    assert frames.of_structures["energy"].mean() < -4000


# ---- databases of ASE ------------------------------------------------------------------------------------------------


def test_labels_in_the_data_of_a_database(tmp_path):
    table = read_table(write_database(tmp_path / "a.db", energy=[-2.0], forces=FORCES, gap=[5.0], H="a word"))
    assert table.of_structures["energy"].tolist() == [-2, -2] and table.of_structures["gap"].tolist() == [5, 5]
    np.testing.assert_array_equal(table.of_atoms["forces"], np.tile(FORCES, (2, 1)))
    assert set(table.label_names) == {"energy", "forces", "gap"} and table.unread == ("H",)
    path = write_database(tmp_path / "b.db", dft_energy=-3.0, F=FORCES.astype(np.float32), energy=[1.0])
    table = read_table(path, keys={"energy": "dft_energy", "forces": "F"})
    assert table.of_structures["energy"].tolist() == [-3, -3] and table.of_atoms["forces"][5].tolist() == [6, 7, 8]
    with connect(tmp_path / "c.db") as database:
        database.write(ase.Atoms("He"), ref=-4.0, data={"energy": [1.0]})
    assert read_table(tmp_path / "c.db", keys={"energy": "ref"}).of_structures["energy"].tolist() == [-4]


def test_a_calculator_comes_before_the_data(tmp_path):
    atoms = ase.Atoms("He")
    atoms.calc = SinglePointCalculator(atoms, energy=-2.0)
    with connect(tmp_path / "a.db") as database:
        database.write(atoms, data={"energy": [-9.0]})
    assert read_table(tmp_path / "a.db").of_structures["energy"].tolist() == [-2]
    assert read_table(tmp_path / "a.db", keys={"energy": "energy"}).of_structures["energy"].tolist() == [-9]


@pytest.mark.parametrize(("energy", "forces", "distance", "factors"), [
    ("kcal/mol", "kcal/mol/Ang", "Ang", (KCAL_PER_MOL, KCAL_PER_MOL, 1.0)),
    ("Hartree", "Hartree/Bohr", "Bohr", (HARTREE, HARTREE / BOHR, BOHR)),
    ("eV", "eV/A", "Angstrom", (1.0, 1.0, 1.0)), ("Ha", "Ha/Angstrom", "nm", (HARTREE, HARTREE, 10.0)),
])  # fmt: skip
def test_units_of_a_database(tmp_path, energy, forces, distance, factors):
    units = {"energy": energy, "forces": forces, "mu": "Debye", "gap": "Ha", "E": "meV"}
    values = {"energy": [-2.0], "forces": FORCES, "mu": [1.0], "gap": [0.2], "E": [-3.0]}
    path = write_database(tmp_path / "a.db", units, distance, **values)
    table = read_table(path)
    np.testing.assert_allclose(table.of_structures["energy"], -2 * factors[0])
    np.testing.assert_allclose(table.of_atoms["forces"][:3], FORCES * factors[1])
    np.testing.assert_allclose(table.positions[:3], np.array(WATER) * factors[2])
    np.testing.assert_allclose(table.of_structures["gap"], 0.2 * HARTREE)
    assert table.of_structures["mu"].tolist() == [1, 1]
    np.testing.assert_allclose(read_table(path, keys={"energy": "E"}).of_structures["energy"], -0.003)


@pytest.mark.parametrize(("units", "distance", "words"), [
    ({"energy": "Rydberg"}, "Ang", ("unit of energy", "kcal/mol", "'Rydberg'")),
    ({"forces": "kcal/mol"}, "Ang", ("unit of forces", "over one of", "'kcal/mol'")),
    ({"energy": None}, "Ang", ("unit of energy", "'None'")),
    ({"energy": "eV"}, "furlong", ("_distance_unit", "furlong")),
])  # fmt: skip
def test_an_unknown_unit_is_refused(tmp_path, units, distance, words):
    path = write_database(tmp_path / "a.db", units, distance, energy=[-2.0], forces=FORCES)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path)) and all(word in str(caught.value) for word in words)


# ---- what is missing -------------------------------------------------------------------------------------------------


def missing(folder: Path) -> list[tuple[Path, str]]:
    np.savez(folder / "a.npz", n_atoms=[1], Z=[2], R=np.zeros((1, 3)), dft_energy=[1.0])
    return [
        (write_xyz(folder / "a.xyz", "TotEnergy=1"), "TotEnergy"), (folder / "a.npz", "dft_energy"),
        (write_database(folder / "a.db", E_tot=[1.0], charge=[0.0]), "E_tot"),
    ]  # fmt: skip


def test_a_missing_name_is_refused_with_what_is_there(tmp_path):
    for path, there in missing(tmp_path):
        with pytest.raises(DataError) as caught:
            read_table(path, keys={"energy": "REF_energy"})
        message = str(caught.value)
        assert message.startswith(f"{path}: data.keys: expected REF_energy, the energy, ") and "\n" not in message
        assert there in message and f'say --set data.keys="energy={there}"' in message


def test_a_missing_label_is_refused_with_the_nearest_name(tmp_path):
    for path, there in missing(tmp_path):
        with pytest.raises(DataError) as caught:
            label_values(read_table(path), get_target("energy"), "none")
        assert f'say --set data.keys="energy={there}"' in str(caught.value) and there in str(caught.value)


def test_missing_forces_are_refused_with_the_nearest_name(tmp_path):
    packed = open_graphs(write_xyz(tmp_path / "a.xyz", count=6), 5.0, keys={"energy": "REF_energy"})
    packed.table.of_structures["energy"] += np.arange(6)
    parts = Split(np.arange(4), np.array([4]), np.array([5]), "made")
    dataset = make_dataset(packed, parts, resolve_task("energy"))
    with pytest.raises(DataError, match=r'say --set data\.keys="forces=REF_forces", or set training\.force_weight=0'):
        dataset.standardised(("forces",))


@pytest.mark.parametrize(("label", "names"), [
    ("energy", ["REF_energy", "dft_energy", "DFT_energy", "TotEnergy", "energy_dft", "E", "E_tot", "free_energy"]),
    ("forces", ["REF_forces", "dft_forces", "force", "Forces", "F", "DFT_force", "forces_ref"]),
    ("gap", ["GAP", "homo_lumo_gap", "bandgap"]), ("U0", ["energy_U0", "u_0"]), ("homo", ["HOMO", "e_homo", "homo_eV"]),
])  # fmt: skip
def test_nearest_names(label, names):
    others = ["charge", "dipole", "stress", "n_electrons", "virial", "config_type", "gradient"]
    assert set(nearest_names(label, [*others, *names])) == set(names)


def test_unknown_labels_are_refused_with_the_nearest(tmp_path):
    for name, nearest in (("enrgy", "energy"), ("Forces", "forces"), ("REF_energy", "energy"), ("u0", "U0")):
        with pytest.raises(DataError, match=rf"data.keys: unknown label {name}; did you mean {nearest}\? expected"):
            read_table(write_xyz(tmp_path / "a.xyz"), keys={name: "REF_energy"})


# ---- configuration and programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [
    "data: {keys: {energy: REF_energy, forces: REF_forces}}", "data:\n  keys: energy=REF_energy,forces=REF_forces",
    "data:\n  keys: '{energy: REF_energy}'",
])  # fmt: skip
def test_the_configuration_keeps_keys(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    if "'{" in text:
        with pytest.raises(ConfigError, match=r"data\.keys: expected names such as"):
            load_config(tmp_path / "a.yaml")
        return
    config = load_config(tmp_path / "a.yaml")
    assert config.data.keys == KEYS
    (tmp_path / "b.yaml").write_text(config_to_yaml(config))
    assert load_config(tmp_path / "b.yaml") == config


@pytest.mark.parametrize(("text", "keys"), [
    ("energy=REF_energy,forces=REF_forces", KEYS), ("{energy: REF_energy, forces: REF_forces}", KEYS), ("", {}),
    (" energy = REF_energy ", {"energy": "REF_energy"}), ("energy=1", {"energy": "1"}),
    ("energy=a=b", {"energy": "a=b"}),
])  # fmt: skip
def test_keys_on_the_command_line(tmp_path, text, keys):
    (tmp_path / "a.yaml").write_text("")
    assert load_config(tmp_path / "a.yaml", [override_of(f"data.keys={text}")]).data.keys == keys
    assert names_of(text, "--keys") == keys


@pytest.mark.parametrize("text", ["energy", "energy=", "=E", "energy=a,energy=b", "{energy: 1}", "{", "[energy]"])
def test_mistakes_in_keys_are_one_line(tmp_path, text):
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "a.yaml", [override_of(f"data.keys={text}")])
    assert "keys" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="--keys"):
        names_of(text, "--keys")


def test_a_run_keeps_its_keys(tmp_path, capsys, same_mode):
    """The checkpoint reads files as the run did; eval.py --keys says otherwise, for a file of other names."""
    path = write_molecules(tmp_path / "a.npz", range(60))
    with np.load(path) as file:
        arrays = dict(file)
    other = tmp_path / "b.npz"
    np.savez(other, **arrays)
    gap = arrays.pop("gap")
    np.savez(path, **arrays, lumo_gap=gap)
    assert evaluation.main(["--ckpt", "x", "--input", "a", "--keys", "a=b"]) == 2
    run = small_run(path, tmp_path / "run", data__keys="gap=lumo_gap")
    assert load_config(run / "config.yaml").data.keys == {"gap": "lumo_gap"}
    saved = checkpoint.load(run / checkpoint.BEST).information["config"]["data"]["keys"]
    assert saved == json.loads(json.dumps(saved)) == {"gap": "lumo_gap"}
    assert evaluation.main(["--ckpt", str(run), "--output", str(tmp_path / "own")]) == 0
    assert evaluation.main(["--ckpt", str(run), "--data", str(path), "--output", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    assert evaluation.main(["--ckpt", str(run), "--data", str(other)]) == 2
    assert 'say --keys "gap=gap"' in capsys.readouterr().err
    words = ["--data", str(other), "--keys", "gap=gap", "--output", str(tmp_path / "b")]
    assert evaluation.main(["--ckpt", str(run), *words]) == 0
    found = [json.loads((tmp_path / name / "metrics.json").read_text())["metrics"] for name in ("a", "b")]
    assert found[0] == found[1] and "baseline" not in capsys.readouterr().out.partition("not available")[1]

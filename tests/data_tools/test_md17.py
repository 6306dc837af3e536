"""Laws of frames with energies and forces: units change once, forces are the negative gradient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hostile_arrays import Payload

from data_tools.formats.md17 import SAMPLE_TEST, SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.graph import DataError, StructureTable
from data_tools.labels.plausibility import FRAME_ENERGIES, FRAME_FORCES, unit_suspicions
from data_tools.tables import name_of_row, select_rows
from data_tools.units import BOHR, HARTREE, KCAL_PER_MOL, KJ_PER_MOL
from scripts import cut_rmd17

FRAMES, ATOMS = 1000, 9
ETHANOL = [6, 6, 8, 1, 1, 1, 1, 1, 1]
WATER = {
    "z": np.array([8, 1, 1]),
    "R": np.array([[[0, 0, 0.1], [0, 0.76, -0.48], [0, -0.76, -0.48]]] * 2) + np.array([0, 0.01])[:, None, None],
    "E": np.array([-47900.0, -47901.0]),
    "F": np.arange(18.0).reshape(2, 3, 3),
}


@pytest.fixture(scope="module", params=[SAMPLE_TRAIN, SAMPLE_TEST], ids=lambda path: path.stem)
def sample(request) -> tuple[StructureTable, dict[str, np.ndarray]]:
    with np.load(request.param, allow_pickle=False) as file:
        return read_table(request.param), dict(file)


def aligned(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """The rotation that brings ``moving`` (N, 3) onto ``fixed`` (N, 3), both about the origin; by quaternions."""
    import scipy.spatial.transform  # noqa: PLC0415

    return scipy.spatial.transform.Rotation.align_vectors(fixed, moving)[0].as_matrix()


# ---- rMD17 -----------------------------------------------------------------------------------------------------------


def test_sample_is_ethanol(sample):
    table, file = sample
    assert len(table) == FRAMES and set(table.label_names) == {"energy", "forces"}
    assert table.numbers.reshape(FRAMES, ATOMS).tolist() == [ETHANOL] * FRAMES
    assert table.n_atoms.tolist() == [ATOMS] * FRAMES and table.ids.tolist() == list(range(FRAMES))
    assert name_of_row(table, 12) == "frame 12" and table.split is None and table.cells is None
    np.testing.assert_array_equal(table.positions.reshape(file["coords"].shape), file["coords"])
    assert table.source.endswith("; arrays not read: old_energies, old_forces, old_indices")
    bonds = np.linalg.norm(table.positions.reshape(FRAMES, ATOMS, 3)[:, 0] - table.positions[1::ATOMS], axis=1)
    assert 1.45 < bonds.mean() < 1.60  # Angstrom, carbon to carbon


def test_each_unit_is_converted_once(sample):
    table, file = sample
    assert table.of_structures["energy"].shape == (FRAMES,) and table.of_atoms["forces"].shape == (FRAMES * ATOMS, 3)
    assert table.of_structures["energy"].dtype == table.of_atoms["forces"].dtype == np.float64
    np.testing.assert_allclose(table.of_structures["energy"], file["energies"] * KCAL_PER_MOL, rtol=1e-15)
    np.testing.assert_allclose(table.of_atoms["forces"], file["forces"].reshape(-1, 3) * KCAL_PER_MOL, rtol=1e-15)
    assert table.of_structures["energy"].mean() == pytest.approx(-154.7 * HARTREE, rel=1e-3)  # ethanol


def test_no_frame_is_in_both_samples():
    with np.load(SAMPLE_TRAIN) as train, np.load(SAMPLE_TEST) as test:
        assert not set(train["old_indices"]) & set(test["old_indices"])


def test_forces_are_finite_and_neither_push_nor_turn_the_molecule(sample):
    table, _ = sample
    forces = table.of_atoms["forces"].reshape(FRAMES, ATOMS, 3)
    torques = np.cross(table.positions.reshape(FRAMES, ATOMS, 3), forces).sum(axis=1)
    assert np.isfinite(forces).all() and np.isfinite(table.of_structures["energy"]).all()
    assert np.abs(forces.sum(axis=1)).max() < 1e-3 and np.abs(torques).max() < 1e-3  # eV/Angstrom, eV


def test_forces_are_the_negative_gradient(sample):
    """Between near frames E_b - E_a = -(F_a + F_b) / 2 . (R_b - R_a): sign and units, without any model."""
    table, _ = sample
    positions = table.positions.reshape(FRAMES, ATOMS, 3)
    positions = positions - positions.mean(axis=1, keepdims=True)
    forces, energies = table.of_atoms["forces"].reshape(FRAMES, ATOMS, 3), table.of_structures["energy"]
    first, second = np.triu_indices(ATOMS, 1)
    distances = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    a, b = np.triu_indices(600, 1)
    nearest = np.argsort(((distances[a] - distances[b]) ** 2).sum(axis=1))[:60]  # seen without any rotation
    pairs = []
    for one, other in zip(a[nearest], b[nearest], strict=True):
        turn = aligned(positions[one], positions[other])
        displacement = positions[other] @ turn.T - positions[one]
        work = -((forces[one] + forces[other] @ turn.T) / 2 * displacement).sum()
        pairs.append((work, energies[other] - energies[one]))
    work, change = np.array(pairs).T
    assert np.corrcoef(work, change)[0, 1] > 0.95
    assert np.polyfit(work, change, 1)[0] == pytest.approx(1.0, abs=0.08)


# ---- suspicions ------------------------------------------------------------------------------------------------------


def relabelled(table: StructureTable, **factors: float) -> StructureTable:
    of_structures = {name: values * factors.get(name, 1.0) for name, values in table.of_structures.items()}
    of_atoms = {name: values * factors.get(name, 1.0) for name, values in table.of_atoms.items()}
    return dataclasses.replace(table, of_structures=of_structures, of_atoms=of_atoms)


def test_right_frames_raise_no_suspicion(sample):
    table, file = sample
    assert unit_suspicions(table) == []
    old = dataclasses.replace(
        table, of_structures={"energy": file["old_energies"]}, of_atoms={"forces": file["old_forces"].reshape(-1, 3)}
    )
    assert unit_suspicions(relabelled(old, energy=0.04336, forces=0.04336)) == []
    for size in (1, 2, 10, 30, 100):
        assert unit_suspicions(select_rows(table, np.arange(size))) == []


@pytest.mark.parametrize("unit", [*FRAME_ENERGIES, *FRAME_FORCES])
def test_one_label_in_another_unit(sample, unit):
    label, units = ("energy", FRAME_ENERGIES) if unit in FRAME_ENERGIES else ("forces", FRAME_FORCES)
    (line,) = unit_suspicions(relabelled(sample[0], **{label: 1 / units[unit]}))
    assert f"{unit} (then multiply by {units[unit]:.6g})" in line


def test_gradients_for_forces(sample):
    (line,) = unit_suspicions(relabelled(sample[0], forces=-1.0))
    assert line.startswith("forces: ") and "the energy rises along the forces" in line and "multiply by -1)" in line


def test_frames_that_cannot_tell_raise_no_suspicion(sample):
    """One frame many times, forces of other frames, energies of nearly no frame."""
    table = relabelled(sample[0], forces=1 / FRAME_FORCES["Hartree/Bohr"])
    assert len(unit_suspicions(table)) == 1
    assert unit_suspicions(select_rows(table, np.zeros(300, int))) == []
    others = np.roll(table.of_atoms["forces"], 7 * ATOMS, axis=0)
    assert unit_suspicions(dataclasses.replace(table, of_atoms={"forces": others})) == []
    energy = np.where(np.arange(FRAMES) == 3, table.of_structures["energy"], np.nan)
    assert unit_suspicions(dataclasses.replace(table, of_structures={"energy": energy})) == []


# ---- MD17 ------------------------------------------------------------------------------------------------------------


def write(folder: Path, **changes) -> Path:
    """A small MD17 file; what is None is left out."""
    np.savez(folder / "md17.npz", **{key: value for key, value in (WATER | changes).items() if value is not None})
    return folder / "md17.npz"


def assert_water(table: StructureTable, energy: float = KCAL_PER_MOL, length: float = 1.0) -> None:
    assert table.numbers.tolist() == [8, 1, 1] * 2 and table.names == ("frame 0", "frame 1")
    np.testing.assert_allclose(table.positions, WATER["R"].reshape(-1, 3) * length, rtol=1e-15)
    np.testing.assert_allclose(table.of_structures["energy"], WATER["E"] * energy, rtol=1e-15)
    np.testing.assert_allclose(table.of_atoms["forces"], WATER["F"].reshape(-1, 3) * energy / length, rtol=1e-15)


def test_md17_as_published(tmp_path):
    """Texts beside the numbers, as Python 2 wrote them, and energies in a column."""
    texts = {
        "md5": np.array(b"0123"),
        "name": np.array("water"),
        "theory": np.array(b"PBE+vdW-TS"),
        "type": np.array("d"),
    }
    table = read_table(write(tmp_path, E=WATER["E"][:, None], **texts))
    assert_water(table)
    assert table.source.endswith("; arrays not read: md5, name, theory, type")


def test_pickled_arrays_that_nobody_needs_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(Payload, "marker", str(tmp_path / "code_was_run"))
    assert_water(read_table(write(tmp_path, theory=np.array([Payload()], dtype=object))))
    with pytest.raises(DataError, match="pickled Python objects"):
        read_table(write(tmp_path, F=np.array([Payload()], dtype=object)))
    assert not (tmp_path / "code_was_run").exists()


@pytest.mark.parametrize(("text", "energy"), [
    ("kcal/mol", KCAL_PER_MOL), ("eV", 1.0), (b"Hartree", HARTREE), ("kJ/mol", KJ_PER_MOL), (" meV ", 1e-3),
])  # fmt: skip
@pytest.mark.parametrize(("name", "length"), [("Ang", 1.0), ("Bohr", BOHR), (b"Angstrom", 1.0)])
def test_units_that_the_file_names(tmp_path, text, energy, name, length):
    table = read_table(write(tmp_path, e_unit=np.array(text), r_unit=np.array([name])))
    assert_water(table, energy, length)


def test_what_is_missing_is_no_label(tmp_path):
    assert set(read_table(write(tmp_path, F=None)).label_names) == {"energy"}
    assert set(read_table(write(tmp_path, E=None)).label_names) == {"forces"}
    one = {"E": WATER["E"][:1], "R": WATER["R"][:1], "F": WATER["F"][:1]}
    assert len(read_table(write(tmp_path, **one))) == 1


def spoilt(key: str, value: float) -> dict[str, np.ndarray]:
    changed = WATER[key].astype(np.float64)
    changed[1] = value
    return {key: changed}


MISTAKES = {
    "wrong number of energies": ({"E": np.zeros(3)}, ("E with shape (2,)", "(3,)")),
    "energies in a row": ({"E": np.zeros((1, 2))}, ("E with shape (2, 1)", "(1, 2)")),
    "forces of another molecule": ({"F": np.zeros((2, 4, 3))}, ("F with shape (2, 3, 3)", "(2, 4, 3)")),
    "positions of another molecule": ({"z": np.array([8, 1])}, ("R with shape (2, 2, 3)",)),
    "elements that change": ({"z": np.ones((2, 3), int)}, ("frames of one molecule", "(2, 3)", "extended xyz")),
    "frames of different sizes": ({"R": np.array([np.zeros(3), np.zeros(6)], dtype=object)}, ("pickled",)),
    "elements in words": ({"z": np.array(["O", "H", "H"])}, ("z with shape (3,)", "<U1")),
    "unknown element": ({"z": np.array([8, 1, 130])}, ("atomic numbers from 1", "130", "frame 0")),
    "elements beyond 32 bits": ({"z": np.array([8, 1, 2**32 + 1])}, ("atomic numbers from 1",)),
    "NaN energy": (spoilt("E", np.nan), ("finite numbers in E", "frame 1")),
    "infinite force": (spoilt("F", np.inf), ("finite numbers in F", "frame 1")),
    "NaN position": (spoilt("R", np.nan), ("finite coordinates", "frame 1")),
    "no frames": ({"R": np.zeros((0, 3, 3))}, ("at least one frame",)),
    "no atoms": ({"z": np.zeros(0, int), "R": np.zeros((10**12, 0, 3))}, ("at least one frame and one atom",)),
    "one number": ({"R": np.array(1.0)}, ("at least one frame",)),
    "unknown unit of energy": ({"e_unit": np.array("rydberg")}, ("e_unit", "kcal/mol", "'rydberg'")),
    "unknown unit of length": ({"r_unit": np.array(["x", "y"])}, ("r_unit", "ang")),
    "a crystal": ({"lattice": np.eye(3)}, ("periodic lattice", "extended xyz")),
    "complex energies": ({"E": np.zeros(2, complex)}, ("complex128",)),
    "no positions": ({"R": None}, ("n_atoms, Z, R missing", "MD17 has z, R, E, F")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_is_one_line(mistake, tmp_path):
    changes, words = MISTAKES[mistake]
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path, **changes))
    message = str(caught.value)
    assert message.startswith(str(tmp_path)) and "\n" not in message and len(message) < 700
    for word in words:
        assert word in message


# ---- extended xyz ----------------------------------------------------------------------------------------------------


def test_energies_and_forces_that_ase_writes(tmp_path):
    """Frames may differ in composition."""
    import ase.build  # noqa: PLC0415
    import ase.io  # noqa: PLC0415
    from ase.calculators.singlepoint import SinglePointCalculator  # noqa: PLC0415

    random, frames = np.random.default_rng(0), []
    for name in ("H2O", "CH4", "H2O"):
        atoms = ase.build.molecule(name)
        forces = random.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=random.normal(), forces=forces)
        frames.append(atoms)
    ase.io.write(tmp_path / "frames.extxyz", frames, format="extxyz")
    table = read_table(tmp_path / "frames.extxyz")
    assert set(table.label_names) == {"energy", "forces"} and table.n_atoms.tolist() == [3, 5, 3]
    np.testing.assert_allclose(table.of_structures["energy"], [one.get_potential_energy() for one in frames], atol=1e-8)
    np.testing.assert_allclose(table.of_atoms["forces"], np.vstack([one.get_forces() for one in frames]), atol=1e-8)


@pytest.mark.parametrize("energy", ["energy", "Energy"])
@pytest.mark.parametrize("forces", ["forces", "force", "Forces", "Force"])
def test_usual_spellings(tmp_path, energy, forces):
    path = tmp_path / "one.xyz"
    path.write_text(
        f"2\nProperties=species:S:1:pos:R:3:{forces}:R:3 {energy}=-1.5\nH 0 0 0 1 2 3\nH 0 0 0.7 -1 -2 -3\n"
        "1\nProperties=species:S:1:pos:R:3 energy=-2\nHe 0 0 0\n"
    )
    table = read_table(path)
    assert set(table.label_names) == {"energy", "forces"}
    assert table.of_structures["energy"].tolist() == [-1.5, -2]
    np.testing.assert_array_equal(table.of_atoms["forces"], [[1, 2, 3], [-1, -2, -3], [np.nan] * 3])


def test_what_is_no_vector_per_atom_keeps_its_name(tmp_path):
    path = tmp_path / "one.xyz"
    path.write_text("2\nProperties=species:S:1:pos:R:3:force:R:1 Energy=-1 energy=-2\nH 0 0 0 1\nH 0 0 0.7 2\n")
    table = read_table(path)
    assert set(table.of_structures) == {"energy", "Energy"} and set(table.of_atoms) == {"force"}


# ---- scripts/cut_rmd17.py --------------------------------------------------------------------------------------------


def cut(file: Path, text: str, folder: Path, output: str = "cut.npz") -> tuple[int, Path]:
    (folder / "rows.csv").write_text(text)
    given = ["--file", str(file), "--rows", str(folder / "rows.csv"), "--output", str(folder / output)]
    return cut_rmd17.main(given), folder / output


def test_the_frames_of_a_list_become_a_file(tmp_path, capsys):
    rows = [999, 0, 17]
    code, written = cut(SAMPLE_TRAIN, "\n".join(map(str, rows)) + "\n\n", tmp_path)
    assert code == 0 and capsys.readouterr().out == f"{written}: 3 frames\n"
    table, whole = read_table(written), select_rows(read_table(SAMPLE_TRAIN), np.array(rows))
    np.testing.assert_array_equal(table.positions, whole.positions)
    np.testing.assert_array_equal(table.numbers, whole.numbers)
    assert set(table.label_names) == {"energy", "forces"}
    np.testing.assert_array_equal(table.of_structures["energy"], whole.of_structures["energy"])
    np.testing.assert_array_equal(table.of_atoms["forces"], whole.of_atoms["forces"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.npz", "rows.csv"]


def test_a_cut_file_keeps_its_units(tmp_path):
    np.savez(tmp_path / "water.npz", **WATER, r_unit="Bohr", e_unit="Hartree")
    code, written = cut(tmp_path / "water.npz", "1", tmp_path)
    assert code == 0
    np.testing.assert_allclose(read_table(written).of_structures["energy"], -47901.0 * HARTREE, rtol=1e-12)


@pytest.mark.parametrize(
    "text, output, words",
    [
        ("0\n1000\n", "cut.npz", "expected frames 0 to 999, found 1000"),
        ("5\n6\n5\n", "cut.npz", "found 5 twice"),
        ("1\n2.5\n", "cut.npz", "found 2.5 in line 2"),
        ("-1\n", "cut.npz", "found -1 in line 1"),
        ("9" * 40, "cut.npz", "in line 1"),
        ("\n", "cut.npz", "found none"),
        ("1", "cut.txt", "ends with .npz"),
        ("1", "nowhere/cut.npz", "No such file"),
    ],
)
def test_a_list_that_is_wrong(text, output, words, tmp_path, capsys):
    code, written = cut(SAMPLE_TRAIN, text, tmp_path, output)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "") and not written.exists()
    assert captured.err.startswith("error: ") and words in captured.err and captured.err.count("\n") == 1


def test_frames_of_no_known_layout_are_not_cut(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe1")
    assert cut(tmp_path / "other.npz", "0", tmp_path)[0] == 2
    assert "nuclear_charges" in capsys.readouterr().err
    given = ["--file", str(SAMPLE_TRAIN), "--output", str(tmp_path / "cut.npz"), "--rows"]
    assert cut_rmd17.main([*given, str(tmp_path / "binary.csv")]) == 2
    assert "no text" in capsys.readouterr().err
    assert cut_rmd17.main([*given, str(tmp_path / "missing.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1

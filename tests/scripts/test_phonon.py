"""scripts/phonon.py from files to a page: numbers beside phonopy and ASE, what a folder may lose, and refusals."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import phonopy
import pytest
from aluminium import by_phonopy, record, words, write_cells
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.phonons import Phonons
from crystal_samples import SMASO4, ZINC_OXIDE, ZR3N4
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS
from phonopy.structure.atoms import PhonopyAtoms
from test_architecture import functions

from data_tools.formats.cell_files import crystal_of_setting, read_cell, with_supercell
from data_tools.formats.phonopy_files import read_crystal
from experiment import phonon_report, phonon_run
from experiment.phonon_figures import point_name
from experiment.phonon_page import page
from experiment.phonon_run import mesh_points
from physics.phonon_spectra import Bands
from physics.phonons import Mesh, Stability, mesh_frequencies
from scripts.phonon import main, summary

FILES = {
    "FORCE_CONSTANTS", "SPOSCAR", "bands.png", "decay.png", "dos.png", "phonopy_params.yaml", "report.json",
    "report.md", "thermal.csv", "thermal.png",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def coarse():
    """Meshes of six points along each axis: the pictures are not looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phonon_run, "MESH_LENGTH", 10.0)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="module")
def report(files, coarse):
    """The folder of a run on aluminium that everything else looks at."""
    folder = files / "Al"
    assert main(words(files, folder)) == 0
    return folder


@pytest.fixture(autouse=True)
def no_pictures(report, monkeypatch):
    """Runs after the first one draw nothing."""

    def draw(_, folder):
        for name in ("bands", "dos", "thermal", "decay"):
            (folder / f"{name}.png").touch()

    monkeypatch.setattr(phonon_report, "_draw", draw)


def test_the_folder(report):
    assert {one.name for one in report.iterdir()} == FILES == set(record(report)["files"])
    assert not list(report.parent.glob(".*partial*"))


def test_force_constants_are_those_of_phonopy(report):
    expected = by_phonopy()
    found = phonopy.load(report / "phonopy_params.yaml", symmetrize_fc=False, log_level=0)
    for q in ([0.5, 0.5, 0.0], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]):
        assert found.get_frequencies(q) == pytest.approx(expected.get_frequencies(q), abs=1e-5)
    expected.run_mesh((6, 6, 6), is_gamma_center=True)
    expected.run_thermal_properties(temperatures=[300], cutoff_frequency=0.05)
    (capacity,) = expected.get_thermal_properties_dict()["heat_capacity"]
    assert record(report)["phonons"]["thermal_300K"]["heat_capacity_J_per_K_mol"] == pytest.approx(capacity, rel=1e-5)
    with (report / "thermal.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    at = {float(row["temperature_K"]): row for row in rows}
    assert float(at[300.0]["heat_capacity_J_per_K_mol"]) == pytest.approx(capacity, rel=1e-5) and len(rows) == 101


def test_frequencies_are_those_of_ase(files, tmp_path):
    """ASE's own phonons of the same potential; its displacements are those of every axis, forwards and backwards."""
    atoms = bulk("Al")
    of_ase = Phonons(atoms, EMT(), supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "ase"))
    of_ase.run()
    of_ase.read(acoustic=False)
    atoms.write(tmp_path / "primitive.vasp", format="vasp")
    folder = tmp_path / "report"
    assert main(words(tmp_path, folder, structure="primitive.vasp", times="3 3 3")) == 0
    found = phonopy.load(folder / "phonopy_params.yaml", symmetrize_fc=False, log_level=0)
    for q in ([1 / 3, 1 / 3, 0.0], [1 / 3, 2 / 3, 0.0], [1 / 3, 0.0, 0.0]):  # that fit the supercell
        energies = of_ase.band_structure([np.array(q)], verbose=False)[0]
        assert found.get_frequencies(q) == pytest.approx(1e-12 * energies * units._e / units._hplanck, rel=2e-3)


def test_the_page(report):
    page = (report / "report.md").read_text()
    assert "**Stable**" in page and "not relaxed" in page and "differences of forces for 1 displacement of" in page
    laws = record(report)["checks"]["laws"]
    assert set(laws) >= {"exchange", "acoustic", "rotational", "space_group", "lowest_frequency", "edge"}
    for law in laws.values():
        assert {"raw", "projected", "dft", "unit"} <= set(law)
        assert all(len(law["dft"][kind]["value"]) == 2 for kind in ("raw", "projected"))
    for name in ("bands", "dos", "thermal", "decay"):
        assert f"({name}.png)" in page and (report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {"rotation", "translation", "permutation"} == set(record(report)["energy"])


@pytest.mark.parametrize("name", ["Al.cif", "Al.xyz"])
def test_the_same_crystal_from_another_file(files, name):
    one, other = (crystal_of_setting(with_supercell(read_cell(files / file), (2, 2, 2))) for file in (name, "POSCAR"))
    assert np.allclose(one.supercell.positions, other.supercell.positions, atol=1e-4)
    assert np.allclose(one.primitive_cell, other.primitive_cell) and one.n_primitive == 1 and one.space_group == 225
    assert one.supercell.name == "Al" and not one.blocks.any() and one.masses == pytest.approx(26.98, abs=0.01)


def test_given_force_constants_beside_a_reference(files, report, tmp_path):
    """Force constants without their sum rule: projecting brings it back, and only then phonons change."""
    found = phonopy.load(report / "phonopy_params.yaml", symmetrize_fc=False, log_level=0)
    blocks = np.array(found.force_constants)
    blocks[:, :, 0, 0] += 0.002
    write_FORCE_CONSTANTS(blocks, str(tmp_path / "FORCE_CONSTANTS"), p2s_map=found.primitive.p2s_map)
    source = f"--force_constants {tmp_path / 'FORCE_CONSTANTS'}"
    reference = ("--reference", str(report / "FORCE_CONSTANTS"))
    assert main(words(files, tmp_path / "raw", *reference, source=source)) == 0
    assert main(words(files, tmp_path / "new", *reference, "--project", source=source)) == 0
    raw, new = record(tmp_path / "raw"), record(tmp_path / "new")
    for one in (raw, new):
        assert one["checks"]["laws"]["acoustic"]["raw"]["value"] == pytest.approx(0.002 * 32)
        assert one["checks"]["laws"]["acoustic"]["projected"]["value"] < 1e-12
        assert one["errors"]["zero"]["mae"] > one["errors"]["these"]["mae"] > 0
    assert max(np.abs(raw["phonons"]["acoustic_at_gamma_THz"])) > 0.1
    assert max(np.abs(new["phonons"]["acoustic_at_gamma_THz"])) < 1e-4
    assert {"FORCE_CONSTANTS_PROJECTED"} == set(new["files"]) - set(raw["files"])
    assert "those of the raw force" in (tmp_path / "raw" / "report.md").read_text()
    assert "those of the projected force" in (tmp_path / "new" / "report.md").read_text()
    assert new["errors"]["these"]["mae"] < raw["errors"]["these"]["mae"]


@pytest.mark.parametrize("path", [SMASO4, ZINC_OXIDE], ids=lambda path: path.name)
def test_files_of_phonopy_stand_for_all_three(tmp_path, capsys, path):
    """Structure, force constants and reference: the same crystal everywhere, so no error is left."""
    given = ["--structure", str(path), "--force_constants", str(path), "--reference", str(path)]
    assert main([*given, "--output", str(tmp_path / "out")]) == 0
    found = record(tmp_path / "out")
    assert found["errors"]["these"]["mae"] == 0 < found["errors"]["zero"]["mae"]
    assert found["phonons"]["highest_THz"] == pytest.approx(mesh_frequencies(read_crystal(path)).highest, rel=0.02)
    assert ": stable" in capsys.readouterr().out
    given[-1] = str(ZR3N4)
    assert main([*given, "--output", str(tmp_path / "other")]) == 2
    assert "give phonopy_params_Zr3N4.yaml as the structure too" in capsys.readouterr().err


def test_what_is_stable_on_the_mesh_alone(report):
    """A negative frequency on the path or at Gamma is told in the first words."""
    found = json.loads((report / "report.json").read_text())
    assert "**Stable**" in page(found)
    found["phonons"]["lowest_on_path_THz"] = -0.2
    assert "**Stable on the mesh, not on the path of the bands**" in page(found)
    assert "-0.200 THz (imaginary), between" in page(found)
    found["phonons"]["lowest_at_gamma_THz"] = -0.3
    assert "**Not stable at Γ**" in page(found) and "at Γ is -0.300 THz (imaginary)" in page(found)
    mesh, path, nothing = Mesh(np.zeros((1, 3)), np.ones(1), np.ones((1, 3))), np.full((1, 3), 0.5), np.zeros(3)
    for lowest, gamma, on_path, expected in (
        (-0.2, 1.0, 1.0, "not stable, lowest frequency -0.2 THz"),
        (1.0, -0.3, -0.3, "not stable at Gamma (-0.3 THz)"),
        (1.0, 1.0, -0.2, "stable on the mesh, not on the path (-0.2 THz)"),
        (1.0, 1.0, 0.9, "stable, lowest frequency 1 THz"),
    ):
        bands = Bands((path,), (np.zeros(1),), (np.full((1, 3), on_path),), (("X", "M"),))
        assert (
            summary(phonon_run.Phonons(None, Stability(gamma, lowest, nothing, nothing), bands, None, mesh, None))
            == expected
        )


def test_relaxation(files, tmp_path):
    """EMT's own lattice constant of aluminium is 3.995 Angstrom."""
    assert main(words(files, tmp_path / "out", "--relax")) == 0
    found = record(tmp_path / "out")
    assert found["relaxation"]["converged"] and found["relaxation"]["fmax_eV_per_A"] <= 0.001
    assert found["crystal"]["supercell_A"][0][0] == pytest.approx(2 * 3.995, abs=0.003)
    assert found["crystal"]["space_group"] == "Fm-3m 225"
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"{found['relaxation']['steps']} steps" in page and "symmetry kept" in page


def test_an_unstable_crystal(files, tmp_path):
    """Body-centred copper is no minimum of EMT."""
    assert main(words(files, tmp_path / "out", structure="bcc.vasp")) == 0
    found = record(tmp_path / "out")["phonons"]
    assert not found["stable"] and found["lowest_on_mesh_THz"] < -0.5
    page = (tmp_path / "out" / "report.md").read_text()
    assert "**Not stable**" in page and "(imaginary)" in page and "On the path of the bands" in page


def test_units_of_another_program(files, report, tmp_path):
    """Cells in Bohr and force constants in Ry/Bohr^2, as a phonopy.yaml of Quantum ESPRESSO has them."""
    bohr, rydberg = units.Bohr, units.Rydberg
    cell = bulk("Al", cubic=True)
    atoms = PhonopyAtoms(numbers=cell.numbers, positions=cell.positions / bohr, cell=cell.cell[:] / bohr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Phonopy(atoms, 2 * np.eye(3, dtype=int), primitive_matrix="auto", calculator="qe")
    found.save(tmp_path / "phonopy.yaml")
    blocks = by_phonopy().force_constants * bohr**2 / rydberg
    write_FORCE_CONSTANTS(blocks, str(tmp_path / "FORCE_CONSTANTS"))
    source = f"--force_constants {tmp_path / 'FORCE_CONSTANTS'}"
    assert main(words(tmp_path, tmp_path / "out", structure="phonopy.yaml", source=source, times="")) == 0
    one, other = record(tmp_path / "out")["phonons"], record(report)["phonons"]
    assert one["highest_THz"] == pytest.approx(other["highest_THz"], rel=1e-5)


def test_polar_materials_are_told(files, tmp_path, capsys):
    """Without Born charges; a metal of two elements is none."""
    assert main(words(files, tmp_path / "one", structure="NiAl.vasp")) == 0
    assert "polar" not in capsys.readouterr().err and not record(tmp_path / "one")["warnings"]
    source = "--calculator aluminium:Springs"
    assert main(words(files, tmp_path / "two", structure="MgO.vasp", source=source, times="1 1 1")) == 0
    assert "may be polar" in capsys.readouterr().err
    assert "may be polar" in (tmp_path / "two" / "report.md").read_text()


@pytest.mark.parametrize(
    ("structure", "source", "more", "expected"),
    [
        ("nothing", "", "", "found nothing there"),
        ("POSCAR_cut", "", "", "cannot read it"),
        ("two.xyz", "", "", "expected one crystal, found 2"),
        ("molecule.xyz", "", "", "periodic in three directions"),
        ("left.xyz", "", "", "left-handed"),
        ("twice.xyz", "", "", "Angstrom from each other"),
        ("POSCAR", "", "--supercell 0 1 1", "expected three numbers from 1"),
        ("POSCAR", "", "--supercell 99 99 99", "at most 5000 atoms"),
        ("POSCAR", "", "--fmax 0", "above 0"),
        ("POSCAR", "", "--outputs x", "unknown option"),
        ("POSCAR", "--calculator emt", "", "expected module:Class"),
        ("POSCAR", "--calculator no.such:Thing", "", "ModuleNotFoundError"),
        ("POSCAR", "--calculator ase.calculators.emt:Nothing", "", "AttributeError"),
        ("POSCAR", "--calculator builtins:dict", "", "expected a calculator of ASE"),
        ("Si.vasp", "", "", "No EMT-potential for Si"),
        ("POSCAR", "--calculator aluminium:NoNumbers", "", "expected finite forces"),
        ("POSCAR", "--calculator aluminium:ForcesOnly", "--relax", "energy and stress"),
        ("POSCAR", "--ckpt nowhere", "", "nowhere"),
        ("POSCAR", "--force_constants nowhere", "", "nowhere"),
        ("POSCAR", "--force_constants POSCAR", "", "FORCE_CONSTANTS or force_constants.hdf5"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS", "--relax", "do not move atoms"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS", "--supercell 1 2 2", "found 1 x 32"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS", "--born nowhere", "nowhere"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS", "--reference FORCE_CONSTANTS_header", "header"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS_order", "", "order"),
        ("POSCAR", "--force_constants FORCE_CONSTANTS --ckpt x", "", "not allowed with"),
    ],
)
def test_what_is_refused(files, report, tmp_path, monkeypatch, capsys, structure, source, more, expected):
    """One line, exit code 2, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    text = (report / "FORCE_CONSTANTS").read_text()
    (tmp_path / "FORCE_CONSTANTS").write_text(text)
    (tmp_path / "FORCE_CONSTANTS_header").write_text(text.replace(text.split("\n")[0], "2 32", 1))
    blocks = np.array(by_phonopy().force_constants)
    order = np.arange(32)
    order[[0, 9, 17]] = order[[9, 17, 0]]
    write_FORCE_CONSTANTS(blocks[:, order], "FORCE_CONSTANTS_order")
    (tmp_path / "POSCAR").write_text((files / "POSCAR").read_text())
    times = "" if "--supercell" in more else "2 2 2"
    assert main([*words(files, tmp_path / "out", structure=structure, source=source, times=times), *more.split()]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("error: ") and expected in error, error
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_no_supercell(files, report, tmp_path, monkeypatch, capsys):
    """One that is 10 Angstrom wide; given force constants belong to one that only the user knows."""
    assert main(words(files, tmp_path / "out", times="")) == 0
    assert record(tmp_path / "out")["crystal"]["supercell_matrix"] == np.diag([3, 3, 3]).tolist()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FORCE_CONSTANTS").write_text((report / "FORCE_CONSTANTS").read_text())
    assert main(words(files, tmp_path / "two", source="--force_constants FORCE_CONSTANTS", times="")) == 2
    assert "--supercell 2 2 2" in capsys.readouterr().err


def test_a_folder_that_is_used(files, report, tmp_path, capsys):
    """One of another program stays as it is; an earlier report is replaced on request, and other files in it stay."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text("{}")
    for more in ((), ("--overwrite",)):
        assert main(words(files, other, *more)) == 2
        assert "metrics.json, which scripts/phonon.py has not written" in capsys.readouterr().err
    assert [one.name for one in other.iterdir()] == ["metrics.json"]
    assert main(words(files, other / "metrics.json")) == 2
    before = {one.name: one.read_bytes() for one in report.iterdir()}
    assert main(words(files, report)) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main(words(files, report, "--overwrite", source="--calculator no.such:Thing")) == 2
    assert {one.name: one.read_bytes() for one in report.iterdir()} == before


def test_an_earlier_report_is_replaced(files, report, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    source = f"--force_constants {report / 'FORCE_CONSTANTS'}"
    assert main(words(files, folder, "--project", source=source)) == 0
    (folder / "notes.txt").write_text("mine")
    assert main(words(files, folder, "--overwrite", source=source)) == 0
    assert {one.name for one in folder.iterdir()} == FILES | {"notes.txt"}


def test_names_of_points():
    assert [point_name(one) for one in ("GAMMA", "X", "U|K", "SIGMA_0")] == ["Γ", "X", "U|K", "Σ₀"]


def test_points_of_a_mesh(monkeypatch):
    monkeypatch.setattr(phonon_run, "MESH_LENGTH", 40.0)
    assert mesh_points(np.diag([4.0, 4.0, 20.0])) == (10, 10, 6)


def test_the_script_is_small():
    assert sum(functions("scripts/phonon.py").values()) < 110

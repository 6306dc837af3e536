"""scripts/phonon.py with checkpoints: exact derivatives, several potentials, those that ship, wide supercells."""

from __future__ import annotations

import numpy as np
import pytest
from aluminium import record, words, write_cells
from ase.build import bulk
from published_files import SAMPLES

from data_tools.formats.cell_files import crystal_of_setting, read_cell, with_supercell
from data_tools.graph import Structure
from experiment import phonon_report, phonon_run
from experiment.phonon_source import blocks_of, potential_of_checkpoints
from physics.supercells import repetitions
from scripts.phonon import main
from training.checkpoint import Checkpoint, load_weights, save


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Coarse meshes and no pictures."""

    def draw(_, folder):
        for name in ("bands", "dos", "thermal", "decay"):
            (folder / f"{name}.png").touch()

    monkeypatch.setattr(phonon_run, "MESH_LENGTH", 10.0)
    monkeypatch.setattr(phonon_report, "_draw", draw)


def test_a_checkpoint(files, tmp_path, capsys, same_mode):
    """The shipped potential of ethanol on diamond, which it has never seen: second derivatives are exact all the same.

    Training gives no energy for carbon alone, so only forces tell of invariance.
    """
    source = f"--ckpt {SAMPLES / 'ethanol_schnet.safetensors'}"
    assert main(words(files, tmp_path / "out", structure="C.vasp", source=source)) == 0
    found = record(tmp_path / "out")
    assert found["force_constants"]["method"] == "exact second derivatives"
    assert found["force_constants"]["spread"] is None
    laws = found["checks"]["laws"]
    assert laws["exchange"]["raw"]["relative"] < 1e-10 and laws["acoustic"]["raw"]["relative"] < 1e-10
    assert laws["space_group"]["raw"]["relative"] < 1e-8
    assert 0 < found["energy"]["differences"]["relative"] < 0.05
    assert found["energy"]["rotation"]["value"] is None and found["energy"]["rotation"]["relative"] < 1e-10
    assert any("supercell" in line and "cutoff" in line for line in found["warnings"])
    assert "larger --supercell" in capsys.readouterr().err


def test_several_checkpoints(files, tmp_path, same_mode):
    """Their mean, and how far they differ; what the card of all of them says of that spread stands on the page."""
    checkpoint = load_weights(SAMPLES / "ethanol_schnet.safetensors")
    card = {"materials": 7, "error_over_spread": 2.0, "lower": 1.0, "upper": 3.0, "median_relative_error": 0.1}
    random, paths = np.random.default_rng(0), []
    for member in range(3):
        weights = {
            name: (values * (1 + 0.01 * random.normal(size=values.shape))).astype(values.dtype)
            if values.dtype.kind == "f" else values
            for name, values in checkpoint.weights.items()
        }  # fmt: skip
        paths.append(tmp_path / f"{member}.safetensors")
        save(paths[-1], Checkpoint(weights, information={**checkpoint.information, "card": card}))
    found = [blocks_of_checkpoints(files, [path]) for path in paths]
    several = blocks_of_checkpoints(files, paths)
    members = potential_of_checkpoints([str(path) for path in paths]).members
    assert len({id(member.product.function) for member in members}) == 1, "compiled for each of them"
    assert all(one.spread is None for one in found)
    stack = np.stack([one.blocks for one in found])
    assert np.allclose(several.blocks, stack.mean(axis=0), atol=1e-12 * np.abs(stack).max())
    assert np.allclose(several.spread, stack.std(axis=0, ddof=1)) and several.spread.max() > 1e-3
    source = "--ckpt " + " ".join(map(str, paths))
    assert main(words(files, tmp_path / "out", structure="C.vasp", source=source)) == 0
    spread = record(tmp_path / "out")["force_constants"]["spread"]
    relative = np.linalg.norm(several.spread) / np.linalg.norm(several.blocks)
    assert spread["relative"] == pytest.approx(relative) and spread["members"] == 3
    assert spread["expected_relative_error"] == pytest.approx(2 * relative)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "mean of 3 potentials" in page and "2.0 times this spread" in page and "7 materials" in page
    assert record(tmp_path / "out")["energy"]["rotation"]["relative"] < 1e-10  # of their mean energy


def blocks_of_checkpoints(files, paths):
    potential = potential_of_checkpoints([str(path) for path in paths])
    crystal = crystal_of_setting(with_supercell(read_cell(files / "C.vasp"), (2, 2, 2)))
    return blocks_of(crystal, potential)


@pytest.mark.parametrize(("cell", "expected"), [
    (np.diag([4.0, 10.0, 10.1]), (3, 1, 1)), (np.diag([9.999999999, 3.4, 30.0]), (1, 3, 1)),
    ([[0, 2.0, 2.0], [2.0, 0, 2.0], [2.0, 2.0, 0]], (5, 5, 5)),
])  # fmt: skip
def test_repetitions_are_as_few_as_make_a_supercell_wide(cell, expected):
    """Opposite faces of the primitive cell of fcc are a / sqrt(3) apart."""
    structure = Structure(np.array([13], np.int32), np.zeros((1, 3)), np.array(cell, float))
    assert repetitions(structure) == expected  # what rounding takes from a length counts for nothing


def test_what_ships(tmp_path, capsys, same_mode):
    """Magnesium oxide is stable, with an optical frequency near that of DFT at Gamma; an unknown element is refused."""
    bulk("MgO", "rocksalt", a=4.21).write(tmp_path / "MgO.vasp", format="vasp")
    for symbol in ("He", "Rn"):
        bulk(symbol, "fcc", a=6.0).write(tmp_path / f"{symbol}.vasp", format="vasp")
    arguments = ["--supercell", "3", "3", "3", "--output", str(tmp_path / "out")]
    for symbol, words_of in (("He", "He"), ("Rn", "expected elements that phonopy knows a mass of, found Rn")):
        assert main(["--structure", str(tmp_path / f"{symbol}.vasp"), *arguments]) == 2
        assert words_of in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["--structure", str(tmp_path / "MgO.vasp"), *arguments]) == 0
    found = record(tmp_path / "out")
    assert found["force_constants"]["potential"] == ", ".join(f"phonons_{number}.safetensors" for number in (1, 2, 3))
    assert 0.005 < found["force_constants"]["spread"]["expected_relative_error"] < 0.3
    assert found["phonons"]["stable"] and 15 < found["phonons"]["highest_THz"] < 25
    laws = found["checks"]["laws"]
    assert laws["exchange"]["raw"]["value"] < 1e-6 and laws["acoustic"]["raw"]["value"] < 1e-6
    alone = ["--ckpt", str(SAMPLES / "phonons_1.safetensors")]
    assert main(["--structure", str(tmp_path / "MgO.vasp"), *alone, alone[1], *arguments, "--overwrite"]) == 2
    assert "expected potentials that differ, got" in capsys.readouterr().err
    information = load_weights(SAMPLES / "phonons_1.safetensors").information
    assert information["card"]["materials"] == 100 and len(information["elements"]) > 70
    assert information["config"]["data"]["file"] == "train.npz" and "provenance" not in information

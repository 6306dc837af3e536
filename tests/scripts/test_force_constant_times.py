"""force_constant_times.py: its supercells, force constants from several crystals' forces, its page and its failures."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_crystals import crystal

from configs.loading import ConfigError
from data_tools.graph import DataError
from physics.finite_displacements import displaced_cells
from physics.force_constants import full_of
from scripts.benchmarks import force_constant_times
from scripts.benchmarks.force_constant_page import page
from scripts.benchmarks.material_times import WAYS, solved

ROW = {
    "crystal": "mp-1958", "potentials": 3, "method": "exact", "atoms": 64, "primitive": 2, "edges": 1152,
    "evaluations": 6, "first_seconds": 20.0, "seconds": 0.5, "memory_gib": 1.5, "before_gib": 0.5,
    "estimated_gib": 1.25,
}  # fmt: skip
WAY = {"cpu_seconds": 3.0, "cpu_seconds_compiled": 2.0, "memory_gib": 1.0, "difference": [1e-4, 3e-4]}


@pytest.mark.parametrize(("name", "primitive", "group"), [("mp-1958", 2, 225), ("mp-9819", 8, 148)])
def test_a_shipped_crystal_grows(name, primitive, group):
    found = force_constant_times.grown(name, 2)
    assert (found.n_atoms, found.n_primitive, found.space_group) == (64, primitive, group)
    assert abs(np.linalg.det(found.supercell.cell) / np.linalg.det(found.primitive_cell)) == pytest.approx(
        64 / primitive
    )


def test_a_crystal_that_does_not_ship(monkeypatch):
    monkeypatch.setitem(force_constant_times.CELLS, "mp-0", np.eye(3, dtype=int))
    with pytest.raises(DataError, match="mp-0"):
        force_constant_times.grown("mp-0", 2)


def test_forces_that_follow_each_other_give_the_force_constants_of_each_crystal():
    crystals = [crystal("Al", "Ni"), crystal("Cu", "Pd")]
    displaced = [displaced_cells(one) for one in crystals]
    forces = [
        -np.einsum("iajb,djb->dia", full_of(one).transpose(0, 2, 1, 3), cells.positions - one.supercell.positions)
        for one, cells in zip(crystals, displaced, strict=True)
    ]
    found = solved(crystals, displaced, np.concatenate([of_one.reshape(-1, 3) for of_one in forces]))
    for one, blocks in zip(crystals, found, strict=True):
        assert np.abs(blocks - one.blocks).max() < 1e-5 * np.abs(one.blocks).max()  # of EMT's own differences


def test_the_page():
    record = {"command": "python x", "commit": "abc", "versions": {"python": "3"}, "cores": 2, "machine": "x86_64",
              "words": "beside other work", "rows": [ROW, ROW | {"method": "displacements", "evaluations": 2,
              "estimated_gib": None, "difference": 1.1e-4}], "materials": None}  # fmt: skip
    text = page(record)
    assert "| exact | 18 | 20.0 | 0.50 | 1.50 | 0.50 | 1.00, 1.25 |  |" in text and "What DFT" not in text
    assert "| displacements | 6 | 20.0 | 0.50 | 1.50 | 0.50 | 1.00 | 1e-04 |" in text and "beside other work." in text
    found = {"atoms": [64, 32], "primitive": [2, 8], "supercells": [2, 6], "ways": dict.fromkeys(WAYS, WAY)}
    text = " ".join(page(record | {"materials": found}).split())
    assert "| 15.0 | 3.00 | 2.00 | | 1.00 |" in text and "| 4.0 | 3.00 | 2.00 | 2e-04, 3e-04 | 1.00 |" in text
    assert "have 8, 4.0 a material in the mean, 4 in the median, 2 to 6, of 40 atoms" in text
    assert "within 0.75 CPU s" in text and "7net-0 13.1" in text


def test_a_process_that_fails_is_one_line(tmp_path):
    missing = tmp_path / "none.safetensors"
    words = ["-c", f"import sys; sys.exit('{missing}: no such file')"]
    with pytest.raises(ConfigError, match=r"exit code 1: .*no such file"):
        force_constant_times.last_json(words, 1.0)

"""The comparison of ways to symmetrise force constants, on a small crystal."""

from __future__ import annotations

import pytest
from crystal_examples import FOLDER

from scripts.benchmarks.symmetrisation import WAYS, main

SILICON = FOLDER / "phonopy_params_Si.yaml"


def test_the_table_of_silicon(tmp_path, capsys):
    pytest.importorskip("symfc")
    (tmp_path / "POSCAR").write_text("nothing")
    output = tmp_path / "table.md"
    assert main([str(SILICON), str(tmp_path / "POSCAR"), "--output", str(output)]) == 0
    lines = output.read_text().splitlines()
    assert "Medians of 1 crystals, supercells of 16-16 atoms, noise 0.02" in lines[0]
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[4:]}
    assert set(rows) == set(WAYS)
    for name, row in rows.items():
        complete = "projector" in name or "projected" in name
        assert (float(row[0]) == pytest.approx(1, abs=1e-3)) == complete
        assert all(float(left) < 1e-12 for left in row[1:4]) == complete
    assert "skipped: " in capsys.readouterr().err


def test_nothing_that_can_be_read(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere.yaml")]) == 2
    assert "expected a crystal that can be read, found none" in capsys.readouterr().err

"""robustness.py, law_residuals.py, larger_supercells.py and pages of approximations: what is compared, and how."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from spring_crystals import joined, skewed

from configs.loading import ConfigError
from data_tools.graph import DataError
from scripts.benchmarks import hessian_approximations, larger_supercells, law_residuals, robustness

ROW = {key: 1 if kind == "d" else 0.5 for key, (_, kind) in robustness.COLUMNS.items()}
DONE = {**ROW, "unseen": True, "result": robustness.OK}
LOST = {"unseen": False, "memory_gib": 13.0, "result": "ended: more than 12 GiB of memory"}


def table():
    """Forty materials of 60 to 255 atoms, of which every fifth atom number counts."""
    return SimpleNamespace(names=[f"mp-{n}" for n in range(40)], n_atoms=np.arange(60, 260, 5))


def test_materials_are_drawn_by_a_seed_and_those_not_learned_from_come_first():
    fits = {f"mp-{n}" for n, size in enumerate(range(60, 260, 5)) if 96 <= size <= 200}
    test = {"mp-10", "mp-12", "mp-0"}
    found = robustness.chosen(table(), 20, 0, None, test)
    assert list(found.values()) == [True] * 2 + [False] * 18 and set(found) <= fits and len(fits) == 21
    assert set(list(found)[:2]) == test - {"mp-0"}
    assert list(found) == list(robustness.chosen(table(), 20, 0, None, test))
    assert list(found) != list(robustness.chosen(table(), 20, 1, None, test))
    seen = fits - {"mp-20"}
    assert sum(robustness.chosen(table(), 5, 0, seen, test).values()) == 3
    with pytest.raises(DataError, match="expected 22 materials of 96 to 200 atoms"):
        robustness.chosen(table(), 22, 0, None, test)


def test_a_second_start_goes_on_and_other_options_are_refused(tmp_path):
    options = SimpleNamespace(output=tmp_path / "found.json")
    assert robustness.begun(options, {"seed": 0}) == {}
    content = {"setting": {"seed": 0}, "rows": {"mp-1": DONE, "mp-2": LOST}}
    options.output.write_text(json.dumps(content))
    assert robustness.begun(options, {"seed": 0}) == {"mp-1": DONE}  # what has no result is tried again
    with pytest.raises(ConfigError, match="made with other data"):
        robustness.begun(options, {"seed": 1})
    options.output.write_text("[]")
    with pytest.raises(DataError, match="expected a file of"):
        robustness.begun(options, {"seed": 0})


def test_the_page_says_what_was_learned_from_and_what_failed():
    text = robustness.page({"mp-1": DONE, "mp-2": LOST, "mp-3": DONE | {"spread": None}}, "python x", "versions")
    assert "2 of the 2 that have a result were not" in text and "| mp-1 | no | 1 | 1 | 0 | 0.50 |" in text
    assert "| mp-2 | yes | ended: more than 12 GiB of memory |" in text and "| median | |" in text
    assert "| mean | |" in robustness.page({"mp-2": LOST}, "python x", "versions")


def test_the_table_of_a_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{law_residuals.START}\nold\n{law_residuals.END}\nafter\n")
    law_residuals.put(page, ["| new |"])
    assert page.read_text() == f"before\n{law_residuals.START}\n| new |\n{law_residuals.END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(DataError, match="on lines of their own"):
        law_residuals.put(page, ["| new |"])
    assert page.read_text() == "no marks"
    with pytest.raises(DataError, match="expected one that ships"):
        law_residuals.rows_of(table(), ["mp-99"])


def test_residuals_are_those_of_what_breaks_a_law(monkeypatch):
    """Force constants that depend on where the crystal is, and on which image of an atom is given."""
    from tiny_crystals import crystal  # noqa: PLC0415  EMT takes a second

    one = crystal("Al", "Ni")

    def blocks_of(network, product, structure, p2s):
        shift = structure.positions - one.supercell.positions
        return one.blocks * (1 + 0.01 * (np.abs(shift).max() > 0)) + 0.002 * (np.ptp(shift) > 9)

    monkeypatch.setattr(law_residuals, "blocks_of", blocks_of)
    found = law_residuals.residuals(None, None, one)
    assert found.largest == np.abs(one.blocks).max() and found.sums < 1e-6 * found.largest
    assert found.moved == pytest.approx(0.01 * found.largest) and found.images > found.moved
    assert found.exchange < 1e-3 * found.largest


def test_two_supercells_of_one_crystal_agree():
    small, large = joined(skewed(), 2), joined(skewed(), 4)
    assert np.abs(larger_supercells.folded(small, large) - small.blocks).max() < 1e-12
    points = larger_supercells.commensurate(small)
    assert sorted(map(tuple, points)) == [(x, y, z) for x in (0, 0.5) for y in (0, 0.5) for z in (0, 0.5)]
    found = [larger_supercells.frequencies(crystal, points) for crystal in (small, large)]
    assert found[0].max() > 10 and np.abs(found[0] - found[1]).max() < 1e-4  # of zero modes at rest


def test_errors_of_several_potentials_stand_beside_each_other():
    row, structure = hessian_approximations.Row, SimpleNamespace(name="AlNi")
    exact = row(hessian_approximations.EXACT, 0.0, "", 1.0)
    first = [exact, row("diagonal", 0.5, "", 1.0), row("more", 0.1, "", 1.0)]
    found = {"1": [(structure, first)], "2": [(structure, [exact, row("diagonal", 0.25, "", 1.0)])]}
    lines = hessian_approximations.beside_each_other(found)
    assert [line for line in lines if "AlNi" in line] == ["| AlNi | diagonal | 0.5 | 0.25 |"]

"""From packed crystals to potentials that ship: fold_crystals.py and judge_potentials.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_crystals import alloys
from tiny_runs import REPOSITORY

import train
from data_tools.crystals import crystal_of
from data_tools.formats.crystal_file import read_crystal_file, write_crystals
from data_tools.labels.splits import load_split
from experiment.evaluation.force_constants import judge
from experiment.evaluation.shell_means import ShellMeans
from experiment.trained import load_trained
from physics import folded_cells
from scripts.benchmarks import hessian_approximations, judge_potentials, relaxed_cells
from scripts.fold_crystals import main as fold
from scripts.peers.potential_page import record_of
from training.checkpoint import Checkpoint, load_weights, save

TEST, VALID = ["AlNi", "AlCu", "AlPd"], ["AlAg", "AlPt"]
SIZES = {
    "model.features": 8, "model.filters": 8, "model.gaussians": 6, "model.blocks": 1, "data.split": "file",
    "training.epochs": 2, "run.plots": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two packed files, the lists, and what has become of them."""
    folder, table = tmp_path_factory.mktemp("folded"), alloys(11)
    crystals = [crystal_of(table, row) for row in range(len(table))]
    for name, part in (("one", crystals[:6]), ("two", crystals[6:])):
        write_crystals(folder / f"{name}.npz", part, [f"{crystal.name} sha" for crystal in part])
    (folder / "test.txt").write_text("\n".join(TEST))
    (folder / "valid.txt").write_text("\n".join(VALID) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folded_cells, "SMALL", 8)  # these supercells have 16 atoms
        assert fold(words(folder)) == 0
    return folder


def words(folder, **changes):
    named = {"output": folder / "train.npz", "valid": folder / "valid.txt", "test": folder / "test.txt"} | changes
    options = [word for key, value in named.items() for word in (f"--{key}", str(value))]
    return ["--data", str(folder / "one.npz"), str(folder / "two.npz"), *options]


def test_what_is_held_out_stays_whole_and_the_rest_is_folded(folder):
    found = read_crystal_file(folder / "train.npz")
    split = load_split(folder / "train_split.npz")
    names = np.array(found.table.names)
    assert names[split.test].tolist() == sorted(TEST, key=lambda name: names.tolist().index(name))
    assert set(names[split.valid]) == set(VALID) and not set(names[split.train]) & {*TEST, *VALID}
    assert len(set(names[split.train])) == 6
    assert (found.table.n_atoms[np.concatenate((split.test, split.valid))] == 16).all()
    assert found.table.n_atoms[split.train].min() < 16
    assert found.sources[split.train[0]] == f"{names[split.train[0]]} sha"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test": "nowhere.txt"}, "expected a text file"),
        ({"test": "valid.txt"}, "expected no name in both"),
        ({"test": "unknown.txt"}, "NaCl: expected it in"),
        ({"valid": "twice.txt"}, "expected different names"),
        ({"output": "train.txt"}, "ending .npz"),
    ],
)
def test_lists_that_do_not_fit(folder, capsys, change, expected):
    (folder / "unknown.txt").write_text("NaCl\n")
    (folder / "twice.txt").write_text("AlAg\nAlAg\n")
    before = (folder / "train.npz").read_bytes()
    assert fold(words(folder, **{key: folder / value for key, value in change.items()})) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("error: ") and expected in error, error
    assert (folder / "train.npz").read_bytes() == before and not list(folder.glob("*.txt.npz"))


@pytest.fixture(scope="module")
def judged(folder):
    """Two checkpoints of a training on the folded cells, judged; and the peers' file."""
    run = folder / "run"
    settings = SIZES | {"data.file": folder / "train.npz", "data.split_file": folder / "train_split.npz"}
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    config = str(REPOSITORY / "configs" / "schnet" / "crystals.yaml")
    assert train.main(["--config", config, "--output", str(run), *changes]) == 0
    table = read_crystal_file(folder / "one.npz").table
    crystals = [crystal_of(table, table.names.index(name)) for name in TEST]
    peer = judge(crystals, {"peer": [0.9 * crystal.blocks for crystal in crystals]}, ShellMeans.of(crystals))
    (folder / "peers.json").write_text(json.dumps(record_of(peer, [], {})))
    found, random = load_weights(run / "best.safetensors"), np.random.default_rng(0)
    moved = {
        name: (values * (1 + 0.05 * random.normal(size=values.shape))).astype(values.dtype)
        if values.dtype.kind == "f" else values
        for name, values in found.weights.items()
    }  # fmt: skip
    save(folder / "moved.safetensors", Checkpoint(moved, information=found.information))
    checkpoints = [str(run / "best.safetensors"), str(folder / "moved.safetensors")]
    arguments = ["--ckpt", *checkpoints, "--data", str(folder / "one.npz"), "--peers", str(folder / "peers.json")]
    shipped = folder / "shipped"
    shipped.mkdir()
    assert judge_potentials.main([*arguments, "--page", str(folder / "page.md"), "--ship", str(shipped)]) == 0
    return folder


def test_the_page_has_the_peers_and_the_pictures(judged):
    page, record = (judged / "page.md").read_text(), json.loads((judged / "page.json").read_text())
    assert " peer | potential 1 | potential 2 | mean of them |" in page
    assert "0.100 / 0.100" in page  # the relative error of nine tenths
    assert record["materials"] == TEST and len(record["spread"]) == 3 and "peer" not in record["errors"]
    assert record["largest_sum_eV_per_A2"] < 1e-9 and record["largest_exchange_eV_per_A2"] < 1e-9
    names = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(names) == 4 and all((judged / name).stat().st_size > 1000 for name in names)


def test_potentials_are_compared_on_materials_without_peers(judged, capsys):
    (judged / "two_rows.txt").write_text("\n".join(TEST[:2]))
    words_of = ["--data", str(judged / "one.npz"), "--rows", str(judged / "two_rows.txt")]
    assert judge_potentials.main(["--ckpt", str(judged / "run"), *words_of]) == 0
    table = capsys.readouterr().out
    assert "all materials (2)" in table and "| potential 1 |" in table and "peer" not in table
    (judged / "two_rows.txt").write_text("")
    assert judge_potentials.main(["--ckpt", str(judged / "run"), *words_of]) == 2
    assert "expected different names, one in each line" in capsys.readouterr().err


def test_what_ships_says_what_it_is_and_nothing_of_the_machine(judged):
    first, second = (load_trained(judged / "shipped" / f"phonons_{number}.safetensors") for number in (1, 2))
    card = first.information["card"]
    assert card == second.information["card"] and card["materials"] == 3
    assert card["lower"] <= card["error_over_spread"] <= card["upper"]
    text = json.dumps(first.information)
    assert str(judged) not in text and str(judged.parent) not in text
    assert first.config.data.file == "train.npz"
    original = load_trained(judged / "run" / "best.safetensors")
    for one, other in zip(first.model.trainable_params(), original.model.trainable_params(), strict=True):
        assert np.array_equal(one.asnumpy(), other.asnumpy())


def test_relaxed_cells_are_compared_with_the_published_ones(judged):
    """Those of alloys that EMT has not relaxed either change; of a potential alone and of the mean of two."""
    (judged / "rows.txt").write_text("\n".join(TEST))
    words_of = ["--data", str(judged / "one.npz"), "--rows", str(judged / "rows.txt"), "--page", str(judged / "r.md")]
    checkpoints = [str(judged / "shipped" / f"phonons_{number}.safetensors") for number in (1, 2)]
    assert relaxed_cells.main(["--ckpt", *checkpoints, *words_of]) == 0
    cells = json.loads((judged / "r.json").read_text())["cells"]
    assert sorted(cell["name"] for cell in cells) == sorted(TEST)
    assert all(abs(cell["moved"]) < 1e-6 and cell["volume"] != 0 for cell in cells)  # symmetry holds the atoms
    assert "of 3; within 3 %" in (judged / "r.md").read_text()


def test_approximations_are_measured(judged):
    words_of = ["--data", str(judged / "one.npz"), "--materials", TEST[0], "--page", str(judged / "a.md")]
    assert hessian_approximations.main(["--ckpt", str(judged / "run"), *words_of]) == 0
    cases = json.loads((judged / "a.json").read_text())["cases"]
    rows = {row["words"]: row["error"] for row in cases["run"][TEST[0]]}
    assert rows["exact, float64"] == 0 and rows["exact, float32"] < 1e-4
    assert rows["central differences of forces, 0.001 A, float64"] < 1e-3
    assert rows["control: four energies for each element, 1e-06 A, float32"] > 1
    assert rows["control: J J^T, at the structure"] > 0.9


def test_other_data_are_refused(judged, capsys):
    words_of = ["--ckpt", str(judged / "run"), "--peers", str(judged / "peers.json")]
    assert judge_potentials.main([*words_of, "--data", str(judged / "two.npz")]) == 2
    assert "AlNi: expected it in the data; 3 of 3" in capsys.readouterr().err
    twice = ["--ckpt", str(judged / "run"), str(judged / "run"), *words_of[2:], "--data", str(judged / "one.npz")]
    assert judge_potentials.main(twice) == 2
    assert "potentials that differ" in capsys.readouterr().err
    (judged / "empty.json").write_text("{}")
    words_of = ["--ckpt", str(judged / "run"), "--data", str(judged / "one.npz")]
    assert judge_potentials.main([*words_of, "--peers", str(judged / "empty.json")]) == 2
    assert "expected the JSON of scripts/peers/potentials.py" in capsys.readouterr().err

"""Trainings compared: one table, one picture, and what is no run, damaged, given twice or of another unit."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from tiny_runs import REPOSITORY

from configs.schema import Config, TargetConfig, TrainingConfig
from configs.writing import config_to_yaml
from experiment.closed_pipes import CLOSED
from experiment.ensemble_folder import RECORD
from experiment.run_files import read_run
from scripts.compare_runs import main
from training.checkpoint import LAST, Checkpoint, save


def make_run(folder, target="gap", epochs=3, finished=True, forces=False, size=16):
    """A run folder as train.py writes it; the second epoch is the best."""
    folder.mkdir(parents=True)
    training = TrainingConfig(epochs=epochs, batch_size=size, force_weight=100.0 if forces else 0.0)
    config = Config(target=TargetConfig(name=target), training=training)
    (folder / "config.yaml").write_text(config_to_yaml(config))
    names = ["mae", *(["force_mae"] if forces else [])]
    rows, times = [], []
    for epoch in range(1, epochs + 1 if finished else epochs):
        error = 0.1 + abs(epoch - 2) / 10
        errors = {f"{part}_{name}": error for part in ("train", "valid") for name in names}
        errors["valid_mae"] = 1 - error if forces else error  # forces decide where both are learned
        rows.append({"epoch": epoch, "step": 10 * epoch, "train_loss": 1 / epoch, **errors, "lr": 1e-3})
        times.append({"epoch": epoch, "seconds": 5.0, "structures_per_second": 1.0})
    for name, content in (("metrics.csv", rows), ("times.csv", times)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    about = {"versions": {"mindspore": "2.10.0"}, "provenance": {"commit": "0123456789abcdef-dirty"}}
    if finished:
        content = {"test": {"best model": {"mae": 0.25}}, "best_epoch": 2, **about}
        (folder / "metrics.json").write_text(json.dumps(content))
    else:
        save(folder / LAST, Checkpoint({"w": np.zeros(1)}, information=about))
    return folder


def table_of(text):
    """The rows of a Markdown table by its columns."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_a_finished_and_a_running_one(tmp_path, capsys):
    first = make_run(tmp_path / "a|b")
    second = make_run(tmp_path / "second", epochs=4, finished=False, size=32)
    assert main([str(first), f"other=name={second}"]) == 2  # no such folder: a name ends at the first =
    capsys.readouterr()
    assert main([str(first), f"other={second}", "--output", str(tmp_path / "made"), "--title", "a $ title"]) == 0
    one, other = table_of(capsys.readouterr().out)
    assert one["run"] == "a\\|b" and one["state"] == "finished, 3 epochs" and one["best epoch"] == "2"
    assert one["valid MAE gap [eV]"] == "0.1" and one["test MAE gap [eV]"] == "0.25"
    assert one["s/step"] == "0.5" and one["time of epochs"] == "0:00:15"
    assert other["run"] == "other" and other["state"] == "epoch 3 of 4" and other["test MAE gap [eV]"] == ""
    for row in (one, other):
        assert row["versions"] == "mindspore 2.10.0" and row["commit"] == "0123456789-dirty"
    differing = list(one)[list(one).index("commit") + 1 :]
    assert differing == ["training.epochs", "training.batch_size"] and other["training.batch_size"] == "32"
    made = tmp_path / "made"
    assert sorted(file.name for file in made.iterdir()) == ["curves.png", "report.json", "table.csv", "table.md"]
    with (made / "table.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["a|b", "other"]
    before = (made / "table.md").read_text()
    assert main([str(second), "--output", str(made)]) == 2 and "--overwrite" in capsys.readouterr().err
    assert (made / "table.md").read_text() == before
    assert main([str(second), "--output", str(made), "--overwrite"]) == 0
    assert (made / "table.md").read_text() != before


def test_the_folder_of_an_ensemble_stands_for_its_members(tmp_path, capsys):
    for seed in range(2):
        make_run(tmp_path / "ensemble" / f"seed{seed}")
    make_run(tmp_path / "other")
    (tmp_path / "ensemble" / RECORD).write_text("damaged: nothing of it is read")
    assert main([str(tmp_path / "ensemble"), str(tmp_path / "other")]) == 0
    assert [row["run"] for row in table_of(capsys.readouterr().out)] == ["seed0", "seed1", "other"]


def test_the_best_epoch_is_that_of_the_weighted_error(tmp_path):
    run = read_run(make_run(tmp_path / "run", "energy", 4, finished=False, forces=True))
    assert run.best["epoch"] == 2 and run.best["valid_mae of energy"] == 0.9
    assert [(one.of, one.unit) for one in run.errors] == [("energy", "eV"), ("forces", "eV/A")]


def test_other_targets_have_columns_of_their_own(tmp_path, capsys):
    folders = [make_run(tmp_path / name, name) for name in ("gap", "mu")]
    assert main([*map(str, folders)]) == 0
    out, err = capsys.readouterr()
    assert "MAE gap [eV] of gap; MAE mu [D] of mu" in err and err.count("\n") == 1
    gap, mu = table_of(out)
    assert gap["valid MAE mu [D]"] == "" and mu["valid MAE mu [D]"] == "0.1" and mu["valid MAE gap [eV]"] == ""


def test_several_targets_of_one_network_stand_beside_runs_of_one(tmp_path, capsys):
    single, several = make_run(tmp_path / "single", "gap"), make_run(tmp_path / "several", "gap")
    config = Config(target=TargetConfig(names=["gap", "mu"]), training=TrainingConfig(epochs=3, batch_size=16))
    (several / "config.yaml").write_text(config_to_yaml(config))
    text = (several / "metrics.csv").read_text()
    names, *rows = [line.split(",") for line in text.splitlines()]
    for part in ("train", "valid"):  # the same numbers as of the run of one
        names[names.index(f"{part}_mae")] = f"{part}_gap_mae"
        names.append(f"{part}_mu_mae")
    lines = [",".join(names), *(",".join([*row, "0.5", "0.75"]) for row in rows)]
    (several / "metrics.csv").write_text("\n".join(lines) + "\n")
    tests = {f"test of {name}": {"best model": {"mae": mae}} for name, mae in (("gap", 0.3), ("mu", 0.4))}
    (several / "metrics.json").write_text(json.dumps({**tests, "best_epoch": 2}))
    assert main([str(single), str(several)]) == 0
    one, both = table_of(capsys.readouterr().out)
    assert one["valid MAE gap [eV]"] == both["valid MAE gap [eV]"] == "0.1" and one["valid MAE mu [D]"] == ""
    assert both["valid MAE mu [D]"] == "0.75"
    assert [both[f"test MAE {of}"] for of in ("gap [eV]", "mu [D]")] == ["0.3", "0.4"]


def test_a_training_of_a_peer(capsys):
    """Its columns name the unit, and the runs of both are compared in one column."""
    folders = [REPOSITORY / "results" / "schnet" / "curves" / name for name in ("gap_demo", "gap_demo_pyg")]
    assert main([*map(str, folders)]) == 0
    ours, peer = table_of(capsys.readouterr().out)
    for part in ("valid", "test"):
        errors = [float(row[f"{part} MAE gap [eV]"]) for row in (ours, peer)]
        assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert "torch 2" in peer["versions"] and "mindspore 2" in ours["versions"]


DAMAGES = {
    "metrics.json": ("{", "expected JSON"),
    "metrics.csv": ("epoch,step\n1,one\n", "expected rows of numbers"),
    "times.csv": ("epoch,seconds\n1,2,3\n", "expected rows of numbers"),
    "config.yaml": ("model: [", "expected a readable YAML file"),
}


def test_what_cannot_be_compared_is_one_line(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    words = [str(run), str(tmp_path / "empty"), f"{run}/.", str(run / "train.log")]
    assert main(words[:3]) == 0  # runs/* may hold other folders
    lines = capsys.readouterr().err.splitlines()
    assert ["no such file" in lines[0], "it is the folder of run" in lines[1]] == [True, True] and len(lines) == 2
    assert main(words[1:2]) == 2 and "found none that can be compared" in capsys.readouterr().err
    for position, (name, (text, message)) in enumerate(DAMAGES.items()):
        bad = make_run(tmp_path / f"bad{position}")
        (bad / name).write_text(text)
        assert main([str(run), str(bad)]) == 2
        out, err = capsys.readouterr()
        assert message in err and err.count("\n") == 1 and len(table_of(out)) == 1
    assert main([]) == 2 and main([str(run), "--nothing"]) == 2
    assert all(line.startswith("error: ") for line in capsys.readouterr().err.splitlines())


LONG = """
from experiment.closed_pipes import until_closed
from experiment.command_line import exit_code

def main():
    try:
        print("x" * 10**6)
    except Exception as error:
        return exit_code(error)
    return 0

raise SystemExit(until_closed(main))
"""


def test_a_reader_that_leaves_ends_the_program(tmp_path):
    """As ``| head`` does, before anything is written: of little text when it is flushed, of much at once."""
    run = make_run(tmp_path / "run")
    script = str(REPOSITORY / "scripts" / "compare_runs.py")
    for words in ([script, str(run)], ["-c", LONG]):
        program = subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
        )
        program.stdout.close()
        assert (program.stderr.read(), program.wait()) == (b"", CLOSED)

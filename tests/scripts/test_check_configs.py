"""scripts/benchmarks/check_configs.py: what its rows say, and that every shipped configuration has one that says OK."""

from __future__ import annotations

import json

import pytest
import yaml
from tiny_runs import LIGHT, PROFILES, REPOSITORY, SMALL

from configs.loading import load_config
from scripts.benchmarks import check_configs

RESULTS = REPOSITORY / "results" / "system" / "configs.json"


def rows():
    """The committed rows by configuration and mode."""
    return {(row["config"], row["mode"]): row for row in json.loads(RESULTS.read_text())["results"]}


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_configuration_has_run_at_its_own_size(profile):
    """After a change: python scripts/benchmarks/check_configs.py FILE --output results/system/configs.json."""
    name = profile.relative_to(REPOSITORY).as_posix()
    row, training = rows()[name, "GRAPH"], load_config(profile).training
    assert row["result"] == "OK" and 0.1 < row["memory_gib"] < check_configs.MEMORY_GIB
    assert (row["batch_size"], row["eval_batch_size"]) == (training.batch_size, training.eval_batch_size)
    assert f"| {name} | GRAPH |" in RESULTS.with_suffix(".md").read_text()


def write_config(path, molecules, **changes):
    """A configuration that compiles fast."""
    sections: dict = {}
    pairs = {"model.name": "schnet", **SMALL, **LIGHT, "data.file": str(molecules), "run.plots": False, **changes}
    for key, value in pairs.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    path.write_text(yaml.safe_dump(sections))
    return path


def test_a_configuration_is_measured_and_its_row_kept(molecules, tmp_path, capsys):
    file, output = tmp_path / "small.yaml", tmp_path / "rows.json"
    old = {"config": "a", "mode": "GRAPH", "commit": "", "memory_gib": 1, "result": "x"}
    output.write_text(json.dumps({"results": [old]}))
    settings = {"optimizer.ema_decay": 0.9, "optimizer.amsgrad": True, "training.loss_scale": "dynamic"}
    write_config(file, molecules, **settings)
    assert check_configs.main([str(file), "--output", str(output)]) == 0
    found = {row["config"]: row for row in json.loads(output.read_text())["results"]}
    row = found[str(file)]
    assert found["a"] == old and row["result"] == "OK"
    assert row["batch_size"] == 16 and row["shapes"] == 1 and row["eval_shape"][3] == 12 + 1
    assert 0.1 < row["training_memory_gib"] <= row["memory_gib"] < check_configs.MEMORY_GIB and row["parameters"] > 100
    table = output.with_suffix(".md").read_text()
    assert f"| {file} | GRAPH |" in table and "| a | GRAPH | - |" in table and "OK" in capsys.readouterr().out


def test_what_fails_is_a_row_too(molecules, tmp_path, capsys):
    bad = write_config(tmp_path / "bad.yaml", molecules, **{"model.blocks": 0})
    large = write_config(tmp_path / "large.yaml", molecules)
    assert check_configs.main([str(bad)]) == 1
    assert "exit code" in (words := capsys.readouterr().out) and "model.blocks 0: expected at least 1" in words
    assert check_configs.main([str(large), "--memory", "0.02"]) == 1
    assert "ended: more than 0.02 GiB of memory" in capsys.readouterr().out

"""scripts/benchmarks/modes.py: both modes on both paths agree, and what does not agree is reported and fails."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_check_configs import write_config
from tiny_runs import REPOSITORY

from scripts.benchmarks import modes
from scripts.benchmarks.modes_report import FIRST, FLOOR, LATER, LOSSES, TOLERANCES, WEIGHTS, differences, tolerance
from scripts.benchmarks.modes_report import relative_differences as relative

A = {"large": np.array([4.0, -8.0]), "small": np.array([[0.5], [0.0]]), "tiny": np.array([1e-9])}


def test_the_relative_difference_is_of_each_parameter_alone():
    changed = {"large": A["large"] + [0.0, 0.4], "small": A["small"] + 0.1, "tiny": 2 * A["tiny"]}
    found = relative(A, changed)
    assert found == pytest.approx({"large": 0.4 / 8, "small": 0.1 / 0.5, "tiny": 1e-9 / (8 * FLOOR)})
    assert relative(A, A) == dict.fromkeys(A, 0.0)
    assert relative(A, {**A, "small": 0 * A["small"]})["small"] == 1  # a gradient that is missing


def test_what_is_not_finite_is_no_agreement():
    for value in (np.nan, np.inf):
        broken = {**A, "small": np.array([[value], [0.0]])}
        for pair in ((A, broken), (broken, A), (broken, broken)):
            assert not relative(*pair)["small"] < np.inf
    nothing = {name: 0 * value for name, value in A.items()}
    assert all(np.isnan(value) for value in relative(nothing, nothing).values())  # nothing was compared
    with pytest.raises(ValueError, match="same parameters"):
        relative(A, {**A, "small": np.zeros(2)})


def numbers(**changes):
    """What a case computes."""
    given = {LOSSES: {"loss": np.array([2.0, 1.0])}, FIRST: A, LATER: A, WEIGHTS: A}
    return {**given, **{{"losses": LOSSES, "later": LATER}[name]: value for name, value in changes.items()}}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_difference_beyond_its_tolerance_is_named(dtype):
    most = tolerance(LATER, dtype)
    cases = {("GRAPH", "kernels"): numbers(), ("GRAPH", "operators"): numbers()}
    cases["PYNATIVE", "kernels"] = numbers(later={**A, "small": A["small"] * (1 + 1.5 * most)})
    cases["PYNATIVE", "operators"] = numbers(losses={"loss": np.array([2.0, np.nan])})
    found = {row["compared"]: row for row in differences(cases, dtype)}
    assert {name: row["beyond"] for name, row in found.items()} == {
        "kernels, operators (GRAPH)": {},
        "GRAPH, PYNATIVE (kernels)": {LATER: "small"},
        "GRAPH, PYNATIVE (operators)": {LOSSES: "loss"},
        "kernels, operators (PYNATIVE)": {LOSSES: "loss", LATER: "small"},
    }
    assert found["GRAPH, PYNATIVE (kernels)"][LATER] == pytest.approx(1.5 * most)
    cases["PYNATIVE", "kernels"] = numbers(later={**A, "small": A["small"] * (1 + 0.5 * most)})
    assert not differences(cases, dtype)[1]["beyond"]


SKIPPING = REPOSITORY / "configs" / "dimenetpp" / "qm9_port.yaml"
SMALL_RUN = ["--steps", "2", "--updates", "2", "--paths", "operators"]


def test_a_configuration_is_measured_in_both_modes(molecules, tmp_path, capsys):
    file, output = write_config(tmp_path / "small.yaml", molecules), tmp_path / "modes.md"
    assert modes.main(["--config", str(file), *SMALL_RUN, "--batch_size", "8", "--output", str(output)]) == 0
    rows = json.loads(output.with_suffix(".json").read_text())
    (result,) = rows["results"]
    assert [(case["mode"], case["result"]) for case in result["cases"]] == [("GRAPH", "OK"), ("PYNATIVE", "OK")]
    for case in result["cases"]:
        assert case["batch_size"] == 8 and case["timed"] == 2 and 0.1 < case["memory_gib"] < 12
        assert case["first_seconds"] > case["step_seconds"] > 0  # the first compiles
    (pair,) = result["differences"]
    assert all(pair[quantity] <= TOLERANCES[quantity][0] for quantity in TOLERANCES) and rows["updates"] == 2
    page = output.read_text()
    assert "python scripts/benchmarks/modes.py --config" in page and "GRAPH, PYNATIVE (operators)" in page
    assert len(capsys.readouterr().out.splitlines()) == 2  # a line for each case


def test_a_difference_and_a_failure_end_with_1(tmp_path, molecules, monkeypatch, capsys):
    file, answers = write_config(tmp_path / "small.yaml", molecules), iter((1.0, 1.5, 0.0))
    row = {"batch_size": 8, "first_seconds": 1.0, "step_seconds": 0.1, "timed": 2, "memory_gib": 0.5}

    def measured(options, name, mode, path, arrays):
        if not (factor := next(answers)):
            return {"mode": mode, "path": path, "memory_gib": 0.5, "result": "exit code 3: the loss is NaN"}
        found = numbers(losses={"loss": factor * np.ones(2)})
        content = {f"{quantity}: {key}": value for quantity, of in found.items() for key, value in of.items()}
        np.savez(arrays, **content)
        return {**row, "mode": mode, "path": path, "result": "OK"}

    monkeypatch.setattr(modes, "in_a_process", measured)
    assert modes.main(["--config", str(file), *SMALL_RUN]) == 1
    words = capsys.readouterr()
    assert "GRAPH, PYNATIVE (operators): losses differ by 5.0e-01, most in loss" in words.err
    assert "| losses differ: loss |" in words.out
    assert modes.main(["--config", str(file), *SMALL_RUN, "--modes", "GRAPH"]) == 1
    words = capsys.readouterr()
    assert words.err == f"error: {file} GRAPH operators: exit code 3: the loss is NaN\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config", "none.yaml"], "none.yaml: expected a YAML file"),
        (
            ["--config", str(SKIPPING)],
            "training.loss_scale dynamic: expected none",
        ),
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--modes", "EAGER"], "invalid choice: 'EAGER'"),
        (["--output", "no folder/modes.md"], "expected a file name that ends in .md, in a folder that exists"),
        (["--step", "3"], "unknown option --step: did you mean --steps?"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    assert modes.main(arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_kernels_that_are_not_there_are_one_line(tmp_path, molecules, monkeypatch, capsys):
    monkeypatch.setattr(modes, "find_or_build", lambda: ("", "no C++ compiler"))
    file = write_config(tmp_path / "small.yaml", molecules)
    words = ["--config", str(file), "--modes", "GRAPH", "--paths", "kernels", "--here", str(tmp_path / "arrays.npz")]
    assert modes.main(words) == 2
    assert "--paths kernels: expected C++ kernels, no C++ compiler" in capsys.readouterr().err

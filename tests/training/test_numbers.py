"""When the numbers of a run fail: nothing is lost, molecules are named, a loss scale goes on; what a run will take."""

from __future__ import annotations

import re

import numpy as np
import pytest
from mindspore import Tensor
from tiny_runs import MINI, light, options, read_rows, small_run

import train
from experiment.evaluation.evaluator import Evaluator, Predictions
from training import checkpoint as checkpoints
from training.loss_scale import LossScale
from training.meter import EXPLOSION, FEWEST, LossError, Meter
from training.objective import Layout

MODES = ("GRAPH", "PYNATIVE")
EPOCHS = 2  # of two steps each


def poison(monkeypatch, bad_step, last=None):
    """Let the labels of a step, or of all from it to the last, be NaN, as a fault of data or hardware would."""
    whole = Layout.arguments
    steps = iter(range(1, 1000))

    def poisoned(layout, *given):
        arguments, label = list(whole(layout, *given)), layout.place["energy"]
        if bad_step < next(steps) <= (last or bad_step) + 1:  # the first call compiles
            arguments[label] = Tensor(np.full(arguments[label].shape, np.nan, np.float32))
        return tuple(arguments)

    monkeypatch.setattr(Layout, "arguments", poisoned)


def state_of(file):
    checkpoint = checkpoints.load(file)
    return {
        f"{g}/{k}": v for g in checkpoints.GROUPS for k, v in getattr(checkpoint, g).items()
    }, checkpoint.information


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_is_not_finite_stops_the_run_at_the_last_good_step(mode, molecules, tmp_path, monkeypatch, capsys):
    """Later steps have run before the host looks: the state is that of the step before, and resumes to the same end."""
    settings = light(training__epochs=EPOCHS, run__mode=mode, optimizer__ema_decay=0.9, run__log_every=100)
    whole = small_run(molecules, tmp_path / "whole", **settings)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, bad_step=3)
        assert train.main(options(molecules, folder, "--config", str(MINI), **settings)) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.fullmatch(r"error: the loss of step 3 is nan; its batch: (structure \d+(, |; )){16}lower .*", line)
    values, information = state_of(folder / checkpoints.LAST)
    assert information["progress"]["step"] == 2
    assert all(np.isfinite(value).all() for value in values.values())
    assert train.main(["--resume", str(folder)]) == 0
    resumed, _ = state_of(folder / checkpoints.LAST)
    for name, value in state_of(whole / checkpoints.LAST)[0].items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_scale_skips_the_step_and_goes_on(mode, molecules, tmp_path, monkeypatch, capsys):
    settings = light(training__epochs=EPOCHS, run__mode=mode, training__loss_scale="dynamic", run__log_every=1)
    poison(monkeypatch, bad_step=3)
    folder = small_run(molecules, tmp_path / "run", **settings)
    assert f"loss scale {LossScale.START / 2:g}, 1 steps skipped" in (folder / "train.log").read_text()
    information = state_of(folder / checkpoints.LAST)[1]
    assert information["progress"]["loss_scale"] == {"value": LossScale.START / 2, "finite_steps": 1, "skipped": 1}
    assert [row["step"] for row in read_rows(folder / "metrics.csv")] == ["2", "4"]


def test_a_loss_scale_changes_no_digit(molecules, tmp_path):
    """Powers of two: the run is that without a scale, bit for bit."""
    plain = small_run(molecules, tmp_path / "plain", **light())
    scaled = small_run(molecules, tmp_path / "scaled", **light(training__loss_scale="dynamic"))
    other = state_of(scaled / checkpoints.LAST)[0]
    for name, value in state_of(plain / checkpoints.LAST)[0].items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_a_scale_that_is_too_large_finds_its_size(molecules, tmp_path, monkeypatch):
    """Labels near 7.6 eV that are not standardised: such a loss times 2^127 is beyond float32."""
    monkeypatch.setattr(LossScale, "START", 2.0**127)
    monkeypatch.setattr(LossScale.__init__, "__defaults__", (2.0**127, 0, 0))
    settings = light(training__loss_scale="dynamic", training__epochs=8, target__standardisation="none")
    folder = small_run(molecules, tmp_path / "run", **settings)
    scale = state_of(folder / checkpoints.LAST)[1]["progress"]["loss_scale"]
    assert scale["skipped"] > 0 and scale["value"] == 2.0 ** (127 - scale["skipped"])
    weights = state_of(folder / checkpoints.LAST)[0]
    assert all(np.isfinite(value).all() for value in weights.values())


def test_no_scale_helps_against_nan(molecules, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, bad_step=3, last=1000)
    settings = light(training__loss_scale="dynamic", training__epochs=20)
    assert train.main(options(molecules, tmp_path / "run", "--config", str(MINI), **settings)) == 3
    assert "the loss of step 18 is nan; its batch: structure" in capsys.readouterr().err
    assert state_of(tmp_path / "run" / checkpoints.LAST)[1]["progress"]["step"] == 17


def test_the_law_of_the_scale():
    scale = LossScale()
    for _ in range(LossScale.GROWTH_STEPS):
        scale.update(True)
    assert (scale.value, scale.finite_steps, scale.skipped) == (2 * LossScale.START, 0, 0)
    scale.update(True)
    scale.update(False)
    assert (scale.value, scale.finite_steps, scale.skipped) == (LossScale.START, 0, 1)
    scale.value = LossScale.LARGEST
    for _ in range(2 * LossScale.GROWTH_STEPS):
        scale.update(True)
    assert scale.value == LossScale.LARGEST


def results(*losses, finite=1.0):
    return [
        (Tensor(np.float32(loss)), Tensor(np.array([loss], np.float32)), Tensor(np.float32(finite))) for loss in losses
    ]


def test_a_loss_that_explodes_is_reported_with_its_molecules(monkeypatch):
    said = []
    monkeypatch.setattr("training.meter.log.warning", lambda words, *values: said.append(words % values))
    meter = Meter(1.0, 1, lambda rows: f"rows {rows.tolist()}")
    for loss in (*np.linspace(1.0, 2.0, FEWEST), 1.4 * EXPLOSION, 1.6 * EXPLOSION):
        meter.add(*results(loss), [2], np.array([4, 7]))
    meter.collect(FEWEST + 2)
    (line,) = said
    assert f"the loss of step {FEWEST + 2} is 32, 21 times" in line and "rows [4, 7]" in line


def test_a_loss_whose_gradient_is_not_finite_says_so():
    meter = Meter(1.0, 1, lambda rows: "gdb 1")
    meter.add(*results(1.0), [1], np.array([0]))
    meter.add(*results(2.0, finite=0.0), [1], np.array([1]))
    meter.add(*results(2.0, finite=0.0), [1], np.array([2]))
    with pytest.raises(
        LossError, match=r"the loss of step 9 is 2 but its gradient is not finite; its batch: gdb 1"
    ) as raised:
        meter.collect(10)
    assert raised.value.steps_back == 2 and meter.sums.tolist() == [1, 1, 1, 1, 1]


def test_predictions_that_are_not_finite_stop_the_run_before_the_epoch_is_written(
    molecules, tmp_path, monkeypatch, capsys
):
    folder, settings = tmp_path / "run", light(training__epochs=EPOCHS)
    whole = small_run(molecules, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        nothing = Predictions(np.full(12, np.nan), np.zeros((12, 0)), np.zeros((0, 3)))
        patch.setattr(Evaluator, "__call__", lambda self, rows: nothing)
        assert train.main(options(molecules, folder, "--config", str(MINI), **settings)) == 3
    assert "12 of 12 validation structures: structure" in capsys.readouterr().err
    assert not (folder / "metrics.csv").exists()
    assert train.main(["--resume", str(folder)]) == 0
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_dry_run_says_what_the_run_will_take_and_writes_nothing(molecules, tmp_path, capsys):
    settings = light(training__epochs=500, schedule__warmup_steps=2000, optimizer__ema_decay=0.9)
    arguments = options(molecules, tmp_path / "run", "--config", str(MINI), **settings)
    assert train.main([*arguments, "--dry_run"]) == 0
    words = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    found = re.search(
        r"about (\d+):(\d+):(\d+) \(epoch: 2 steps of ([\d.]+) s, validation ([\d.]+) s\), ([\d.]+) GiB of memory, "
        r"([\d.]+) of them before an evaluation batch of 12 structures", words
    )  # fmt: skip
    seconds = int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])
    assert seconds == pytest.approx(500 * (2 * float(found[4]) + float(found[5])), rel=0.5, abs=30)
    assert 0.1 < float(found[7]) <= float(found[6]) < 16
    for wanted in (
        "sha256",
        "80 structures",
        "target gap [eV]",
        "parameters",
        "padding waste",
        "compiled 1 training shapes",
        "if the program is killed here, an evaluation batch of 12 structures is too large",
        "warning: warm-up and cool-down take 2000 and 0 steps, the run has 1000: the learning rate reaches 5e-05 of ",
    ):
        assert wanted in words

"""Several targets of one network: what each learns, with labels that are missing, and what a run of them carries."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn
from tiny_runs import MINI, changed_copy, light, options, read_rows, write_molecules

import eval as program
import train
from data_tools.dataset import make_dataset, open_graphs
from data_tools.graph import DataError
from data_tools.labels.splits import make_split
from data_tools.labels.statistics import Normalizer
from data_tools.labels.tasks import resolve_tasks, task_of
from experiment import set_program
from experiment.ensemble_folder import FINISHED, EnsembleRecord, write_record
from experiment.model_set import RECORD, read_set
from experiment.several_models import predict_sets
from experiment.trained import load_trained
from models.heads import Readout, ReadoutOfEach
from scripts import ship_models
from training import checkpoint as checkpoints
from training.objective import Layout, Term, loss_of

pytestmark = pytest.mark.usefixtures("same_mode")

NAMES = ("gap", "alpha", "mu")
COLUMNS = ("gap [eV]", "alpha [a0^3]", "mu [D]")
HIDDEN = 20  # structures without alpha


@pytest.fixture(scope="module")
def molecules(tmp_path_factory):
    path = write_molecules(tmp_path_factory.mktemp("data") / "molecules.npz", range(80))
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["alpha"] = np.where(np.arange(80) < HIDDEN, np.nan, arrays["alpha"])
    np.savez(path, **arrays)
    return path


def test_each_task_is_its_own(molecules):
    """Readout and standardisation are those of each target; constants are fitted to the labels that are there."""
    task = resolve_tasks([*NAMES, "my x"], units={"my x": "K"}, own=True)
    assert [one.readout for one in task.every] == ["mean", "sum", "dipole", "mean"]
    assert [one.standardisation for one in task.every][:3] == ["per_molecule", "per_element", "scale"]
    assert task_of(json.loads(json.dumps(task.to_dict()))) == task and task.every[3].target.unit == "K"
    chosen = resolve_tasks([*NAMES, "my x"], own=True, readouts={"my x": "sum", "gap": "sum"})
    assert [one.readout for one in chosen.every] == ["sum", "sum", "dipole", "sum"]
    packed = open_graphs(molecules, 3.0, labels=NAMES)
    task, split = resolve_tasks(NAMES), make_split("random", packed.table)
    dataset = make_dataset(packed, split, task)
    known = packed.table.of_structures["alpha"][split.train]
    assert np.isnan(known).any() and len(dataset.parts[1].split.train) == np.isfinite(known).sum()
    provided = dataset.standardised(["value 0", "value 1"])(split.train).of_graphs
    assert np.isfinite(provided["value 0"]).all()
    np.testing.assert_array_equal(np.isnan(provided["value 1"]), np.isnan(known))
    again = Normalizer.from_dict(json.loads(json.dumps(dataset.normalizer.to_dict())))
    assert [law.scale for law in again.every] == [part.normalizer.scale for part in dataset.parts]
    without = {**packed.table.of_structures, "alpha": np.full(80, np.nan)}
    with pytest.raises(DataError, match="expected numbers as alpha, all 80 structures have none"):
        make_dataset(dataclasses.replace(packed, table=dataclasses.replace(packed.table, of_structures=without)), split,
                     task)  # fmt: skip
    for names, words in ((["gap"], "two or more"), (["gap", "GAP"], "different"), (["gap", "energy"], "alone"),
                         (["gap", "x"], "unknown target 'x'")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            resolve_tasks(names)


def test_each_column_has_its_own_readout(graph_mode):
    """Those of four kinds at once are those of each alone."""
    random = np.random.default_rng(1)
    values = random.normal(size=(9, 5))
    graph = [Tensor(array) for array in (
        np.array([6, 8, 1, 7, 6, 1, 1, 0, 0], np.int32), random.normal(size=(9, 3)), *([np.zeros(1, np.int32)] * 2),
        np.zeros((1, 3)), *([np.zeros(1, np.int32)] * 2), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2], np.int32),
        np.array([1.0] * 7 + [0.0] * 2), np.array([1.0, 1.0, 0.0]),
    )]  # fmt: skip
    kinds = ("dipole", "mean", "electronic_spatial_extent", "sum", "dipole")
    found = ReadoutOfEach(kinds, ms.float64)(Tensor(values), *graph).asnumpy()
    for k, kind in enumerate(kinds):
        alone = Readout(kind, 1, ms.float64)(Tensor(values[:, k : k + 1]), *graph).asnumpy()
        np.testing.assert_allclose(found[:2, k], alone[:2], rtol=1e-12, err_msg=kind)
        assert np.abs(alone[:2]).min() > 1e-3
    with pytest.raises(ValueError, match="readout 'median'"):
        ReadoutOfEach(("sum", "median"), ms.float64)


class Constant(nn.Cell):
    """The same outputs for whatever it is given."""

    def __init__(self, outputs: np.ndarray, log_widths: np.ndarray | None):
        super().__init__()
        self.outputs = Parameter(Tensor(outputs, ms.float64), name="outputs")
        self.log_widths = None if log_widths is None else Parameter(Tensor(log_widths, ms.float64), name="log_widths")

    def construct(self, *inputs):
        return self.outputs * 1.0


@pytest.mark.parametrize("log_widths", [None, np.array([0.3, -0.5])])
def test_the_loss_is_the_weighted_sum_over_what_is_known(log_widths, graph_mode):
    """Missing labels count nowhere; learned weights add the logarithm of their widths."""
    random = np.random.default_rng(0)
    outputs, labels = random.normal(size=(5, 2)), random.normal(size=(5, 2))
    masks = np.array([[1, 1], [1, 0], [1, 0], [1, 1], [0, 0]], np.float64)
    weights = (2.0, 0.5)
    layout = Layout([Term(f"value {k}", weights[k], "mae") for k in range(2)])
    arguments: list = [Tensor(np.zeros(1))] * layout.of_loss
    for k in range(2):
        arguments[layout.place[f"value {k}"]] = Tensor(labels[:, k] * masks[:, k])
        arguments[layout.place[f"value {k} mask"]] = Tensor(masks[:, k])
        arguments[layout.place[f"value {k} count"]] = Tensor(masks[:, k].sum())
    arguments[layout.place["loss scale"]] = Tensor(1.0, ms.float64)
    model = Constant(outputs, log_widths)
    forward = loss_of(model, layout, ms.float64)
    (loss, found), gradients = ms.jit(ms.value_and_grad(forward, None, model.trainable_params(), has_aux=True))(
        *arguments
    )
    errors = (np.abs(outputs - labels) * masks).sum(0) / masks.sum(0)
    widths = np.ones(2) if log_widths is None else np.exp(log_widths)
    expected = (weights * errors / widths + np.log(widths)).sum()
    np.testing.assert_allclose(loss.asnumpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(found.asnumpy(), [expected, *errors], rtol=1e-12)
    slope = np.sign(outputs - labels) * masks / masks.sum(0) * weights / widths
    np.testing.assert_allclose(gradients[0].asnumpy(), slope, rtol=1e-12)
    if log_widths is not None:
        np.testing.assert_allclose(gradients[1].asnumpy(), 1 - weights * errors / widths, rtol=1e-12)


@pytest.fixture(scope="module")
def run(molecules, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "several"
    changed = {"target__names": ",".join(NAMES), "training__task_weighting": "uncertainty", "training__loss": "mae",
               "run__plots": "true", "training__epochs": 2}  # fmt: skip
    assert train.main(options(molecules, folder, "--config", str(MINI), **light(**changed))) == 0
    return folder


def test_a_run_of_several_targets(run):
    log, history = (run / "train.log").read_text(), read_rows(run / "metrics.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    for name, column in zip(NAMES, COLUMNS, strict=True):
        assert (
            f"test MAE of {name}: " in log
            and f"target {column}" in log
            and f"valid {name} MAE" in log
            and f"{column}:" in log
        )
        assert float(history[0][f"train_{name}_mae"]) > 0 and float(history[1][f"valid_{name}_mae"]) > 0
        assert metrics[f"test of {name}"]["best model"]["mae"] > 0
        assert (run / f"predictions_{name}.png").stat().st_size
    assert (
        "learned weights of the losses: gap " in log
        and "training labels" in log
        and metrics["test of alpha"]["best model"]["count"] < metrics["counts"]["test"]
    )
    rows = read_rows(run / "predictions.csv")
    assert set(rows[0]) == {
        "id",
        *(f"{what} {column}" for what in ("label", "predicted", "error") for column in COLUMNS),
    }
    empty = [row for row in rows if not row["label alpha [a0^3]"]]
    assert empty and all(row["predicted alpha [a0^3]"] and not row["error alpha [a0^3]"] for row in empty)
    trained = load_trained(run)
    assert trained.model.log_widths.shape == (3,) and np.abs(trained.model.log_widths.asnumpy()).min() > 0
    assert [one.target.name for one in trained.task.every] == list(NAMES) and trained.config.model.outputs == 3


def test_it_is_measured_again_and_predicts(run, capsys, tmp_path):
    assert program.main(["--ckpt", str(run), "--output", str(tmp_path / "test")]) == 0
    again = json.loads((tmp_path / "test" / "metrics.json").read_text())
    stored = json.loads((run / "metrics.json").read_text())
    for name in NAMES:
        assert again[f"metrics of {name}"]["model"] == stored[f"test of {name}"]["best model"]
    capsys.readouterr()
    assert program.main(["--ckpt", str(run), "--smiles", "CCO"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head == ",".join(["name", *COLUMNS, "outside"]) and row.startswith("CCO,")
    assert train.main(["--resume", str(run), "--epochs", "3", "--set", "run.plots=false"]) == 0
    assert train.main(["--resume", str(run), "--set", "target.names=gap,mu"]) == 2
    assert len(read_rows(run / "metrics.csv")) == 3


def test_some_of_the_targets(run, tmp_path, capsys):
    """Predicted, measured and looked at atom by atom as among all; contributions add up to the prediction."""
    whole = predictions_of(capsys, run)
    (row,) = predictions_of(capsys, run, "--target", "mu,alpha")
    assert list(row) == ["name", COLUMNS[2], COLUMNS[1], "outside"] and all(row[k] == whole[0][k] for k in row)
    assert program.main(["--ckpt", str(run), "--target", "alpha", "--output", str(tmp_path / "alpha")]) == 0
    again, stored = (json.loads((one / "metrics.json").read_text()) for one in (tmp_path / "alpha", run))
    assert again["metrics"]["model"] == stored["test of alpha"]["best model"]
    capsys.readouterr()
    atoms = predictions_of(capsys, run, "--target", "alpha", "--atoms")
    found = sum(float(atom["contribution [a0^3]"]) for atom in atoms)
    assert found == pytest.approx(float(whole[0]["alpha [a0^3]"]), rel=1e-5)
    atoms = predictions_of(capsys, run, "--target", "mu", "--atoms")  # a norm is no sum
    assert "integrated_gradients [D]" in atoms[0] and "contribution [D]" not in atoms[0]
    assert program.main(["--ckpt", str(run), "--smiles", "CO", "--atoms"]) == 2
    assert "choose one with --target gap" in capsys.readouterr().err


def predictions_of(capsys, run, *words):
    """What is printed for a molecule."""
    capsys.readouterr()
    assert program.main(["--ckpt", str(run), "--smiles", "CO", *words]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_an_ensemble_predicts_every_target_at_once(run, tmp_path, capsys):
    """The spread of each target is that of its members, for which the networks are asked once."""
    other = changed_copy(tmp_path / "other.safetensors", run)
    capsys.readouterr()
    assert program.main(["--ckpt", str(run), "--smiles", "CCO", "C1CC1O"]) == 0
    one = [[float(row[name]) for name in COLUMNS] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert program.main(["--ckpt", str(run), str(other), "--smiles", "CCO", "C1CC1O"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    spreads = [f"spread {name}" for name in COLUMNS]
    assert list(rows[0]) == ["name", *COLUMNS, *spreads, "uncertain", "outside"]
    mean, spread = ([[float(row[name]) for name in names] for row in rows] for names in (COLUMNS, spreads))
    np.testing.assert_allclose(spread, np.sqrt(2) * np.abs(np.array(mean) - one), rtol=1e-3)  # of two members
    assert np.min(spread) > 0
    assert all(set(filter(None, row["uncertain"].split(", "))) <= set(NAMES) for row in rows)
    assert program.main(["--ckpt", str(run), str(other), "--output", str(tmp_path / "test")]) == 0
    table = {row["property"]: row for row in read_rows(tmp_path / "test" / "properties.csv")}
    stored = json.loads((run / "metrics.json").read_text())
    for name in NAMES:
        one = json.loads((tmp_path / "test" / name / "metrics.json").read_text())
        assert one["metrics"][run.name]["mae"] == pytest.approx(
            stored[f"test of {name}"]["best model"]["mae"], rel=1e-5
        )
        assert int(table[name]["molecules"]) == stored[f"test of {name}"]["best model"]["count"]
        assert one["uncertainty"]["validation_structures"] >= 5


def test_a_set_of_networks_with_several_targets_has_one_file_a_member(run, molecules, tmp_path, capsys, monkeypatch):
    folder, made = tmp_path / "ensemble", tmp_path / "made"
    write_record(folder, EnsembleRecord(load_trained(run).config, 2))
    for seed, change in ((0, 1.0), (1, 1.01)):
        (folder / f"seed{seed}").mkdir()
        changed_copy(folder / f"seed{seed}" / checkpoints.BEST, run, factor=change)
        (folder / f"seed{seed}" / FINISHED).write_text("{}")
    assert ship_models.main(["--runs", str(folder), "--output", str(made)]) == 0
    files = [f"gap-alpha-mu_{seed}.safetensors" for seed in range(2)]
    assert sorted(path.name for path in made.iterdir()) == [*files, RECORD]
    found = read_set(made)
    assert [one.name for one in found.properties] == ["mu", "alpha", "gap"] and found.together is None  # other labels
    assert all([file.name for file in one.files] == files for one in found.properties)
    stored = json.loads((run / "metrics.json").read_text())
    for one in found.properties:
        error, counted = (stored[f"test of {one.name}"]["best model"][key] for key in ("mae", "count"))
        assert one.about["test"]["mae_of_members"][0] == pytest.approx(error, rel=1e-5)
        assert one.about["test"]["structures"] == counted and one.calibration.threshold > 0
    calls = []

    def counted_call(*arguments):
        calls.append(arguments)
        return predict_sets(*arguments)

    monkeypatch.setattr(set_program, "predict_sets", counted_call)
    capsys.readouterr()
    for place in ("", "/alpha"):
        assert program.main(["--ckpt", f"{made}{place}", "--smiles", "CCO", "--output", str(tmp_path / "a.csv")]) == 0
    assert len(calls) == 2
    (row,) = read_rows(tmp_path / "a.csv")
    assert list(row) == ["name", "alpha [a0^3]", "calibrated spread alpha [a0^3]", "uncertain", "outside"]
    with np.load(molecules) as arrays:
        np.savez(tmp_path / "part.npz", **{name: arrays[name] for name in arrays.files if name != "gap"})
    capsys.readouterr()
    assert program.main(["--ckpt", str(made), "--data", str(tmp_path / "part.npz")]) == 0
    text = capsys.readouterr().out
    assert "warning: gap is left out: " in text and "| alpha " in text and "| gap " not in text


def test_mistakes(molecules, tmp_path, capsys):
    for changed, words in (
        ({"target__names": "gap,homo", "target__name": "mu"}, "give one of the two"),
        ({"target__names": "gap,homo", "model__outputs": 3}, "expected 1, or that of target.names"),
        ({"target__names": "gap,homo", "training__task_weights": "1,2,3"}, "expected one number or 2"),
        ({"target__names": "gap,homo", "training__loss": "norm"}, "mse, mae or huber"),
        ({"target__names": "gap,homo", "target__unit": "eV"}, "target.units"),
        ({"target__names": "gap,homo", "target__readout": "dipole"}, "allowed are mean, sum, attention"),
        ({"target__names": "gap,hobo"}, "did you mean 'homo'?"),
        ({"training__task_weighting": "uncertainty"}, "give target.names"),
        ({"target__names": "gap,homo", "target__units": "x=eV"}, "names of target.names"),
        ({"target__names": "gap,homo", "target__readouts": "x=sum"}, "names of target.names"),
        ({"target__names": "gap,homo", "target__readouts": "gap=attention"}, "which all outputs of a network have"),
        ({"target__readouts": "gap=sum"}, "give target.names"),
    ):  # fmt: skip
        assert train.main(options(molecules, tmp_path / "run", "--config", str(MINI), **light(**changed))) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and words in error, error
    assert not (tmp_path / "run").exists()

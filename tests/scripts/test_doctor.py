"""scripts/doctor.py: a sound machine passes, and every kind of check can fail."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from configs.schema import MODEL_CONFIGS
from models import MODELS
from scripts import doctor
from scripts.doctor_parts import doctor_checks, doctor_derivatives, doctor_models
from scripts.doctor_parts.doctor_checks import KNOWN, OK, WRONG, Row
from scripts.doctor_parts.doctor_derivatives import check_operators, check_single_precision
from scripts.doctor_parts.doctor_operators import Operator
from training import objective

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("same_mode")

#: the program with a twelfth of the operators and the model that compiles fastest
FEWER = """
import sys
from scripts import doctor
from scripts.doctor_parts import doctor_operators
every = doctor_operators.operators
doctor_operators.operators = lambda dtype: every(dtype)[::12]
doctor.MODELS = ["schnet"]
sys.exit(doctor.main())
"""


def verdicts(rows):
    return {row.name: row.verdict for row in rows}


def test_a_sound_machine():
    done = subprocess.run(
        [sys.executable, "-c", FEWER], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    sections = done.stdout.split("\n\n")
    assert re.fullmatch(r"\d+ checks, 0 WRONG, \d+ s\n", sections.pop())
    titles = [section.splitlines()[0] for section in sections]
    assert titles[0] == "machine" and len(titles) == 6 + 2
    for section in sections:
        head, *rows, seconds = section.splitlines()[1:]
        place = head.index("limit")
        assert rows and all(row[place - 1] == " " and row[place:].strip() for row in rows)
        assert all(row.endswith(("  ok", f"  {KNOWN}")) for row in rows)
        assert re.fullmatch(r"\(\d+\.\d s\)", seconds)


def test_every_model_is_checked():
    titles = [title for title, _, _ in doctor.sections(argparse.Namespace(device_target="CPU", device_id=0), "float64")]
    for name in MODELS:
        assert sum(title.startswith(f"{name}: ") for title in titles) == 2


def test_a_device_that_is_not_there():
    done = subprocess.run(
        [sys.executable, "scripts/doctor.py", "--device_target", "Ascend"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: device Ascend:0 cannot be used") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--device_id", "x"], ["--device_target", "TPU"], ["--device"], ["file"]])
def test_bad_options(arguments, capsys):
    assert doctor.main(arguments) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("error: ") and printed.err.count("\n") == 1


def broken():
    raise RuntimeError("first line\nsecond line\n" + 500 * "x")


@pytest.mark.parametrize(
    "check, code, words",
    [
        (lambda: [Row("a", "1", "2", OK), Row("b", "1", "", KNOWN)], 0, "2 checks, 0 WRONG"),
        (lambda: [Row("a", "1", "2", OK), Row("bad", "3", "2", WRONG)], 1, "WRONG: bad"),
        (broken, 1, "RuntimeError: first line second line xxx"),
    ],
)
def test_exit_code(check, code, words, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "sections", lambda options, dtype: [("title", "", check)])
    assert doctor.main([]) == code
    printed = capsys.readouterr()
    assert words in printed.out and not printed.err and max(map(len, printed.out.splitlines())) < 200


class WrongSlope(nn.Cell):
    """x^2 with the gradient 3 x."""

    def construct(self, x):
        return x * x

    def bprop(self, x, out, dout):
        return (x * dout * 3,)


class LostCurvature(nn.Cell):
    """x^2, whose gradient is right and whose second derivative is 0."""

    def construct(self, x):
        return x * x

    def bprop(self, x, out, dout):
        return (ops.stop_gradient(x) * dout * 2,)


def square(x):
    return x * x


def test_operators_that_are_wrong():
    """Beside right ones: a first and a second derivative, and one that does not compile."""
    x = np.array([[0.5, -1.0], [1.5, 0.75]])
    chosen = [
        Operator("broken", ops.Pad(((0, 1), (0, 0))), lambda x: np.pad(x, ((0, 1), (0, 0))), x),
        Operator("right", square, np.square, x),
        Operator("slope", WrongSlope(), np.square, x),
        Operator("curvature", LostCurvature(), np.square, x),
        Operator("shallow", ops.Pad(((0, 1), (0, 0))), lambda x: np.pad(x, ((0, 1), (0, 0))), x, orders=1),
    ]
    rows = check_operators(chosen, "float64")
    assert verdicts(rows) == {"broken": WRONG, "right": OK, "slope": WRONG, "curvature": WRONG, "shallow": OK}
    numbers = {row.name: [float(word) for word in row.measured.split()] for row in rows[1:4]}
    assert max(numbers["right"]) < 1e-9 and numbers["slope"][1] > 0.1
    assert max(numbers["curvature"][:2]) < 1e-9 and min(numbers["curvature"][2:4]) > 0.1
    assert "RuntimeError" in rows[0].measured and "\n" not in rows[0].measured


def test_operators_in_single_precision():
    x = np.array([[0.5, -1.0], [1.5, 0.75]])
    right, wrong = Operator("right", square, np.square, x), Operator("slope", WrongSlope(), np.square, x)
    raises = Operator("raises", lambda x: x + nothing, np.square, x)  # noqa: F821
    assert list(verdicts(check_single_precision([right, right])).values()) == [OK, OK]
    rows = check_single_precision([right, wrong])
    assert list(verdicts(rows).values()) == [OK, WRONG] and "slope" in rows[1].measured
    shifted = Operator("value", square, lambda x: x * x + 1e-4, x)
    rows = check_single_precision([right, shifted])
    assert rows[0].verdict == WRONG and "value" in rows[0].measured
    rows = check_single_precision([right, raises])
    assert [row.verdict for row in rows] == [WRONG] and rows[0].measured.startswith("raises: NameError")


def test_reference_of_derivatives():
    """Of sin, by hand."""
    place = doctor_derivatives.place_of(Operator("sin", ops.sin, np.sin, np.array([[0.5], [1.0]])), "float64")
    y, cosine = np.sin(place.x), np.cos(place.x)
    first = (1 + 3 * y**2) * cosine
    second = 6 * y * cosine**2 - (1 + 3 * y**2) * y
    assert np.allclose(place.derivatives[0], (place.w * first * place.v).sum(), rtol=1e-12)
    assert np.allclose(place.derivatives[1], (place.w * second * place.v**2).sum(), rtol=1e-9)


def test_derivatives_of_derivatives_that_are_eager(monkeypatch):
    """What MindSpore does where nothing is compiled is noticed."""
    monkeypatch.setattr(doctor_checks, "Compiled", lambda model, function: function)
    rows = doctor_checks.second_derivatives()
    assert rows[1].name == "(sum x)^2, compiled from PYNATIVE" and rows[1].verdict == WRONG
    assert rows[2].verdict == KNOWN and "wrong here, as known" in rows[2].measured


def test_without_compilation(monkeypatch):
    monkeypatch.setenv("MS_JIT", "0")
    for row in doctor_checks.second_derivatives()[:2]:
        assert row.verdict == WRONG and "MS_JIT=0" in row.measured


@pytest.mark.parametrize(
    "run, verdict, words",
    [
        (lambda: Tensor([2.0, 2.0]), OK, "right here"),
        (lambda: Tensor([0.0, 0.0]), KNOWN, "wrong here"),
        (lambda: Tensor([np.nan, 2.0]), KNOWN, "wrong here"),
        (broken, KNOWN, "RuntimeError"),
    ],
)
def test_eager_derivatives_are_only_told(run, verdict, words):
    row = doctor_checks.eager_row("name", run, np.array([2.0, 2.0]))
    assert row.verdict == verdict and words in row.measured


def test_half_precision_is_only_told(monkeypatch):
    assert {row.verdict for row in doctor_checks.half_precision()} <= {OK, KNOWN}
    monkeypatch.setattr(doctor_checks, "ops", SimpleNamespace(isfinite=lambda x: Tensor(True)))
    rows = doctor_checks.half_precision()
    assert rows[0].verdict == rows[2].verdict == KNOWN and "nothing" in rows[0].measured


@pytest.mark.parametrize(
    "versions, verdict",
    [
        ({"mindspore": "2.9.0"}, {"mindspore": KNOWN}),
        ({"numpy": "2.1.0"}, {"numpy": WRONG}),
        ({}, {}),
    ],
)
def test_versions(versions, verdict, monkeypatch):
    found = {"python": "3.11.0", "mindspore": "2.10.0", "numpy": "1.26.4", **versions}
    monkeypatch.setattr(doctor_checks, "versions", lambda: found)
    rows = verdicts(doctor_checks.machine("CPU", 0))
    assert rows == {**dict.fromkeys(rows, OK), **verdict}


def test_memory_of_a_container(monkeypatch, tmp_path):
    file = tmp_path / "memory.max"
    monkeypatch.setattr(doctor_checks, "CONTAINER_MEMORY", file)
    whole = doctor_checks.memory()
    file.write_text("max\n")
    assert doctor_checks.memory() == whole > 2**28
    file.write_text("1048576\n")
    assert doctor_checks.memory() == 2**20


def test_a_device_without_double_precision(monkeypatch):
    assert doctor_checks.best_precision() == "float64" and doctor_checks.precision("float64")[0].verdict == OK
    monkeypatch.setattr(doctor_checks, "ops", SimpleNamespace(exp=ops.exp, matmul=lambda a, b: broken()))
    assert doctor_checks.best_precision() == "float32" and doctor_checks.precision("float32")[0].verdict == KNOWN


@dataclass(frozen=True)
class ToyConfig:
    name: str = "toy"
    cutoff: float = 5.0
    fault: str = ""


class Toy(nn.Cell):
    """q_i = sum_k w_k tanh(x_ik^2) + b, which compiles in a second, with a fault to find."""

    def __init__(self, cutoff, fault, kinds):
        super().__init__()
        dtype = kinds.weights
        self.fault = fault
        scale = 1.001 if fault == "modes" and ms.get_context("mode") == ms.PYNATIVE_MODE else 1.0
        self.weight = Parameter(Tensor(scale * np.array([[0.3], [-0.2], [0.5]]), dtype), name="weight")
        self.bias = Parameter(Tensor(np.array([0.1]), dtype), name="bias")
        self.square = LostCurvature()

    def construct(self, numbers, positions, senders, receivers, shifts, triplet_in, triplet_out, node_graph, node_mask,
                  graph_mask):  # fmt: skip
        squares = self.square(positions) if self.fault == "Hessian" else positions * positions
        if self.fault == "forces":
            squares = squares + 0.1 * ops.stop_gradient(squares)
        if self.fault == "NaN":
            squares = ops.sqrt(-squares)
        weight = ops.stop_gradient(self.weight) if self.fault == "gradient" else self.weight
        return ops.matmul(ops.tanh(squares), weight) + self.bias, squares


@pytest.fixture
def toy(monkeypatch):
    def make(fault):
        monkeypatch.setitem(MODELS, "toy", Toy)
        monkeypatch.setitem(MODEL_CONFIGS, "toy", lambda: ToyConfig(fault=fault))

    return make


HESSIANS = {"Hessian product", "Hessian rows"}


@pytest.mark.parametrize(
    "fault, dtype, wrong",
    [
        ("", "float64", set()),
        ("", "float32", set()),
        ("forces", "float32", {"forces", *HESSIANS}),
        ("Hessian", "float64", HESSIANS),
    ],
)
def test_forces_and_hessians_that_are_wrong(fault, dtype, wrong, toy):
    toy(fault)
    rows = doctor_models.check_derivatives("toy", dtype)
    assert len(rows) == 6
    assert {row.name for row in rows if row.verdict == WRONG} == {
        f"{m}: {w}" for m in ("GRAPH", "PYNATIVE") for w in wrong
    }


def wrong_rows(name, objective="energy"):
    rows = doctor_models.training_rows("step", name, doctor_models.OBJECTIVES[objective])
    assert len(rows) == 7
    return {row.name.removeprefix("step: ") for row in rows if row.verdict == WRONG}


GRADIENTS = {"gradient, GRAPH", "gradient, PYNATIVE"}
ALL_BUT_SKIPPING = {"loss", "parameters without gradient", "GRAPH - PYNATIVE", *GRADIENTS}


@pytest.mark.parametrize(
    "fault, wrong",
    [
        ("", set()),
        ("modes", {"GRAPH - PYNATIVE"}),
        ("gradient", {"parameters without gradient", *GRADIENTS}),
        ("NaN", ALL_BUT_SKIPPING | {"parameters move by"}),
    ],
)
def test_train_steps_that_are_wrong(fault, wrong, toy):
    toy(fault)
    assert wrong_rows("toy") == wrong


def test_steps_that_change_nothing_or_too_much(toy, monkeypatch):
    toy("")
    monkeypatch.setitem(doctor_models.LAW, "lr", 0.0)
    assert wrong_rows("toy") == {"parameters move by"}
    monkeypatch.undo()
    toy("")
    monkeypatch.setattr(doctor_models, "TOO_LARGE", 1.0)
    assert wrong_rows("toy") == {"step that overflows"}


def test_a_loss_whose_energies_are_not_differentiated(toy, monkeypatch):
    """The auxiliary outputs of ``value_and_grad`` pass no gradient on, and nobody is told."""

    def auxiliary(model, wanted):
        def total(*inputs):
            energies = model(*inputs)
            return energies.sum(), energies

        derive = ms.value_and_grad(total, 1, None, has_aux=True)

        def function(*inputs):
            (_, energies), slope = derive(*inputs)
            return energies, -slope

        return function

    toy("")
    assert wrong_rows("toy", "energy and forces") == set()
    monkeypatch.setattr(objective, "observables", auxiliary)
    assert wrong_rows("toy", "energy and forces") >= GRADIENTS


def test_a_model_that_raises(monkeypatch):
    monkeypatch.setitem(MODELS, "toy", Toy)  # and no configuration
    rows = [*doctor_models.check_training("toy"), *doctor_models.check_derivatives("toy", "float64")]
    assert [row.name for row in rows] == ["energy", "energy and forces", "GRAPH", "PYNATIVE"]
    assert all(row.verdict == WRONG and row.measured.startswith("KeyError") for row in rows)

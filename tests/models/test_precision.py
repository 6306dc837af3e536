"""AMP levels: float16 where it is wanted, float32 where it is needed, and weights that stay float32."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from helpers import CASES, build, model_of, molecules
from mindspore import Tensor
from mindspore import dtype as mstype
from tiny_runs import REPOSITORY, options, read_rows

import train
from models.blocks import SwishLinear
from models.precision import AMP_LEVELS, precision
from scripts.benchmarks import label_rounding as rounding
from training.step import to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

LEVELS = [level for level in AMP_LEVELS if level != "O0"]
#: relative to the largest value of the float32 result: float16 has 11 bits, 5e-4
TOLERANCE = {"O2": 5e-3, "O3": 3e-2}
TRIED = [case for case in CASES if case.name in ("schnet", "schnet-2017", "schnet-dipole", "dimenetpp")]


def computed(case, amp_level):
    """Outputs and the gradients of their weighted sum by all weights."""
    plain = build(case, "float32")
    model = case.build("float32", amp_level)
    for own, other in zip(model.get_parameters(), plain.get_parameters(), strict=True):
        own.set_data(Tensor(other.asnumpy()))
    batch = case.batch(molecules(), dtype=np.float32)
    arguments = to_tensors(batch.inputs)
    weights = ms.ParameterTuple(model.trainable_params())
    factors = Tensor(np.linspace(1, 2, len(batch.inputs.graph_mask)), mstype.float32)

    def loss(*inputs):
        output = model(*inputs)
        return (output.astype(mstype.float32) * factors).sum(), output

    (_, output), gradients = ms.jit(ms.value_and_grad(loss, None, weights, has_aux=True))(*arguments)
    return output, gradients, len(molecules())


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_a_level_rounds_and_no_more(case):
    expected, slopes, count = computed(case, "O0")
    expected = expected.asnumpy()[:count]
    assert expected.dtype == np.float32
    for level in LEVELS:
        output, gradients, _ = computed(case, level)
        assert output.dtype == (mstype.float16 if level == "O3" else mstype.float32)
        found = output.asnumpy()[:count].astype(np.float64)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        assert 1e-7 < error < TOLERANCE[level], (level, error)  # float16 was used, and was enough
        for found, wanted in zip(gradients, slopes, strict=True):
            assert found.dtype == mstype.float32
            scale = max(np.abs(wanted.asnumpy()).max(), 1e-2)
            assert np.abs(found.asnumpy() - wanted.asnumpy()).max() < 10 * TOLERANCE[level] * scale


@pytest.mark.parametrize("model", ["schnet", "dimenetpp"])
def test_weights_keep_float32(model):
    for level in LEVELS:
        parameters = model_of(model, amp_level=level, readout="dipole").get_parameters()
        assert {parameter.dtype for parameter in parameters} == {mstype.float32}


def test_levels_that_do_not_exist():
    with pytest.raises(ValueError, match=r"O1.*expected one of O0, O2, O3"):
        model_of("schnet", amp_level="O1")
    with pytest.raises(ValueError, match="expected dtype float32, got float64"):
        model_of("schnet", amp_level="O2", dtype="float64")
    assert precision("O0", mstype.float64) == 3 * (mstype.float64,)


SMALL = {
    "dimenetpp": {
        "features": 8, "blocks": 1, "interaction_features": 4, "basis_features": 3, "output_features": 8,
        "spherical": 4, "radial": 3, "layers_before_skip": 1, "layers_after_skip": 1, "output_layers": 1,
    },
    "schnet": {"features": 8, "filters": 8, "blocks": 1, "gaussians": 8},
}  # fmt: skip


def port(folder, molecules, model, **changes):
    """Exit code of a few epochs with the recipe of the MindSpore port."""
    profile = REPOSITORY / "configs" / ("dimenetpp/qm9_port.yaml" if model == "dimenetpp" else "schnet/qm9_mini.yaml")
    settings = {
        "data.train_size": 24, "data.shapes": 1, "training.epochs": 4, "training.batch_size": 8,
        "training.loss_scale": "dynamic", **{f"model.{key}": value for key, value in SMALL[model].items()}, **changes,
    }  # fmt: skip
    settings = {key.replace(".", "__"): value for key, value in settings.items()}
    return train.main(options(molecules, folder, "--config", str(profile), **settings))


@pytest.mark.parametrize(("level", "model", "mode"), [("O3", "dimenetpp", "GRAPH"), ("O2", "schnet", "PYNATIVE")])
def test_a_run_learns(tmp_path, molecules, level, model, mode):
    """Each level, model and mode; each model with each level stands above.

    The rates are those of the port: one epoch up, one down along half a cosine, two at the lowest, of 3 steps each.
    """
    high, low = 1e-2, 1e-5
    changes = {"run.amp_level": level, "run.mode": mode, "optimizer.lr": high}
    assert port(tmp_path, molecules, model, **changes) == 0
    rows = read_rows(tmp_path / "metrics.csv")
    assert float(rows[-1]["valid_mae"]) < float(rows[0]["valid_mae"])
    if model == "dimenetpp":
        rates = [float(row["lr"]) for row in rows]
        np.testing.assert_allclose(rates[0], high, rtol=1e-6)  # of the epoch's last step
        np.testing.assert_allclose(rates[1], low + (high - low) * (1 + np.cos(np.pi * 2 / 3)) / 2, rtol=1e-6)
        np.testing.assert_allclose(rates[2:], low, rtol=1e-6)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"run.amp_level": "O1"}, "O0, O2, O3"),
        ({"run.amp_level": "O3", "run.dtype": "float64"}, "run.dtype float64: expected float32"),
        ({"schedule.warmup_steps": 5}, "give one of the two"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(tmp_path, molecules, capsys, setting, said):
    assert port(tmp_path / "run", molecules, "dimenetpp", **setting) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and said in line


def test_forces_keep_float32(tmp_path, capsys):
    profile = str(REPOSITORY / "configs" / "schnet" / "rmd17.yaml")
    sizes = [word for name in ("train", "valid", "test") for word in ("--set", f"data.{name}_size=10")]
    words = ["--config", profile, "--output", str(tmp_path / "run"), *sizes]
    assert train.main([*words, "--set", "run.amp_level=O2"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "run.amp_level O2: expected O0 beside training.force_weight" in line


def test_what_rounding_alone_does_to_energies(capsys):
    assert rounding.summed(np.array([2048.0, 8.0]), np.array([2048, 2])).tolist() == [2048, 8]
    assert rounding.summed(np.array([4096.0]), np.array([4096])).tolist() == [2048]  # 2048 + 1 is 2048
    assert rounding.main(["--target", "U0"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    errors = {(row[0], row[3]): (float(row[4]), float(row[5])) for row in rows}
    assert all(once < total for once, total in errors.values())
    assert 0.01 < errors["atomisation", "raw"][0] < 0.02 and 1 < errors["total", "raw"][0] < 3
    assert rounding.main(["--target", "U00"]) == 2
    assert "did you mean 'U0'?" in capsys.readouterr().err


@pytest.mark.parametrize("bias", [True, False])
def test_large_arguments_of_the_swish(bias):
    """MindSpore's float32 tanh is wrong by 1e-4 at 5, where its approximation ends: nothing may be made of it."""
    layer = SwishLinear(1, 1, mstype.float32, bias=bias)
    layer.weight.set_data(Tensor([[1.0]], mstype.float32))
    x = np.linspace(-30, 30, 2001).reshape(-1, 1)
    sigmoid = 1 / (1 + np.exp(-x))
    slope = ms.jit(ms.grad(layer))(Tensor(x, mstype.float32)).asnumpy()
    np.testing.assert_allclose(layer(Tensor(x, mstype.float32)).asnumpy(), x * sigmoid, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(slope, sigmoid * (1 + x * (1 - sigmoid)), rtol=2e-6, atol=1e-6)

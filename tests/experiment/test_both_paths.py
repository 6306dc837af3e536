"""A training of each model with the kernels and with MindSpore's operators, as on Ascend and GPU: the same course."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import DIMENETPP, PATHS, POTENTIAL, SCHNET, SEGNN, TRANSFORMER, on_path
from tiny_runs import REPOSITORY, column, read_rows

import train
from models import MODELS

pytestmark = pytest.mark.usefixtures("same_mode")

HYPERPARAMETERS = {
    "schnet": SCHNET, "dimenetpp": DIMENETPP, "segnn": SEGNN, "graph_attention_transformer": TRANSFORMER,
    "equivariant_potential": POTENTIAL,
}  # fmt: skip
SMALL = {
    "model.cutoff": 4.0, "data.train_size": 32, "data.valid_size": 8, "data.test_size": 8, "data.shapes": 1,
    "training.epochs": 2, "training.batch_size": 8, "training.eval_batch_size": 8, "optimizer.lr": 3e-3,
    "run.dtype": "float64", "run.plots": "false", "run.log_every": 2,
}  # fmt: skip


#: the modes differ in the train step alone, which is the same for every model
WHERE = [
    ("schnet", "PYNATIVE"), ("dimenetpp", "GRAPH"), ("segnn", "GRAPH"), ("graph_attention_transformer", "GRAPH"),
    ("equivariant_potential", "GRAPH"),
]  # fmt: skip
PROFILES = ("rmd17", "qm9_original", "crystals")  # the first that a model has
#: for a model without a profile for ethanol
ETHANOL = {
    "data.train_file": "sample", "data.test_file": "sample", "target.name": "energy", "training.force_weight": 1.0,
    "training.energy_weight": 0.1, "schedule.warmup_epochs": 0, "model.envelope": "polynomial",
}  # fmt: skip


def test_every_model_is_trained():
    assert HYPERPARAMETERS.keys() == MODELS.keys() == dict(WHERE).keys()


@pytest.mark.parametrize(("model", "mode"), WHERE)
def test_both_paths_learn_the_same(model, mode, tmp_path):
    """Energies and forces of ethanol in float64; the paths differ by rounding alone, also after eight updates."""
    sizes = {f"model.{name}": value for name, value in HYPERPARAMETERS[model].items()}
    profiles = REPOSITORY / "configs" / model
    file = next(file for name in PROFILES if (file := profiles / f"{name}.yaml").exists())
    pairs = (SMALL if file.stem == "rmd17" else ETHANOL | SMALL) | sizes | {"run.mode": mode}
    if model != "graph_attention_transformer":
        pairs.pop("model.envelope", None)
    changes = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    config = str(file)
    for path in PATHS:
        with on_path(path):
            assert train.main(["--config", config, "--output", str(tmp_path / path), *changes]) == 0
    first, second = (read_rows(tmp_path / path / "metrics.csv") for path in PATHS)
    names = [name for name in first[0] if name not in ("epoch", "step", "lr")]
    assert len(first) == len(second) == 2 and len(names) >= 5
    for name in names:
        one, other = column(first, name), column(second, name)
        assert np.isfinite(one).all() and np.allclose(one, other, rtol=1e-8, atol=0.0), name
    losses = column(first, "train_loss")
    assert losses[1] < losses[0]

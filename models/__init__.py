"""Mathematics in MindSpore: knows nothing of files, data sets or YAML."""

from __future__ import annotations

from mindspore import dtype as mstype
from mindspore import nn

from models import dimenetpp, schnet
from models.dimenetpp import DimeNetPlusPlus
from models.schnet import SchNet

MODELS: dict[str, type[nn.Cell]] = {"schnet": SchNet, "dimenetpp": DimeNetPlusPlus}
NEEDS_TRIPLETS = frozenset({"dimenetpp"})  # models whose messages pass between edges; the others get none
#: the last element of each model's table; beyond it a gather would take whatever lies there
LARGEST_ELEMENT = {"schnet": schnet.ELEMENTS - 1, "dimenetpp": dimenetpp.ELEMENTS - 1}
DTYPES = {"float32": mstype.float32, "float64": mstype.float64}


def build_model(name: str, *, dtype: str = "float32", amp_level: str = "O0", **hyperparameters: object) -> nn.Cell:
    """The model called ``name`` in ``MODELS`` with its constructor's hyperparameters; see ``models.precision`` for AMP.

    Raises:
        ValueError: unknown name or dtype, or a hyperparameter that the constructor refuses.
    """
    if name not in MODELS:
        raise ValueError(f"model {name!r}: expected one of {', '.join(MODELS)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    return MODELS[name](dtype=DTYPES[dtype], amp_level=amp_level, **hyperparameters)

"""Mathematics in MindSpore: knows nothing of files, data sets or YAML."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mindspore import dtype as mstype
from mindspore import nn

from models.block_model import BlockModel
from models.cpu_kernels import without_kernels
from models.dimenetpp import DimeNetPlusPlus
from models.direct_head import DirectHead
from models.equivariant_potential import EquivariantPotential
from models.graph_attention_transformer import GraphAttentionTransformer
from models.graph_model import GraphModel
from models.graph_transformer import GraphTransformer
from models.heads import ATTENTION, AttentionReadout, PooledReadout, Readout, ReadoutOfEach
from models.precision import precision
from models.schnet import SchNet
from models.segnn import SEGNN

MODELS: dict[str, type[nn.Cell]] = {
    "schnet": SchNet,
    "dimenetpp": DimeNetPlusPlus,
    "segnn": SEGNN,
    "graph_attention_transformer": GraphAttentionTransformer,
    "equivariant_potential": EquivariantPotential,
}
#: networks of force constants themselves, which have no energy and hence no forces
DIRECT: dict[str, type[nn.Cell]] = {"direct_head": DirectHead, "graph_transformer": GraphTransformer}
NEEDS_TRIPLETS = frozenset({"dimenetpp"})  # models whose messages pass between edges; the others get none
DTYPES = {"float32": mstype.float32, "float64": mstype.float64}


def build_model(
    name: str,
    *,
    dtype: str,
    amp_level: str,
    readout: str | tuple[str, ...],
    uncertainties: bool = False,
    **hyperparameters: Any,
) -> GraphModel | BlockModel:
    """A network with its head: a readout of the values of nodes, or a network that reads pooled ones.

    Args:
        name: of the network in ``MODELS``, or in ``DIRECT``, whose head is the product with a probe.
        dtype: float32 or float64 parameters and arithmetic.
        amp_level: what is computed in float16; see ``models.precision``.
        readout: one of ``models.heads.READOUTS``; networks of ``DIRECT`` have none.  Of several tasks, one for each
            output.
        uncertainties: whether the loss weights of several tasks are learned, see ``GraphModel``.
        hyperparameters: of the network's constructor.

    Raises:
        ValueError: a name that does not exist, or values that do not fit each other.
    """
    networks = MODELS | DIRECT
    if name not in networks:
        raise ValueError(f"model {name!r}: expected one of {', '.join(networks)}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    kinds = precision(amp_level, DTYPES[dtype])
    outputs = hyperparameters.get("outputs", 1)  # values an atom; most networks have one
    attends = {ATTENTION} == ({readout} if isinstance(readout, str) else set(readout))
    if attends:
        if "outputs" not in hyperparameters or hyperparameters.get("task") == "graph":
            raise ValueError(f"readout {ATTENTION}: expected a network of atom values with outputs, got {name}")
        hyperparameters = {**hyperparameters, "outputs": 2 * outputs}  # a score of each value besides
    # of second derivatives of cells that are computed again, MindSpore's compiler makes a graph with a cycle of kernels
    with without_kernels() if hyperparameters.get("recompute") else nullcontext():
        network = networks[name](kinds=kinds, **hyperparameters)
    if name in DIRECT:
        return BlockModel(network)
    if attends:
        head: nn.Cell = AttentionReadout(outputs, kinds.atoms)
    elif getattr(network, "pooled", 0):
        head = PooledReadout(network.pooling, network.pooled, outputs, kinds.weights)
    elif isinstance(readout, str):
        head = Readout(readout, outputs, kinds.atoms)
    else:
        head = ReadoutOfEach(readout, kinds.atoms)
    widths = outputs if uncertainties else 0
    return GraphModel(network, head, widths, kinds.weights)

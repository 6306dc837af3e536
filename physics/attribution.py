"""Which atoms a prediction depends on: gradient times input, and integrated gradients, over the elements of the atoms.

Atom i begins in a network as alpha_i a[Z_i] (``models.atom_scale``).  For the output y of a structure

    (1)  g_i  = dy / d alpha_i            at alpha = 1: the gradient times the input, summed over the features
    (2)  IG_i = int_0^1 dy / d alpha_i dt at alpha_i = t for all atoms       integrated gradients
    (3)  sum_i IG_i = y(1) - y(0)         completeness: they add up to what the elements do to the output

(Sundararajan, Taly and Yan, ICML 2017, arXiv 1703.01365, with features of 0 as the baseline.)  (2) is a sum over
Gauss-Legendre points in s with t = s^3, which lie close together near t = 0: there a layer norm turns within a range
of the root of its epsilon.  Where (3) does not hold, the piece of [0, 1] that breaks it most is halved again and again:
a norm of vectors, and a dipole's length, turn sharply where what they are the length of vanishes, at any t.  The
derivative is compiled in either mode.
"""

from __future__ import annotations

from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from data_tools.graph import GraphInputs
from physics.derivatives import GRAPH_MASK, Compiled

POWER = 3
POINTS, POINTS_OF_PIECE = 32, 4
MOST_PIECES = 120  # each but the first takes nine evaluations
COMPLETE = 1e-3  # largest error of (3) relative to sum_i |IG_i|, above which pieces are halved


class ScaleDerivative(Compiled):
    """Outputs y (G,), values of the nodes (N, C) and dy/d alpha (N, 1) for graph inputs.

    Of a readout with attention, a_i q_i and a_i stand in the place of the value q_i and the score of an atom.

    Args:
        model: a network with its head.
        alpha: (N, 1) factors of its atoms.
        output: which of several outputs of the network y is, and the values are; None: it has one.
    """

    def __init__(self, model: nn.Cell, alpha: Parameter, output: int | None = None):
        attends = hasattr(model.head, "contributions")
        self.columns = slice(None)
        if output is not None:
            self.columns = slice(output, None, model.head.outputs) if attends else slice(output, output + 1)

        def weighted(*inputs):
            values = model.network(*inputs)[0]
            outputs = model.head(values, *inputs)
            if output is not None:
                outputs = outputs[:, output]
            if attends:
                values = model.head.contributions(values, *inputs[GRAPH_MASK - 2 :])
            return (outputs * inputs[GRAPH_MASK]).sum(), outputs, values

        derive = ms.value_and_grad(weighted, None, alpha, has_aux=True)

        def function(*inputs):
            return derive(*inputs)

        super().__init__(model, function)
        self.alpha = alpha

    def at(self, factors: float, inputs: tuple[Tensor, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three, float64, with one factor for all atoms."""
        self.alpha.set_data(Tensor(np.full(self.alpha.shape, factors), self.alpha.dtype))
        (_, outputs, values), slope = self(*inputs)
        values = values[:, self.columns]
        return tuple(array.asnumpy().astype(np.float64) for array in (outputs, values, slope))  # type: ignore[return-value]


class Attribution(NamedTuple):
    """Of a batch, in the unit of the output; of its ghosts too.

    Attributes:
        outputs: (G,) y(1).
        without: (G,) y(0), with no element anywhere.
        values: (N, C) of the nodes, what the head reads, or as ``ScaleDerivative`` says.
        gradients: (N,) equation (1).
        integrated: (N,) equation (2).
        incomplete: (G,) how far (3) is broken, relative to sum_i |IG_i|.
    """

    outputs: np.ndarray
    without: np.ndarray
    values: np.ndarray
    gradients: np.ndarray
    integrated: np.ndarray
    incomplete: np.ndarray


def quadrature(points: int, start: float = 0.0, end: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Places t and weights of the sum (2) from s = ``start`` to ``end``, (points,) each; all weights add up to 1."""
    places, weights = np.polynomial.legendre.leggauss(points)
    s = (start + end + (end - start) * places) / 2
    return s**POWER, weights * (end - start) / 2 * POWER * s ** (POWER - 1)


class Piece(NamedTuple):
    """A part of the integral (2).

    Attributes:
        start, end: in s.
        first, last: (G,) y there.
        integrated: (N,) of it.
        missing: (G,) what its sum over atoms is apart from ``last - first``; 0 for ghosts.
    """

    start: float
    end: float
    first: np.ndarray
    last: np.ndarray
    integrated: np.ndarray
    missing: np.ndarray


def attribute(derivative: ScaleDerivative, inputs: GraphInputs, tensors: tuple[Tensor, ...]) -> Attribution:
    """Equations (1) and (2) for a batch.

    Args:
        derivative: of the network.
        inputs: the batch.
        tensors: the same as tensors.
    """
    real = inputs.graph_mask > 0
    outputs, values, slope = derivative.at(1.0, tensors)
    without = derivative.at(0.0, tensors)[0]

    def piece(start: float, end: float, first: np.ndarray, last: np.ndarray, points: int) -> Piece:
        integrated = np.zeros(len(slope))
        for place, weight in zip(*quadrature(points, start, end), strict=True):
            integrated += weight * derivative.at(float(place), tensors)[2][:, 0]
        total = np.bincount(inputs.node_graph, weights=integrated, minlength=len(real))
        return Piece(start, end, first, last, integrated, (total - (last - first)) * real)

    pieces = [piece(0.0, 1.0, without, outputs, POINTS)]
    while True:
        integrated = np.sum([one.integrated for one in pieces], axis=0)
        size = np.bincount(inputs.node_graph, weights=np.abs(integrated), minlength=len(real))
        missing = np.stack([one.missing for one in pieces])  # (P, G)
        missing = np.divide(missing, size, out=np.zeros_like(missing), where=size > 0)
        if len(pieces) >= MOST_PIECES or np.abs(missing).sum(axis=0).max() <= COMPLETE:
            return Attribution(outputs, without, values, slope[:, 0], integrated, np.abs(missing.sum(axis=0)))
        worst = pieces.pop(int(np.abs(missing).max(axis=1).argmax()))
        middle = (worst.start + worst.end) / 2
        value = derivative.at(middle**POWER, tensors)[0]
        pieces.append(piece(worst.start, middle, worst.first, value, POINTS_OF_PIECE))
        pieces.append(piece(middle, worst.end, value, worst.last, POINTS_OF_PIECE))


class AttentionOfBlocks(Compiled):
    """The attention a_ij (E, H) of each block of a network that has some, for graph inputs."""

    def __init__(self, model: nn.Cell):
        super().__init__(model, model.network.attention)


def received(attention: list[np.ndarray], inputs: GraphInputs) -> np.ndarray:
    """How much the others attend to each atom: sum_i a_ij, mean over heads and blocks.

    Args:
        attention: (E, H) of each block.
        inputs: of the batch.

    Returns:
        (N,); its mean over the atoms of a structure is 1 where each attends to some and a has no envelope.
    """
    of_edges = np.mean([weights.mean(axis=1, dtype=np.float64) for weights in attention], axis=0)
    return np.bincount(inputs.senders, weights=of_edges, minlength=len(inputs.numbers))

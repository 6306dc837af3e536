"""Functions of a distance: Gaussian basis and cosine cutoff."""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype


class GaussianBasis(nn.Cell):
    """e_k(d) = exp(coefficient_k (d - offset_k)^2).

    Source: Schuett et al., NeurIPS 2017 (arXiv 1706.08566), section 4.  The numbers are parameters without gradient, so
    that converted weights keep the rounding of their origin.

    Args:
        offsets: (K,) centres, Angstrom.
        coefficient: negative, 1/Angstrom^2.
        dtype: of the parameters and of the result.
    """

    def __init__(self, offsets: np.ndarray, coefficient: float, dtype: mstype.Type = mstype.float32):
        super().__init__()
        offsets = np.asarray(offsets, np.float64)
        self.offsets = Parameter(Tensor(offsets, dtype), name="offsets", requires_grad=False)
        self.coefficients = Parameter(
            Tensor(np.full(len(offsets), coefficient), dtype), name="coefficients", requires_grad=False
        )
        self.pad = ops.Pad(((0, 1),))

    def construct(self, distances: Tensor) -> Tensor:
        """(E, 1) Angstrom to (E, K + 1): the last column is 1 and carries the bias of the layer that follows."""
        difference = distances - self.pad(self.offsets)
        return ops.exp(self.pad(self.coefficients) * (difference * difference))


class CosineCutoff(nn.Cell):
    """f(d) = (cos(pi d / cutoff) + 1) / 2, which falls to 0 with zero slope at d = cutoff.

    Edges beyond the cutoff never enter a graph, so there is no mask.  Exactly at the cutoff, where the ghost edges are,
    the value is 0 to rounding and multiplies only messages between ghosts.
    """

    def __init__(self, cutoff: float, dtype: mstype.Type = mstype.float32):
        super().__init__()
        # tensors, because a Python float is rounded to float32 even beside float64 tensors
        self.frequency = Tensor(np.pi / cutoff, dtype)
        self.half = Tensor(0.5, dtype)

    def construct(self, distances: Tensor) -> Tensor:
        """(E, 1) Angstrom to (E, 1)."""
        return self.half * ops.cos(distances * self.frequency) + self.half

"""Real spherical harmonics of vectors as polynomials, with e3nn's order, signs and normalisations.

    (1)  P_0 = 1,  P_1 = r
    (2)  P_(l+1) = k_l sum C_(l 1 l+1) P_l r
    (3)  Y_l = c_l P_l

C is ``wigner.wigner_3j``, and k_l such that |P_l| = |r|^l and P_l0(e_y) = 1.  c_l is 1 for the normalisation ``norm``,
sqrt(2 l + 1) for ``component`` and sqrt((2 l + 1) / 4 pi) for ``integral``.

Products alone, so that derivatives of every order are right and finite; at r = 0 too, where the direction of a vector,
if it is asked for, is taken as 0 with derivatives 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.blocks import AddBias
from models.cpu_kernels import load
from models.e3.wigner import wigner_3j

NORMALIZATIONS = ("component", "norm", "integral")
Y_AXIS = 1  # among (x, y, z): the axis of the functions


class SphericalHarmonics(nn.Cell):
    """Y_l for l = 0 ... lmax, one copy each, as ``Irreps.spherical_harmonics(lmax)`` lays them out.

    Args:
        lmax: largest degree.
        normalize: whether the vectors are divided by their lengths before; if not, Y_l grows as |r|^l.
        normalization: one of ``NORMALIZATIONS``.
        dtype: of the vectors.

    Raises:
        ValueError: an unknown normalisation, or a negative degree.
    """

    def __init__(self, lmax: int, normalize: bool, normalization: str, dtype: mstype.Type):
        super().__init__()
        if normalization not in NORMALIZATIONS or lmax < 0:
            raise ValueError(
                f"normalization {normalization!r}, lmax {lmax}: expected one of {', '.join(NORMALIZATIONS)} and a "
                "degree, 0 or more"
            )
        self.normalize = normalize
        self.lmax = lmax
        size = (lmax + 1) ** 2
        places = [
            np.eye(size)[degree**2 : (degree + 1) ** 2] * _factor(degree, normalization) for degree in range(lmax + 1)
        ]
        self.constant = Tensor(places[0][0], dtype)  # (size,)
        first = places[1] if lmax else np.zeros((3, size))
        self.place_of_vector = Tensor(first, dtype)
        # of each further degree: P_l and r to their products, and these to P_(l+1), or to its place in Y
        steps = [_step(degree) for degree in range(1, lmax)]
        self.spread = tuple(Tensor(spread, dtype) for spread, _, _ in steps)
        self.repeat = tuple(Tensor(repeat, dtype) for _, repeat, _ in steps)
        self.couple = tuple(Tensor(couple, dtype) for _, _, couple in steps)
        self.place = tuple(
            Tensor(couple @ place, dtype) for (_, _, couple), place in zip(steps, places[2:], strict=True)
        )
        self.multiply, self.add, self.add_row = ops.MatMul(), ops.AddN(), AddBias()
        kernels = load(dtype)
        self.dtype = dtype
        self.kernel: Any = None
        if kernels:
            factors = [_factor(degree, normalization) for degree in range(lmax + 1)]
            couplings = [couple.reshape(-1, 3, couple.shape[1]) for _, _, couple in steps]
            self.kernel = kernels.Harmonics(factors, normalize, couplings, dtype)

    def construct(self, vectors: Tensor) -> Tensor:
        """(E, 3) to (E, (lmax + 1)^2)."""
        if self.kernel is not None and vectors.dtype == self.dtype:
            return self.kernel(vectors)
        r = directions(vectors) if self.normalize else vectors
        parts: tuple = (self.multiply(r, self.place_of_vector),)
        p = r  # P_1, (E, 3)
        for k in range(self.lmax - 1):
            products = self.multiply(p, self.spread[k]) * self.multiply(r, self.repeat[k])  # (E, 3 (2 l + 1))
            parts = (*parts, self.multiply(products, self.place[k]))  # (E, (lmax + 1)^2)  (3)
            if k + 2 < self.lmax:
                p = self.multiply(products, self.couple[k])  # (E, 2 l + 3)  (2)
        return self.add_row(self.add(parts) if len(parts) > 1 else parts[0], self.constant)


def directions(vectors: Tensor) -> Tensor:
    """Each vector (E, 3) divided by its length; zero vectors stay 0 with derivatives 0, as those of ``safe_norm``."""
    squared = (vectors * vectors).sum(-1, keepdims=True)
    zero = ops.cast(squared <= 0, squared.dtype)
    return vectors * ((1 - zero) / ops.sqrt(squared + zero))


def _factor(degree: int, normalization: str) -> float:
    """c_l of equation (3)."""
    squared = {"norm": 1.0, "component": 2.0 * degree + 1, "integral": (2.0 * degree + 1) / (4 * np.pi)}
    return squared[normalization] ** 0.5


def _step(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of equation (2): what takes P_l and r to the factors of their products, and the products to P_(l+1).

    Shapes (2 l + 1, K), (3, K) and (K, 2 l + 3) with K = 3 (2 l + 1).
    """
    size = 2 * degree + 1
    coupling = wigner_3j(degree, 1, degree + 1)
    along_axis = coupling[degree, Y_AXIS, degree + 1]  # P_l0(e_y) = 1 and r_y = 1
    return np.repeat(np.eye(size), 3, 1), np.tile(np.eye(3), size), coupling.reshape(3 * size, -1) / along_axis

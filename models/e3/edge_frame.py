"""Convolutions along edges in the frame of each edge, where attributes have one component of each degree.

A rotation R that takes the direction r of an edge to the polar axis y leaves of the harmonics Y_l(r) only m = 0.  A
tensor product with them then mixes channels of one |m| alone (Passaro and Zitnick, arXiv 2302.03655):

    (1)  D_l(R) Y_l(r) = Y_l(y),     Y_lm(y) = sqrt(2 l + 1) delta_m0         (component normalisation)
    (2)  z_m = D_m x                                                          into the frame, |m| = 0 ... lmax
    (3)  z'_m = W_m z_m                                                       see ``frame_product``
    (4)  y = sum_m D_m^T z'_m                                                 out of the frame

R is not unique, and as a function of r it has a singular point, but what leaves the frame depends on r alone.  So every
consistent rule for the change of D with r gives the same derivatives of y; ours is the rotation by r x dr / r^2,

    (5)  dD = -D (w . L),   w = r x dr / r^2,   L the generators of rotations

which is finite everywhere and holds to every order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from models.blocks import AddBias
from models.cpu_kernels import load
from models.e3.block_product import (
    FIRST,
    NUMBER,
    SECOND,
    Block,
    BlockProduct,
    BlockSum,
    Matrices,
    segments,
    whole_matrix,
)
from models.e3.irreps import Irreps
from models.e3.layout import SideBySide, split_and_join
from models.e3.spherical_harmonics import directions
from models.e3.wigner import wigner_3j
from models.graph_ops import gather, segment_sum, to_type


class _Rotations(nn.Cell):
    """D of equation (2) for all |m| and l, and the rule (5); its own derivatives are those of D again.

    The rotation to the axis by the shortest way is singular for r = -y; where y < 0 it goes to -y, and half a turn
    about x follows.
    """

    def __init__(self, lmax: int, dtype: mstype.Type):
        super().__init__(auto_prefix=False)
        self.lmax = lmax
        steps = [_step(degree) for degree in range(1, lmax)]
        self.spread = tuple(Tensor(spread, dtype) for spread, _, _ in steps)
        self.repeat = tuple(Tensor(repeat, dtype) for _, repeat, _ in steps)
        self.couple = tuple(Tensor(couple, dtype) for _, _, couple in steps)
        # of D_l by rows to the place of each |m|, and the generators on D in those places
        places, generators = _places(lmax), _generators(lmax)
        self.constant = Tensor(places[0][0], dtype)
        self.place = tuple(Tensor(place, dtype) for place in places[1:])
        self.generate = Tensor(np.concatenate(generators, 1), dtype)  # (K, 3 K)
        size = len(generators[0])
        self.tile = Tensor(np.tile(np.eye(size), 3), dtype)
        self.collect = Tensor(np.repeat(np.eye(3), size, 0), dtype)  # (3 K, 3)
        cross = np.zeros((3, 3, 3))
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            cross[i, j, k], cross[j, i, k] = 1, -1
        self.first = Tensor(np.repeat(np.eye(3), 3, 1), dtype)
        self.second, self.cross = Tensor(np.tile(np.eye(3), 3), dtype), Tensor(cross.reshape(9, 3), dtype)
        self._of_degree_1(dtype)
        self.multiply, self.add, self.add_row = ops.MatMul(), ops.AddN(), AddBias()

    def _of_degree_1(self, dtype: mstype.Type) -> None:
        """The constants of R = ((1 - t x x, -x, -t x z), (x, y, z), (-t x z, -z, 1 - t z z)) with t = 1 / (1 + |y|).

        Where y <= 0 the elements 1, 6 and 8 change their signs.
        """
        of_vector = np.zeros((3, 3, 9))  # factors of t, their partners, and linear terms
        for place, left, right in ((0, 0, 0), (2, 0, 2), (6, 0, 2), (8, 2, 2)):
            of_vector[0, left, place], of_vector[1, right, place] = -1, 1
        for place, component, sign in ((1, 0, -1), (3, 0, 1), (4, 1, 1), (5, 2, 1), (7, 2, -1)):
            of_vector[2, component, place] = sign
        self.lefts, self.rights, self.linear = (Tensor(one, dtype) for one in of_vector)
        self.axis = Tensor(np.eye(3)[:, 1:2], dtype)
        places = np.arange(9)
        self.unity, self.ones = Tensor(np.isin(places, (0, 8)) * 1.0, dtype), Tensor(np.ones(9), dtype)
        self.turned = Tensor(-2.0 * np.isin(places, (1, 6, 8)).reshape(1, 9), dtype)

    def construct(self, vectors: Tensor) -> Tensor:
        """Vectors (E, 3) to (E, K), for each |m| the rows of -m and m, or of 0, of D_l for l >= |m|."""
        unit = directions(vectors)
        y = self.multiply(unit, self.axis)  # (E, 1)
        down = ops.cast(y <= 0, y.dtype)
        t = 1 / (1 + ops.abs(y))
        quadratic = self.multiply(unit * t, self.lefts) * self.multiply(unit, self.rights)
        upright = self.add_row(quadratic + self.multiply(unit, self.linear), self.unity)
        rotation = upright * self.add_row(self.multiply(down, self.turned), self.ones)  # (E, 9), R by rows
        d = rotation
        parts: tuple = (self.multiply(d, self.place[0]),)
        for k in range(self.lmax - 1):
            products = self.multiply(d, self.spread[k]) * self.multiply(rotation, self.repeat[k])
            d = self.multiply(products, self.couple[k])  # (E, (2 l + 3)^2)
            parts = (*parts, self.multiply(d, self.place[k + 1]))
        return self.add(parts) + self.constant

    def bprop(self, vectors: Tensor, out: Tensor, dout: Tensor) -> tuple:
        """For a cotangent g: (r x t) / r^2 with t_k = g . D L_k."""
        squared = (vectors * vectors).sum(-1, keepdims=True)
        squared = squared + ops.cast(squared <= 0, squared.dtype)
        turned = self.multiply(out, self.generate) * self.multiply(dout, self.tile)  # (E, 3 K)
        torque = self.multiply(turned, self.collect)  # (E, 3)
        cross = self.multiply(self.multiply(vectors, self.first) * self.multiply(torque, self.second), self.cross)
        return (cross / squared,)


class EdgeFrames(nn.Cell):
    """The matrices D of equation (2) for edges, and the squares of their lengths.

    Args:
        lmax: largest degree of the features.
        dtype: of the vectors.
        contraction: precision of the products.
    """

    def __init__(self, lmax: int, dtype: mstype.Type, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.rotations, self.matrices = _Rotations(lmax, dtype), Matrices(_whole(lmax), contraction)
        _, self.join = split_and_join((sum(rows * columns for rows, columns in _shapes(lmax)), 1))
        self.together = self.matrices.together

    def construct(self, vectors: Tensor) -> Any:
        """Vectors (E, 3) to what the cells below take: D and r^2, side by side for a kernel."""
        rotations, squared = self.rotations(vectors), (vectors * vectors).sum(-1, keepdims=True)
        if self.together:
            return self.matrices(self.join((rotations, squared)))
        return self.matrices(rotations), squared


class IntoFrame(nn.Cell):
    """Equation (2): features of each edge to its z_m.

    Args:
        irreps: of the features.
        lmax: of the frames.
        contraction: precision of the products.
    """

    def __init__(self, irreps: Irreps, lmax: int, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.product = BlockProduct(irreps, _shapes(lmax), _whole(lmax), _blocks(irreps, lmax), contraction)

    def construct(self, x: Tensor, frames: Any) -> Any:
        """Features (E, dim) to all z_m in a row, those of m = 0, of -1 and 1, of -2 and 2 and so on."""
        return self.product(x, frames if self.product.kernel is not None else frames[0])


class EndsIntoFrame(nn.Cell):
    """Equation (2) for the features of both ends of an edge, and its squared length as one scalar more.

    Args:
        irreps: of the features of a node.
        lmax: of the frames.
        contraction: precision of the products.

    Attributes:
        irreps_out: of what comes out: receiver, sender and squared length.
        order: in which their channels stand in a z_m: both ends of an irrep beside each other.
    """

    def __init__(self, irreps: Irreps, lmax: int, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.irreps_out = irreps + irreps + [(1, "0e")]
        count = len(irreps)
        self.order = [2 * count, *(b + end * count for b in range(count) for end in range(2))]
        self.side_by_side = SideBySide(irreps)
        self.into = IntoFrame(Irreps([(2 * mul, ir) for mul, ir in irreps]), lmax, contraction)
        width = sum((2 if m else 1) * 2 * irreps.mul_from(m) for m in range(irreps.lmax + 1))
        _, self.join = split_and_join((1, width))
        kernels = load(contraction)
        self.kernel: Any = kernels.block_product if kernels else None
        if kernels:
            shapes = [*_shapes(lmax), (1, 1)]
            blocks = [
                [block._replace(end=end) for block in own for end in (FIRST, SECOND)] for own in _blocks(irreps, lmax)
            ]
            blocks[0].insert(0, Block(NUMBER, len(shapes) - 1, 1))
            self.table, self.linear = segments(irreps, shapes, blocks)
            self.like = Tensor(np.zeros((1, 1 + width)), contraction)
        self.contraction = contraction

    def construct(self, nodes: Tensor, frames: Any, receivers: Tensor, senders: Tensor) -> Tensor:
        """Features of the nodes (N, dim) to the z_m of squared lengths, receivers and senders, in a row."""
        if self.kernel is not None:
            nodes = to_type(nodes, self.contraction)
            return self.kernel(nodes, frames, receivers, senders, self.table, self.linear, self.like)
        z = self.into(self.side_by_side(gather(nodes, receivers), gather(nodes, senders)), frames)
        return self.join((to_type(frames[1], z.dtype), z))


class OutOfFrame(nn.Cell):
    """Equation (4): z_m to features, of each edge or summed into its receiver.

    Args:
        irreps: of the features.
        lmax: of the frames.
        contraction: precision of the products.
    """

    def __init__(self, irreps: Irreps, lmax: int, contraction: mstype.Type):
        super().__init__(auto_prefix=False)
        self.sum = BlockSum(irreps, _shapes(lmax), _whole(lmax), _blocks(irreps, lmax), contraction)

    def construct(self, z: Any, frames: Any) -> Tensor:
        """The z_m to features (E, dim), in their precision."""
        return self.sum(z, frames if self.sum.kernel is not None else frames[0])

    def summed(self, z: Any, frames: Any, receivers: Tensor, like: Tensor) -> Tensor:
        """The z_m to the sums of the features of edges with one receiver, (N, dim); ``like`` has N rows."""
        if self.sum.kernel is not None:
            return self.sum.by_index(z, frames, receivers, like)
        return segment_sum(self.construct(z, frames), receivers, like)


def _rows(degree: int, m: int) -> list[int]:
    """Components with this |m|."""
    return [degree - m, degree + m] if m else [degree]


def _shapes(lmax: int) -> list[tuple[int, int]]:
    """(rows, columns) of the matrices."""
    return [(len(_rows(degree, m)), 2 * degree + 1) for m, degree in _pairs(lmax)]


def _whole(lmax: int) -> np.ndarray:
    """How they stand in one matrix, for one irrep of each degree; see ``whole_matrix``."""
    degrees = Irreps.spherical_harmonics(lmax)
    return whole_matrix([part.ir.dim for part in degrees], _shapes(lmax), _blocks(degrees, lmax))


def _pairs(lmax: int) -> list[tuple[int, int]]:
    """(|m|, l) in the order of the matrices."""
    return [(m, degree) for m in range(lmax + 1) for degree in range(m, lmax + 1)]


def _blocks(irreps: Irreps, lmax: int) -> list[list[Block]]:
    """The blocks of each z_m."""
    place = {pair: k for k, pair in enumerate(_pairs(lmax))}
    return [
        [Block(b, place[m, part.ir.l], 1) for b, part in enumerate(irreps) if part.ir.l >= m]
        for m in range(irreps.lmax + 1)
    ]


def _step(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What takes D_l and R to the factors of their products, and those to D_(l+1); see ``wigner``, equation (3)."""
    size = (2 * degree + 1) ** 2
    coupling = wigner_3j(degree, 1, degree + 1)
    couple = (2 * degree + 3) * np.einsum("abc,ijk->aibjck", coupling, coupling).reshape(9 * size, -1)
    return np.repeat(np.eye(size), 9, 1), np.tile(np.eye(9), size), couple


def _places(lmax: int) -> list[np.ndarray]:
    """Of each degree, what takes D_l by rows to the order of the matrices, ((2 l + 1)^2, K)."""
    columns: list[list[tuple[int, int]]] = [[] for _ in range(lmax + 1)]
    start = 0
    for m, degree in _pairs(lmax):
        for row in _rows(degree, m):
            size = 2 * degree + 1
            columns[degree] += [(row * size + column, start + column) for column in range(size)]
            start += size
    places = [np.zeros(((2 * degree + 1) ** 2, start)) for degree in range(lmax + 1)]
    for place, pairs in zip(places, columns, strict=True):
        for source, target in pairs:
            place[source, target] = 1
    return places


def _generators(lmax: int) -> list[np.ndarray]:
    """D L_k in the order of the matrices as a matrix that multiplies D, for the three axes, (K, K)."""
    axes = []
    for k in range(3):
        generator = np.cross(np.eye(3), np.eye(3)[k]).T * -1.0  # turns v to e_k x v
        of_degrees = [np.zeros((1, 1)), generator]
        for degree in range(1, lmax):
            coupling, last = wigner_3j(degree, 1, degree + 1), of_degrees[-1]
            both = np.einsum("ai,bj->abij", last, np.eye(3)) + np.einsum("ai,bj->abij", np.eye(len(last)), generator)
            of_degrees.append((2 * degree + 3) * np.einsum("abc,abij,ijk->ck", coupling, both, coupling))
        blocks = [np.kron(np.eye(len(_rows(degree, m))), of_degrees[degree]) for m, degree in _pairs(lmax)]
        size = sum(len(block) for block in blocks)
        whole, start = np.zeros((size, size)), 0
        for block in blocks:
            whole[start : start + len(block), start : start + len(block)] = block
            start += len(block)
        axes.append(whole)
    return axes

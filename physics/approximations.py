"""Approximations of a Hessian from few products with it, each with its error against the exact one and its cost.

With random signs v, of which E[v v^T] = 1 (Hutchinson, Commun. Stat. Simul. 18, 1059, 1989),

    (1)  diagonal         H_pp  ~ mean over v of v_p (H v)_p
    (2)  blocks of atoms  H_ii  ~ mean over v of (H v)_i v_i^T
    (3)  low rank         H     ~ sum over the k eigenvalues of largest size of lambda u u^T     by Lanczos' method
    (4)  control          H     ~ J J^T with the gradient J, what K-FAC makes of one sample: 0 at a minimum of the
                                  energy, and of rank 1 elsewhere; no approximation, shown because it circulates as one
    (5)  control          H_pq  ~ (E(+h, +h) - E(+h, -h) - E(-h, +h) + E(-h, -h)) / 4 h^2        from energies alone

The rest of (2) vanishes as the root of the number of probes; no number of them gives what lies between atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mindspore import Tensor
from scipy.sparse.linalg import LinearOperator, eigsh

from data_tools.graph import AtomGraph, DataError
from data_tools.graphs.batching import join, pad
from data_tools.graphs.budgets import choose_budgets
from data_tools.graphs.probes import sizes_of
from physics.derivatives import HessianProduct

AT_ONCE = 8  # products in a batch


class Approximation(NamedTuple):
    """An approximate Hessian.

    Attributes:
        matrix: (3 N, 3 N) eV/Angstrom^2.
        products: with the Hessian that it took, or energies for (5).
    """

    matrix: np.ndarray
    products: int

    def error(self, exact: np.ndarray) -> float:
        """|H' - H| / |H| in the Frobenius norm, for the exact H (3 N, 3 N)."""
        return float(np.linalg.norm(self.matrix - exact) / np.linalg.norm(exact))


class Products:
    """Products of the Hessian of one structure with fields, in batches of one shape.

    Args:
        product: of the model.
        graph: the structure, with triplets where the model uses them.
        cutoff: Angstrom, of the graph.
        dtype: of the model's parameters.

    Attributes:
        count: how many have been made.
    """

    def __init__(self, product: HessianProduct, graph: AtomGraph, cutoff: float, dtype: type):
        self.product, self.atoms, self.dtype, self.count = product, len(graph.numbers), dtype, 0
        ragged = join([graph] * AT_ONCE)
        (budget,) = choose_budgets(AT_ONCE * sizes_of([graph]), AT_ONCE, 1, triplets=True)
        self.inputs = tuple(Tensor.from_numpy(array) for array in pad(ragged, budget, cutoff, dtype).inputs)
        self.nodes = budget.nodes

    def __call__(self, fields: np.ndarray) -> np.ndarray:
        """Fields (K, N, 3) to products (K, N, 3) in float64."""
        found = [np.zeros((0, self.atoms, 3))]
        for start in range(0, len(fields), AT_ONCE):
            part = fields[start : start + AT_ONCE]
            probe: np.ndarray = np.zeros((self.nodes, 3), self.dtype)
            probe[: len(part) * self.atoms] = part.reshape(-1, 3)
            values = self.product(*self.inputs, Tensor.from_numpy(probe)).asnumpy()
            found.append(values[: len(part) * self.atoms].reshape(part.shape).astype(np.float64))
        self.count += len(fields)
        return np.concatenate(found)

    def exact(self) -> np.ndarray:
        """The Hessian (3 N, 3 N), one product for each column."""
        size = 3 * self.atoms
        return self(np.eye(size).reshape(size, self.atoms, 3)).reshape(size, size)


def diagonal(products: Products, probes: int, seed: int) -> Approximation:
    """Equation (1); zeros elsewhere."""
    signs = _signs(products, probes, seed)
    values = (signs * products(signs)).mean(axis=0).reshape(-1)
    return Approximation(np.diag(values), probes)


def block_diagonal(products: Products, probes: int, seed: int) -> Approximation:
    """Equation (2), made symmetric; zeros between atoms."""
    signs = _signs(products, probes, seed)
    blocks = np.einsum("kia,kib->iab", products(signs), signs) / probes
    n = products.atoms
    matrix = np.zeros((n, 3, n, 3))
    matrix[np.arange(n), :, np.arange(n)] = (blocks + blocks.transpose(0, 2, 1)) / 2
    return Approximation(matrix.reshape(3 * n, 3 * n), probes)


def low_rank(products: Products, rank: int, seed: int) -> Approximation:
    """Equation (3), with as many products as the method needs to converge.

    Raises:
        DataError: a rank that is not between 1 and 3 N - 1.
    """
    size = 3 * products.atoms
    if not 0 < rank < size:
        raise DataError(f"rank {rank}: expected 1 to {size - 1} for {products.atoms} atoms")
    before = products.count

    def multiply(vector: np.ndarray) -> np.ndarray:
        return products(vector.reshape(1, -1, 3)).reshape(-1)

    start = np.random.default_rng(seed).normal(size=size)
    values, vectors = eigsh(LinearOperator((size, size), multiply, dtype=np.float64), rank, which="LM", v0=start)
    return Approximation((vectors * values) @ vectors.T, products.count - before)


def outer_product(gradient: np.ndarray) -> Approximation:
    """Control (4), of dE/dr (N, 3)."""
    flat = np.asarray(gradient, np.float64).reshape(-1)
    return Approximation(np.outer(flat, flat), 0)


def energy_differences(
    energies: Callable[[np.ndarray], np.ndarray], positions: np.ndarray, step: float
) -> Approximation:
    """Control (5).

    Args:
        energies: positions (K, N, 3) to (K,) eV; its rounding is divided by 4 h^2.
        positions: (N, 3) Angstrom.
        step: h, Angstrom.
    """
    size = positions.size
    moves = step * np.eye(size).reshape(size, *positions.shape)
    first, second = np.triu_indices(size)
    signs = ((1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1))
    total = sum(
        weight * energies(positions + one * moves[first] + other * moves[second]) for weight, one, other in signs
    )
    matrix = np.zeros((size, size))
    matrix[first, second] = matrix[second, first] = total / (4 * step**2)
    return Approximation(matrix, 4 * len(first))


def _signs(products: Products, probes: int, seed: int) -> np.ndarray:
    """(K, N, 3) of -1 and 1.

    Raises:
        DataError: no probe.
    """
    if probes < 1:
        raise DataError(f"probes {probes}: expected at least 1")
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(probes, products.atoms, 3))

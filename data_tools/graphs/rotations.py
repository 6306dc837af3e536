"""Random rotations and reflections of structures together with their labels: a control, for a model that is invariant
learns the same.

    x' = R x,    F' = R F,    v' = R v,    (Phi v)' = R Phi v,    sigma' = R sigma R^T        x: positions and shifts

Labels of other names are numbers, which stay as they are.  A vector or a stress of which a part is not known is not
known after a rotation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from data_tools.graph import Labels, Provider
from data_tools.graphs.batching import RaggedBatch
from data_tools.graphs.packed import PackedGraphs

VECTORS, MATRICES = ("forces", "hessian_product"), ("stress",)
STREAM = 3  # apart from the random numbers of the labels
STREAM_BESIDE = 5  # of rotations beside the labels; 4 is that of ``data_tools.graphs.noise``
BESIDE = "rotations"  # label (G, 3, 3): a rotation of each structure, of which the structure knows nothing


def random_rotations(seed: int, rows: np.ndarray, draws: np.ndarray, stream: int = STREAM) -> np.ndarray:
    """(K, 3, 3) uniform orthogonal matrices, each a function of (seed, draw, row); half of them are reflections.

    Rotations of unit quaternions of normal numbers; where a fifth number is negative, with an inversion.
    """
    normal = [
        np.random.default_rng([seed, row, draw, stream]).normal(size=5)
        for row, draw in zip(rows.tolist(), draws.tolist(), strict=True)
    ]
    numbers = np.array(normal).reshape(-1, 5)
    signs = np.where(numbers[:, 4] < 0, -1.0, 1.0)
    return signs[:, None, None] * Rotation.from_quat(numbers[:, :4]).as_matrix()


def rotated(batch: RaggedBatch, rotations: np.ndarray) -> RaggedBatch:
    """Graphs whose positions and shifts are rotated, each by its own of (G, 3, 3)."""
    shifts = batch.shifts
    if shifts is not None:
        shifts = _turned(shifts, np.repeat(rotations, batch.n_pairs, axis=0))
    positions = _turned(batch.positions, np.repeat(rotations, batch.n_atoms, axis=0))
    return batch._replace(positions=positions, shifts=shifts)


@dataclass(frozen=True)
class RotatedLabels:
    """A ``Provider`` of the labels and probes of another, rotated.

    Attributes:
        provider: the other.
        packed: the data set.
        seed: of the rotations.
    """

    provider: Provider
    packed: PackedGraphs
    seed: int

    def __call__(self, rows: np.ndarray, draws: int | np.ndarray = 0) -> Labels:
        """The labels of some rows, in that order, each at its own draw or all at one."""
        labels = self.provider(rows, draws)
        rotations = random_rotations(self.seed, rows, np.broadcast_to(draws, rows.shape))
        of_atoms = np.repeat(rotations, self.packed.table.n_atoms[rows], axis=0)
        of_graphs, of_nodes = dict(labels.of_graphs), dict(labels.of_nodes)
        for name in of_nodes.keys() & set(VECTORS):
            of_nodes[name] = _turned(of_nodes[name], of_atoms)
        for name in of_graphs.keys() & set(MATRICES):
            of_graphs[name] = rotations @ of_graphs[name] @ rotations.transpose(0, 2, 1)
        probes = None if labels.probes is None else _turned(labels.probes, of_atoms)
        return Labels(of_graphs, of_nodes, probes)


@dataclass(frozen=True)
class RotationsBeside:
    """A ``Provider`` of the labels of another as they are, and beside them a random rotation of each structure.

    Attributes:
        provider: the other.
        seed: of the rotations, which are others than those of ``RotatedLabels``.
    """

    provider: Provider
    seed: int

    def __call__(self, rows: np.ndarray, draws: int | np.ndarray = 0) -> Labels:
        """The labels of some rows, in that order, each at its own draw or all at one."""
        labels = self.provider(rows, draws)
        rotations = random_rotations(self.seed, rows, np.broadcast_to(draws, rows.shape), STREAM_BESIDE)
        return labels._replace(of_graphs={**labels.of_graphs, BESIDE: rotations})


def _turned(vectors: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """(K, 3) vectors, each by its own of (K, 3, 3)."""
    return np.einsum("kab,kb->ka", rotations, vectors)

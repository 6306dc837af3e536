"""The shipped QM9 molecules as flat torch tensors, and their collation into batches for the torch peers.

Edges are computed once, before any clock starts, and a batch is gathered by tensor indexing alone: neither a neighbour
search nor Python loops over molecules slow the peer down.  Runs in the peers' interpreter (requirements-parity.txt).
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("peer_data.py is a part of peer_schnet.py: see python scripts/peers/peer_schnet.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

SAMPLES = Path(__file__).resolve().parents[2] / "data_tools" / "samples"
HARTREE, KCAL_PER_MOL = 27.211386246, 0.04336414  # eV
N_TEST, N_VALID = 2807, 2000  # the `sample` split; the other 18,000 molecules are for training
ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}


class PeerBatch(NamedTuple):
    """The molecules of one step; edges run from row 0 (neighbour) to row 1 (centre) and ascend by centre."""

    numbers: Tensor  # (N,) int64
    positions: Tensor  # (N, 3), Angstrom
    node_graph: Tensor  # (N,) int64
    edge_index: Tensor  # (2, E) int64
    labels: Tensor  # (G,) what the network learns
    forces: Tensor  # (N, 3) eV/Angstrom; (0, 3) where the data have none
    prepared: tuple[Tensor, ...] = ()  # made by the data set of some networks: triplets, attributes


class GivenEdges(nn.Module):
    """PyG's `interaction_graph` for given edges; distances are taken from `pos`, so forces can flow."""

    def __init__(self) -> None:
        super().__init__()
        self.edge_index: Tensor = torch.zeros((2, 0), dtype=torch.int64)

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stored edges (2, E) and their lengths (E,) in Angstrom; `batch` is part of PyG's interface."""
        source, target = self.edge_index
        return self.edge_index, (pos[source] - pos[target]).norm(dim=-1)


def sample_split(seed: int = 0, count: int = 22807) -> dict[str, np.ndarray]:
    """Return row numbers of the `sample` split: of one permutation, test is the first 2,807, valid the next 2,000."""
    order = np.random.default_rng(seed).permutation(count)
    return {"test": order[:N_TEST], "valid": order[N_TEST : N_TEST + N_VALID], "train": order[N_TEST + N_VALID :]}


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the training molecules in a 0-based epoch: any program can repeat it from two integers."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def read_u0_references(path: Path = SAMPLES / "atomref.txt") -> dict[int, float]:
    """Return U0 of the free atoms in Hartree by atomic number, from the table published with QM9."""
    references = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 7 and words[0] in ATOMIC_NUMBERS:
            references[ATOMIC_NUMBERS[words[0]]] = float(words[2])
    if len(references) != len(ATOMIC_NUMBERS):
        raise ValueError(f"{path} should list {sorted(ATOMIC_NUMBERS)}, found only atomic numbers {sorted(references)}")
    return references


class PeerStructures:
    """Structures as flat tensors.

    Args:
        numbers: (A,) atomic numbers of all structures, one after the other.
        positions: (A, 3) Angstrom.
        n_atoms: (M,) atoms per structure.
        labels: (M,) float64, what the network learns.
        cutoff: Angstrom.
        forces: (A, 3) eV/Angstrom, or None.
        dtype: of positions, labels and forces in a batch.
    """

    def __init__(
        self,
        numbers: np.ndarray,
        positions: np.ndarray,
        n_atoms: np.ndarray,
        labels: np.ndarray,
        cutoff: float,
        forces: np.ndarray | None = None,
        dtype: type = np.float32,
    ) -> None:
        self.n_atoms, self.labels = n_atoms, labels
        starts = np.concatenate([[0], np.cumsum(n_atoms)])
        source, centre, n_edges = find_edges(positions, n_atoms, cutoff)
        self._numbers, self._positions = torch.from_numpy(numbers), torch.from_numpy(positions.astype(dtype))
        self._labels = torch.from_numpy(labels.astype(dtype))
        self._forces = None if forces is None else torch.from_numpy(forces.astype(dtype))
        self._local_edges = torch.from_numpy(np.stack([source, centre]))
        self._node_starts, self._node_counts = torch.from_numpy(starts), torch.from_numpy(n_atoms)
        self._edge_starts = torch.from_numpy(np.concatenate([[0], np.cumsum(n_edges)]))
        self._edge_counts = torch.from_numpy(n_edges)

    def collate(self, rows: np.ndarray) -> PeerBatch:
        """Gather the structures of `rows`, in this order, into one batch."""
        chosen = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        node_counts, edge_counts = self._node_counts[chosen], self._edge_counts[chosen]
        nodes, first_nodes = _ranges(self._node_starts[chosen], node_counts)
        edges, _ = _ranges(self._edge_starts[chosen], edge_counts)
        edge_index = self._local_edges[:, edges] + torch.repeat_interleave(first_nodes, edge_counts)
        node_graph = torch.repeat_interleave(torch.arange(len(chosen)), node_counts)
        forces = torch.zeros((0, 3)) if self._forces is None else self._forces[nodes]
        return PeerBatch(
            self._numbers[nodes], self._positions[nodes], node_graph, edge_index, self._labels[chosen], forces
        )


class PeerFrames(PeerStructures):
    """The shipped training frames of ethanol (rMD17): energies from their mean, and forces."""

    def __init__(self, cutoff: float, path: Path = SAMPLES / "rmd17_ethanol_train_01.npz") -> None:
        with np.load(path) as data:
            count, size = data["coords"].shape[:2]
            super().__init__(
                np.tile(data["nuclear_charges"].astype(np.int64), count),
                data["coords"].reshape(-1, 3).astype(np.float32),
                np.full(count, size),
                (data["energies"] - data["energies"].mean()) * KCAL_PER_MOL,
                cutoff,
                data["forces"].reshape(-1, 3) * KCAL_PER_MOL,
            )


class PeerMolecules(PeerStructures):
    """All shipped molecules as flat tensors.

    Attributes:
        gdb_index: (M,) identity of each molecule in GDB-9.
        n_atoms: (M,) atoms per molecule.
        labels: (M,) float64 numpy labels in eV.
    """

    def __init__(self, target: str, cutoff: float, path: Path = SAMPLES / "qm9_22807.npz") -> None:
        """Read the molecules, the labels of `target` (gap or U0, the latter as atomisation energy) and find edges."""
        with np.load(path) as data:
            numbers, positions = data["Z"].astype(np.int64), data["R"].astype(np.float32)
            self.gdb_index, n_atoms = data["gdb_index"], data["n_atoms"].astype(np.int64)
            raw = data[target].astype(np.float64)
        if target == "U0":
            table = np.zeros(numbers.max() + 1)
            for number, energy in read_u0_references().items():
                table[number] = energy
            raw = raw - np.add.reduceat(table[numbers], np.cumsum(n_atoms) - n_atoms)
        super().__init__(numbers, positions, n_atoms, raw * HARTREE, cutoff)


def _ranges(starts: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the concatenated ranges start..start+count, and where each range begins in the result."""
    first = torch.cumsum(counts, 0) - counts
    total = int(counts.sum())
    return torch.arange(total) + torch.repeat_interleave(starts - first, counts), first


def find_edges(positions: np.ndarray, n_atoms: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all ordered pairs of different atoms of one molecule closer than `cutoff` (strictly, without a cap).

    Args:
        positions: (A, 3) Angstrom, all molecules one after the other.
        n_atoms: (M,) atoms per molecule.
        cutoff: Angstrom.

    Returns:
        neighbour and centre (E,), counted from 0 inside their own molecule and sorted by (molecule, centre, neighbour),
        and the number of edges of each molecule (M,).
    """
    starts = np.cumsum(n_atoms) - n_atoms
    molecules, centres, neighbours = [], [], []
    for size in np.unique(n_atoms):  # molecules of one size form a dense array: no loop over single molecules
        rows = np.flatnonzero(n_atoms == size)
        block = positions[starts[rows][:, None] + np.arange(size)].astype(np.float64)  # (m, n, 3)
        distance = np.linalg.norm(block[:, :, None] - block[:, None], axis=-1)  # (m, n, n)
        row, centre, neighbour = np.nonzero((distance < cutoff) & ~np.eye(size, dtype=bool))
        molecules.append(rows[row])
        centres.append(centre)
        neighbours.append(neighbour)
    molecule = np.concatenate(molecules)
    order = np.argsort(molecule, kind="stable")  # stable: (centre, neighbour) stay sorted inside a molecule
    counts = np.bincount(molecule, minlength=len(n_atoms)).astype(np.int64)
    return np.concatenate(neighbours)[order], np.concatenate(centres)[order], counts

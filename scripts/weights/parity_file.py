"""A parity file: molecules and what the original computes from them; see ``scripts.weights.weight_check``."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("parity_file.py is a part of convert_weights.py: see python scripts/convert_weights.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_tools.graph import Budget, GraphBatch, Structure
from data_tools.graphs.batching import build_graph, join, pad
from data_tools.labels.statistics import element_counts
from models.elements import ELEMENTS
from scripts.weights.weight_files import read_arrays
from scripts.weights.weight_source import WeightError

Arrays = Mapping[str, np.ndarray]


class Golden:
    """A parity file with its molecules as a padded batch.

    Args:
        path: the .npz file.
        cutoff: Angstrom, of the model.
        triplets: whether the model needs triplets.

    Raises:
        WeightError: not a parity file, or its edges are not those of this cutoff.
    """

    def __init__(self, path: Path, cutoff: float, triplets: bool = False):
        self.path, self.cutoff, self.triplets = path, cutoff, triplets
        self.arrays = read_arrays(path)
        missing = [key for key in ("z", "pos", "batch", "out64") if key not in self.arrays]
        if missing or not {"edge_index", "idx_i"} & self.arrays.keys():
            missing = missing or ["edge_index"]
            raise WeightError(f"{path}: expected a parity file, but it lacks {', '.join(missing)}")
        self._check_arrays()
        self.n_atoms = np.bincount(self.arrays["batch"])
        if (np.diff(self.arrays["batch"]) < 0).any() or not self.n_atoms.all():
            raise WeightError(f"{path}: expected the atoms of each molecule one after the other in 'batch'")
        self.counts = element_counts(self.arrays["z"], self.n_atoms)
        first = np.cumsum(self.n_atoms)[:-1]
        numbers, positions = np.split(self.arrays["z"], first), np.split(self.arrays["pos"], first)
        structures = [Structure(z, x) for z, x in zip(numbers, positions, strict=True)]
        self.graphs = join([build_graph(structure, cutoff, triplets) for structure in structures])
        edges = self._match_edges()
        #: what the file calls each of our nodes, pairs, edges and triplets
        self.places: dict[str, np.ndarray] = {
            "node": np.arange(len(self.arrays["z"])),
            "pair": edges[: len(edges) // 2],
            "edge": edges,
        }
        if triplets and {"idx_kj", "idx_ji"} <= self.arrays.keys():
            self.places["triplet"] = self._match_triplets(edges)

    def _check_arrays(self) -> None:
        """The molecules as they are used below; what is compared is checked where it is compared."""
        atoms = self.arrays["z"].size
        shapes = {"z": (atoms,), "batch": (atoms,), "pos": (atoms, 3)}
        most = {"z": ELEMENTS, "batch": atoms, "edge_index": atoms, "idx_i": atoms, "idx_j": atoms}
        for key in (*shapes, *most.keys() & self.arrays.keys()):
            values = self.arrays[key]
            fits = values.dtype.kind in ("iu" if key in most else "f") and values.shape == shapes.get(key, values.shape)
            if not fits or not np.isfinite(values).all() or not (key == "pos" or within(values, most[key])):
                raise WeightError(
                    f"{self.path}: expected {key} to describe {atoms} atoms, found {values.dtype} of shape "
                    f"{values.shape} that does not; make the file again"
                )

    def batch(self, dtype: type) -> GraphBatch:
        """The molecules with a few ghosts: a converted model must not feel them."""
        nodes, pairs, graphs = len(self.graphs.numbers), len(self.graphs.senders), len(self.n_atoms)
        triplets = len(self.graphs.triplet_in) + 5 * self.triplets
        budget = Budget(nodes + 3, 2 * pairs + 8, triplets, graphs + 1)
        return pad(self.graphs, budget, self.cutoff, dtype)

    def real(self, kind: str, values: np.ndarray) -> np.ndarray:
        """Rows without ghosts, in the order of ``places``."""
        if kind != "edge":
            return values[: len(self.places[kind])]
        pairs, half = len(self.graphs.senders), len(values) // 2
        return np.concatenate((values[:pairs], values[half : half + pairs]))

    def cotangent(self) -> np.ndarray:
        """The weights of the outputs whose sum the parameter gradients belong to, (G,) or (G, outputs)."""
        molecules, outputs = len(self.n_atoms), self.arrays["out64"].size
        if not outputs or outputs % molecules:
            raise WeightError(
                f"{self.path}: expected out64 with a row for each of {molecules} molecules, found shape "
                f"{self.arrays['out64'].shape}; make the file again"
            )
        shape = (molecules,) if outputs == molecules else (molecules, outputs // molecules)
        if "out_cotangent" not in self.arrays:
            return np.ones(shape)
        return numbers_of(self, "out_cotangent", shape)

    def _match_edges(self) -> np.ndarray:
        """The file's number of each of our edges, both halves."""
        stored = ["edge_index"] if "edge_index" in self.arrays else ["idx_j", "idx_i"]
        lists = [row for key in stored for row in np.atleast_2d(self.arrays.get(key, []))]
        if len(lists) != 2 or lists[0].shape != lists[1].shape:
            raise WeightError(f"{self.path}: expected a neighbour and a centre per edge in {' and '.join(stored)}")
        neighbours, centres = lists
        size = len(self.arrays["z"])
        theirs = centres.astype(np.int64) * size + neighbours
        pairs = self.graphs.receivers.astype(np.int64) * size + self.graphs.senders
        reverse = self.graphs.senders.astype(np.int64) * size + self.graphs.receivers
        ours = np.concatenate((pairs, reverse))
        if len(theirs) != len(ours) or not np.array_equal(np.sort(theirs), np.sort(ours)):
            raise WeightError(
                f"{self.path}: holds {len(theirs)} edges, the graphs at cutoff {self.cutoff} Angstrom hold {len(ours)} "
                f"({len(np.setdiff1d(ours, theirs))} of them not in the file, {len(np.setdiff1d(theirs, ours))} of the "
                "file's not among them); use the parity file of this cutoff"
            )
        order = np.argsort(theirs)
        return order[np.searchsorted(theirs, ours, sorter=order)]

    def _match_triplets(self, edges: np.ndarray) -> np.ndarray:
        """The file's number of each of our triplets.

        Raises:
            WeightError: it lists others.
        """
        number = len(edges)
        into, out = self.arrays["idx_kj"], self.arrays["idx_ji"]
        fits = all(part.dtype.kind in "iu" and part.ndim == 1 and within(part, number) for part in (into, out))
        ours = edges[self.graphs.triplet_in] * number + edges[self.graphs.triplet_out]
        theirs = into.astype(np.int64) * number + out if fits and into.shape == out.shape else np.zeros(0, np.int64)
        if not np.array_equal(np.sort(theirs), np.sort(ours)):
            raise WeightError(f"{self.path}: idx_kj and idx_ji are not the {len(ours)} triplets of its edges; "
                              "make the file again")  # fmt: skip
        order = np.argsort(theirs)
        return order[np.searchsorted(theirs, ours, sorter=order)]


def within(values: np.ndarray, most: int) -> bool:
    """Whether whole numbers are at least 0 and below ``most``."""
    return not values.size or (values.min() >= 0 and values.max() < most)


def numbers_of(golden: Golden, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the file as float64 in our shape.

    Raises:
        WeightError: it is something else.
    """
    values = golden.arrays[key]
    if values.dtype.kind not in "fiu" or values.size != np.prod(shape):
        raise WeightError(
            f"{golden.path}: expected {key} of shape {shape}, found {values.dtype} of shape {values.shape}; "
            "make the file again"
        )
    return values.astype(np.float64).reshape(shape)

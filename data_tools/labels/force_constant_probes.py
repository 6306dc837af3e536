"""Products of force constants with probes: columns in a random order, random directions, or waves of warm atoms.

    (1)  (Phi v)_(j b) = sum_(i a) v_(i a) Phi_(i a)(j b)         i runs over the atoms p2s, whose rows are stored

Phi is symmetric, so that a row of it is a column too; v is 0 but on the atoms p2s.  A column is the product with 1 for
one atom along one axis.  A structure of p primitive atoms has 3 p columns: they come in a random order, each once in
3 p draws.  ``columns``, ``directions`` and ``thermal`` have one draw in an epoch, ``rows`` has 3 p: all rows of the
primitive atoms.  The probes of ``thermal`` are on all atoms: see ``thermal_probes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_tools.graph import ForceConstants, Labels
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.compact_force_constants import block_counts
from data_tools.labels.thermal_probes import thermal_probe
from data_tools.tables import cell_volumes

PROBES = ("columns", "directions", "rows", "thermal")


@dataclass(frozen=True)
class ForceConstantProbes:
    """A ``Provider`` of probes (N, 3), the products ``hessian_product`` (N, 3) with them, ``forces`` and ``stress``.

    Forces and stress are 0: force constants belong to a structure at rest.  The stress brings the ``volume``
    (Angstrom^3) along that it belongs to, and a product its ``mass_weight`` (N, 1), of each atom i

        (2)  w_i = m / (sqrt(m_i) |M^1/2 v|)        M: masses of the atoms, m: their mean in the data set

    so that w Phi v = m D u, with D = M^-1/2 Phi M^-1/2, whose eigenvalues are squared frequencies, and the direction
    u = M^1/2 v / |M^1/2 v|.  For a column of the atom j this is m / sqrt(m_i m_j).

    Attributes:
        packed: the data set; its structures of these rows have force constants.
        constants: of its structures, which are multiplied.
        seed: of the probes.
        scale: the products are divided by it.
        kind: one of ``PROBES``; a direction is a normal distribution over the atoms p2s, of length 1.
        quantities: which of the labels are wanted.
    """

    packed: PackedGraphs
    constants: ForceConstants
    seed: int
    scale: float = 1.0
    kind: str = PROBES[0]
    quantities: tuple[str, ...] = ("hessian_product",)

    @cached_property
    def _starts(self) -> tuple[np.ndarray, np.ndarray]:
        """(M,) first primitive atom and first block of each structure."""
        cells, blocks = self.constants.n_primitive, block_counts(self.constants, self.packed.table.n_atoms)
        return np.cumsum(cells) - cells, np.cumsum(blocks) - blocks

    @cached_property
    def _mean_mass(self) -> float:
        return float(np.nanmean(self.constants.masses))

    @cached_property
    def _volumes(self) -> np.ndarray:
        """(M,) of the cells, Angstrom^3."""
        return cell_volumes(self.packed.table)

    def __call__(self, rows: np.ndarray, draws: int | np.ndarray = 0) -> Labels:
        """The labels of some rows, in that order, each at its own draw or all at one."""
        none = np.zeros((0, 3))
        numbers = np.broadcast_to(draws, rows.shape).tolist()
        pairs = [self._pair(row, draw) for row, draw in zip(rows.tolist(), numbers, strict=True)]
        probes = np.concatenate([none, *(probe for probe, _ in pairs)])
        products = np.concatenate([none, *(product for _, product in pairs)]) / self.scale
        of_atoms = {"hessian_product": products, "forces": np.zeros_like(products)}
        of_structures: dict[str, np.ndarray] = {}
        if "stress" in self.quantities:
            of_structures |= {"stress": np.zeros((len(rows), 3, 3)), "volume": self._volumes[rows]}
        of_atoms = {name: of_atoms[name] for name in of_atoms if name in self.quantities}
        return Labels(of_structures, of_atoms | {"mass_weight": self._mass_weights(rows, probes)}, probes)

    def _mass_weights(self, rows: np.ndarray, probes: np.ndarray) -> np.ndarray:
        """(N, 1) equation (2)."""
        masses, sizes = self.constants.masses[self.packed.atoms_of(rows)], self.packed.table.n_atoms[rows]
        lengths = np.add.reduceat(masses * (probes**2).sum(axis=1), np.cumsum(sizes) - sizes) if len(rows) else masses
        return (self._mean_mass / np.sqrt(masses * np.repeat(lengths, sizes)))[:, None]

    def _pair(self, row: int, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Probe and product of a structure, (n, 3) each."""
        n, p = int(self.packed.table.n_atoms[row]), int(self.constants.n_primitive[row])
        atom, block = (int(starts[row]) for starts in self._starts)
        blocks = np.asarray(self.constants.blocks[block : block + p * n]).reshape(p, n, 3, 3)
        if self.kind == "thermal":
            return self._thermal(row, draw, blocks, self.constants.p2s[atom : atom + p])
        weights, probe = self._weights(row, draw, p), np.zeros((n, 3))
        probe[self.constants.p2s[atom : atom + p]] = weights
        used = np.flatnonzero(weights.any(axis=1))
        return probe, np.einsum("ia,ijab->jb", weights[used], blocks[used])  # (1)

    def _thermal(self, row: int, draw: int, blocks: np.ndarray, p2s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probe and product of ``thermal_probe``, a function of (seed, draw, row)."""
        table, atoms = self.packed.table, self.packed.atoms_of(np.array([row]))
        assert table.cells is not None  # there are force constants
        positions, s2p = table.positions[atoms], self.constants.s2p[atoms]
        places = np.zeros(len(atoms), np.int64)
        places[p2s] = np.arange(len(p2s))
        in_primitive = np.linalg.inv(self.constants.primitive_cells[row])
        translations = np.rint((positions - positions[s2p]) @ in_primitive)
        supercell = np.rint(table.cells[row] @ in_primitive)
        random = np.random.default_rng([self.seed, row, draw])
        return thermal_probe(blocks, translations, places[s2p], self.constants.masses[atoms][p2s], supercell, random)

    def _weights(self, row: int, draw: int, p: int) -> np.ndarray:
        """(p, 3) the probe on the atoms p2s, a function of (seed, draw, row)."""
        if self.kind == "directions":
            normal = np.random.default_rng([self.seed, row, draw]).normal(size=(p, 3))
            return normal / np.linalg.norm(normal)
        turn, place = divmod(draw, 3 * p)
        order = np.random.default_rng([self.seed, row, turn]).permutation(3 * p)
        weights = np.zeros(3 * p)
        weights[order[place]] = 1.0
        return weights.reshape(p, 3)

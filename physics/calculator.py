"""The ASE calculator of a trained model: energies (eV), forces (eV/Angstrom) and exact Hessians (eV/Angstrom^2).

    (1)  E = scale o + offset           o: output of the network, the law of ``data_tools.statistics.Normalizer``
    (2)  F = scale (-do/dr)             H = scale d2o/dr2, both from ``physics.derivatives``

Neighbour lists are found with a skin around the cutoff and kept while atoms move: as long as no atom is further than
half the skin from where the list was made, no pair outside the list can be closer than the cutoff.  Before every call
the pairs beyond the true cutoff are left out, for the envelopes of the models are not 0 there.  The rest is padded to a
shape with some room, so that atoms can move, and structures of one size can follow each other, without a compilation.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.data import chemical_symbols
from mindspore import Tensor, nn

from data_tools.batching import GHOST_EDGES, build_graph, join, pad, with_triplets
from data_tools.graph import AtomGraph, Budget, DataError, GraphInputs, Structure
from data_tools.statistics import Normalizer, element_counts
from physics.derivatives import EnergyAndForces, HessianProduct, hessian

log = logging.getLogger("geospore")
SKIN = 0.4  # Angstrom
ROOM = 1.1  # edges of a shape over the edges it was made for; triplets grow as the square of the neighbours
ROUND_NODES, ROUND_EDGES, ROUND_TRIPLETS = 8, 64, 256


class SkinList:
    """The graph of a structure whose atoms move little between two calls.

    Args:
        cutoff: Angstrom.
        skin: Angstrom; more means fewer searches, and more pairs to look through at each call.
        triplets: whether the model uses them; they are listed at each call, from the edges shorter than the cutoff.

    Attributes:
        searches: how many times the neighbours were searched for.

    Raises:
        ValueError: a negative skin.
    """

    def __init__(self, cutoff: float, skin: float, triplets: bool = False):
        if not 0 <= skin < np.inf:
            raise ValueError(f"skin {skin}: expected 0 Angstrom or more")
        self.cutoff, self.skin, self.triplets = cutoff, skin, triplets
        self.searches = 0
        self.origin: Structure | None = None
        self.candidates: AtomGraph | None = None

    def __call__(self, structure: Structure) -> AtomGraph:
        """Every edge shorter than the cutoff, as ``build_graph`` returns them.

        Raises:
            DataError: two atoms coincide, or a cell that is none.
        """
        if self.candidates is None or not self._still_holds(structure):
            self.candidates = build_graph(structure, self.cutoff + self.skin)
            self.origin = structure
            self.searches += 1
        found, positions = self.candidates, structure.positions
        half = len(found.senders) // 2
        vectors = positions[found.senders[:half]] + found.shifts[:half] - positions[found.receivers[:half]]  # (P, 3)
        near = np.flatnonzero((vectors * vectors).sum(-1) < self.cutoff**2)
        edges = np.concatenate((near, near + half))  # the reverse of an edge stands half the list behind it
        graph = dataclasses.replace(
            found,
            positions=positions,
            senders=found.senders[edges],
            receivers=found.receivers[edges],
            shifts=found.shifts[edges],
        )
        return with_triplets(graph) if self.triplets else graph

    def _still_holds(self, structure: Structure) -> bool:
        """Whether the candidates are all pairs that can be within the cutoff: two atoms may each use half the skin."""
        origin = self.origin
        if origin is None or not np.array_equal(origin.numbers, structure.numbers):
            return False
        if (origin.cell is None) != (structure.cell is None):
            return False
        if origin.cell is not None and structure.cell is not None and not np.array_equal(origin.cell, structure.cell):
            return False
        moved = structure.positions - origin.positions
        return float((moved * moved).sum(-1).max()) <= (self.skin / 2) ** 2


class Calculator(AseCalculator):
    """Energies, forces and Hessians of a potential energy that a model has learned, for ``atoms.calc``.

    Molecules (pbc all False) and crystals (pbc all True).  ``energy`` and ``free_energy`` (the same number) in eV and
    ``forces`` (N, 3) in eV/Angstrom come from one compiled call.  ``hessian``, by ``get_hessian`` or
    ``get_property("hessian")``, is (3N, 3N) in eV/Angstrom^2, row 3 i + a for axis a of atom i, exact for the model and
    symmetric to rounding; for ethanol, float32 is off by 1e-6 of the largest element.  There is no stress.

    Args:
        model: graph inputs to (G,) outputs; its parameters decide whether it computes in float32 or float64.
        normalizer: takes outputs to total energies in eV.
        elements: atomic numbers that the model has learned.
        cutoff: of the model, Angstrom.
        skin: of the neighbour lists, Angstrom; 0 makes a list at every call.
        triplets: whether the model uses them.

    Attributes:
        neighbors: the list in use; ``neighbors.searches`` counts how many were made.

    Raises:
        ValueError: a negative skin.
    """

    name = "geospore"
    implemented_properties = ["energy", "free_energy", "forces", "hessian"]  # noqa: RUF012  as ASE declares it
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: nn.Cell,
        normalizer: Normalizer,
        elements: Sequence[int],
        cutoff: float,
        skin: float = SKIN,
        triplets: bool = False,
    ):
        super().__init__()
        model.set_train(False)
        self.normalizer, self.cutoff = normalizer, cutoff
        self.elements = [number for number in elements if np.isfinite(normalizer.references[number])]
        self.dtype = model.trainable_params()[0].asnumpy().dtype.type
        self.neighbors = SkinList(cutoff, skin, triplets)
        self.energy_and_forces = EnergyAndForces(model)
        self.product = HessianProduct(model)
        self.budgets: dict[int, Budget] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Put what is asked for, and energy and forces in any case, into ``results``.

        Raises:
            DataError: an element that the model has not learned, a structure that is periodic in some directions only,
                no atoms, coinciding atoms, positions that are not finite, or a cell that is none.
        """
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}
        missing = [name for name in ("energy", *properties) if name not in self.results]
        if not missing:
            return
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise DataError("there are no atoms yet: set atoms.calc, or pass the atoms")
        inputs, count = self._inputs(atoms), len(atoms)
        if "energy" in missing:
            outputs, forces = self.energy_and_forces(*(Tensor.from_numpy(array) for array in inputs))
            counts = element_counts(atoms.numbers, np.array([count]))
            energy = float(self.normalizer.invert(outputs.asnumpy()[:1], counts)[0])  # (1)
            self.results["energy"] = self.results["free_energy"] = energy
            self.results["forces"] = forces.asnumpy()[:count].astype(np.float64) * self.normalizer.scale  # (2)
        if "hessian" in missing:
            rows = hessian(self.product, inputs).reshape(3 * count, 3 * count)
            self.results["hessian"] = rows.astype(np.float64) * self.normalizer.scale  # (2)

    def get_hessian(self, atoms: Atoms | None = None) -> np.ndarray:
        """The Hessian (3N, 3N) of ``atoms``, or of those last computed, eV/Angstrom^2; it may be changed freely."""
        return self.get_property("hessian", atoms)

    def _inputs(self, atoms: Atoms) -> GraphInputs:
        """The padded graph of a structure.

        Raises:
            DataError: see ``calculate``.
        """
        graph = self.neighbors(self._structure(atoms))
        # far from the origin float32 would lose digits, and energies do not depend on where a structure is
        centred = dataclasses.replace(graph, positions=graph.positions - graph.positions.mean(axis=0))
        return pad(join([centred]), self._budget(graph), self.cutoff, self.dtype).inputs

    def _structure(self, atoms: Atoms) -> Structure:
        """The atoms as the rest of the project knows them.

        Raises:
            DataError: see ``calculate``.
        """
        if not len(atoms) or not np.isfinite(atoms.positions).all():
            raise DataError(f"expected atoms at finite positions, got {atoms.symbols or 'none'}; check the structure")
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.elements))
        if unknown:
            raise DataError(
                f"{atoms.symbols}: the model has not learned {', '.join(chemical_symbols[z] for z in unknown)}, only "
                f"{', '.join(chemical_symbols[z] for z in self.elements)}; use a model that was trained with it"
            )
        if atoms.pbc.any() and not atoms.pbc.all():
            raise DataError(
                f"{atoms.symbols}: expected a molecule (pbc False) or a crystal (pbc True), got pbc "
                f"{atoms.pbc.tolist()}; for a slab or a wire set pbc to True with vacuum wider than the cutoff "
                f"of {self.cutoff:g} Angstrom"
            )
        cell = np.array(atoms.cell) if atoms.pbc.all() else None
        name = f"structure of {len(atoms)} atoms"  # a formula would take longer than the list of pairs
        return Structure(atoms.numbers.astype(np.int32), atoms.get_positions(), cell, name)

    def _budget(self, graph: AtomGraph) -> Budget:
        """The shape for a graph: one for each rounded number of atoms, enlarged when a graph does not fit."""
        nodes = _round_up(len(graph.numbers) + 1, ROUND_NODES)  # one more: the ghosts need a node
        edges, triplets = max(1, len(graph.senders)), len(graph.triplet_in)  # tensors must not be empty
        if self.neighbors.triplets:
            edges, triplets = edges + GHOST_EDGES, max(1, triplets)
        budget = self.budgets.get(nodes, Budget(nodes, 0, 0, 2))
        if edges > budget.edges or triplets > budget.triplets:
            enlarged = Budget(
                nodes,
                max(budget.edges, _round_up(ROOM * edges, ROUND_EDGES)),
                max(budget.triplets, _round_up(ROOM**2 * triplets, ROUND_TRIPLETS)),
                2,
            )
            atoms = len(graph.numbers)
            log.debug("calculator: %d atoms with %d edges: from shape %s to %s", atoms, edges, budget, enlarged)
            budget = self.budgets[nodes] = enlarged
        return budget


def _round_up(number: float, step: int) -> int:
    """The smallest multiple of ``step`` that is not below ``number``."""
    return int(-(-number // step)) * step

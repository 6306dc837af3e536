"""The ASE calculator of a trained model: energies, forces, stress and exact Hessians in eV and Angstrom.

    (1)  E = scale o + offset           o: output of the network, the law of ``data_tools.labels.statistics.Normalizer``
    (2)  F = scale (-do/dr)             H = scale d2o/dr2, both from ``physics.derivatives``
    (3)  stress = scale (-W) / V        W: virial of o, V: volume of the cell; positive in tension

Neighbour lists are kept while atoms move, see ``physics.skin_list``.  Graphs are padded to a shape with some room, so
that atoms can move, and structures of one size can follow each other, without a compilation.

What a structure is outside of the range that the model has learned is compared by ``data_tools.coverage.outside``
whenever neighbours are searched for, and whenever two atoms come too close.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from mindspore import Tensor, nn

from data_tools.coverage.learned_range import LearnedRange
from data_tools.coverage.observed import Observed
from data_tools.coverage.outside import findings
from data_tools.graph import AtomGraph, Budget, DataError, Structure
from data_tools.graphs.batching import GHOST_EDGES, join, pad
from data_tools.labels.statistics import Normalizer, element_counts
from physics.derivatives import Compiled, HessianProduct, observables
from physics.hessian import exact_rows
from physics.skin_list import SkinList

log = logging.getLogger("geospore")
SKIN = 0.4  # Angstrom
ROOM = 1.1  # edges of a shape over the edges it was made for; triplets grow as the square of the neighbours
ROUND_NODES, ROUND_EDGES, ROUND_TRIPLETS = 8, 64, 256
#: what a pickled calculator leaves behind and makes again when it is used
COMPILED = ("energy_and_forces", "with_virial", "product")
SHARED = frozenset({*COMPILED, "normalizer", "learned", "recipe"})  # by copies within the process
#: what was compiled for calculators that were pickled together
MADE: weakref.WeakKeyDictionary[Callable, dict[str, Any]] = weakref.WeakKeyDictionary()
RUNNING = threading.RLock()  # a compiled cell chooses its graph and then runs it: one thread at a time


class OutsideWarning(UserWarning):
    """A structure that is outside of what a model has learned."""


class UndeterminedEnergy(DataError, PropertyNotImplementedError):  # noqa: N818  a state of the property
    """The energy of a composition for which training gives no reference; forces and Hessians do not need one."""


class ForkError(RuntimeError):
    """A calculator in a forked process, where MindSpore would wait forever for threads that only the parent has."""


class Calculator(AseCalculator):
    """Energies, forces and Hessians of a potential energy that a model has learned, for ``atoms.calc``.

    Molecules (pbc all False) and crystals (pbc all True).  ``energy`` and ``free_energy`` (the same number) in eV,
    ``forces`` (N, 3) in eV/Angstrom and, of crystals, ``stress`` (6,) in eV/Angstrom^3 come from one compiled call.
    The stress has ASE's order (xx, yy, zz, yz, xz, xy) and sign; a slab's is that of its cell, vacuum included.
    ``hessian``, by ``get_hessian`` or ``get_property("hessian")``, is (3N, 3N) in eV/Angstrom^2, row 3 i + a for axis a
    of atom i, exact for the model and symmetric to rounding; for ethanol, float32 is off by 1e-6 of the largest
    element.

    A structure outside of what the model has learned is an ``OutsideWarning``, once for each kind.  A composition for
    which training gives no reference energy has forces and a Hessian, but no energy.

    A copy (``copy.deepcopy``, also of atoms) shares the compiled model.  A pickled calculator brings its weights along,
    and compiles when it is used; a forked process cannot use MindSpore.

    Args:
        model: graph inputs to (G,) outputs; its parameters decide whether it computes in float32 or float64.
        normalizer: takes outputs to total energies in eV.
        elements: atomic numbers that the model has learned.
        cutoff: of the model, Angstrom.
        skin: of the neighbour lists, Angstrom; 0 makes a list at every call.
        triplets: whether the model uses them.
        learned: what the training structures covered; None where that is unknown.
        recipe: makes this calculator again in another process.

    Attributes:
        neighbors: the list in use; ``neighbors.searches`` counts how many were made.
        outside: what of the last structure is outside of what was learned: kind to words; see
            ``data_tools.coverage.outside``.

    Raises:
        ValueError: a negative skin.
    """

    name = "geospore"
    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  as ASE declares it
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: nn.Cell,
        normalizer: Normalizer,
        elements: Sequence[int],
        cutoff: float,
        skin: float = SKIN,
        triplets: bool = False,
        learned: LearnedRange | None = None,
        recipe: Callable[[], Calculator] | None = None,
    ):
        super().__init__()
        model.set_train(False)
        self.normalizer, self.cutoff = normalizer, cutoff
        self.elements = [number for number in elements if np.isfinite(normalizer.references[number])]
        self.dtype = model.trainable_params()[0].asnumpy().dtype.type
        self.neighbors = SkinList(cutoff, skin, triplets)
        self.energy_and_forces = Compiled(model, observables(model, ("energy", "forces")))
        self.with_virial = Compiled(model, observables(model, ("energy", "forces", "virial")))
        self.product = HessianProduct(model)
        self.budgets: dict[int, Budget] = {}
        self.learned, self.recipe, self.process = learned, recipe, os.getpid()
        self.outside: dict[str, str] = {}
        self.told: set[str] = set()
        self.compared: tuple = ()
        self.last_hessian: np.ndarray | None = None  # not among the results, which ASE copies and writes by name

    def __deepcopy__(self, memo: dict[int, Any]) -> Calculator:
        """A calculator with results and neighbour lists of its own."""
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        for name, value in vars(self).items():
            setattr(made, name, value if name in SHARED else copy.deepcopy(value, memo))
        return made

    def __copy__(self) -> Calculator:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        if self.recipe is None:
            raise TypeError("this calculator was made from a model in memory: pickle one that load_calculator has made")
        return {name: value for name, value in vars(self).items() if name not in COMPILED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, process=os.getpid())  # not compiled before it is used: many copies never are

    def __getattr__(self, name: str) -> Any:
        """What was left behind when this calculator was pickled."""
        recipe = vars(self).get("recipe")
        if name not in COMPILED or recipe is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        if recipe not in MADE:
            made = recipe()
            MADE[recipe] = {one: getattr(made, one) for one in COMPILED}
        vars(self).update(MADE[recipe])
        return vars(self)[name]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Put what is asked for, and energy, forces and the stress of a crystal in any case, into ``results``.

        Raises:
            DataError: an element that the model has not learned, a structure that is periodic in some directions only,
                no atoms, coinciding atoms, positions that are not finite, or a cell that is none.
            UndeterminedEnergy: an energy is asked for and training gives no reference; the forces are there then.
            PropertyNotImplementedError: the stress of a molecule is asked for.
            ForkError: this process is a fork of the one that has loaded the model.
        """
        if os.getpid() != self.process:
            raise ForkError(
                "this calculator belongs to the process from which this one was forked, and MindSpore hangs in a fork: "
                'start processes with the method "spawn" (multiprocessing.get_context("spawn")), or load the '
                "calculator in the new process only"
            )
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results, self.last_hessian = {}, None
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise DataError("there are no atoms yet: set atoms.calc, or pass the atoms")
        wants_hessian = "hessian" in properties and self.last_hessian is None
        if "forces" not in self.results or wants_hessian:
            self._evaluate(atoms, wants_hessian)
        if "energy" not in self.results and {"energy", "free_energy"} & set(properties):
            raise UndeterminedEnergy(
                f"{atoms.symbols}: training gives no reference energy for this composition, its energy would lack a "
                "constant; use the forces alone, or a model that was trained on molecules of this composition too"
            )
        if "stress" in properties and "stress" not in self.results:
            raise PropertyNotImplementedError(f"{atoms.symbols}: a molecule has no stress; give it a cell and pbc True")

    def _evaluate(self, atoms: Atoms, wants_hessian: bool) -> None:
        """Energy, forces, stress of a crystal and, where asked for, the Hessian."""
        graph, count, periodic = self._graph(atoms), len(atoms), bool(atoms.pbc.all())
        budget = self._budget(graph)
        if "forces" not in self.results:
            inputs = pad(join([graph]), budget, self.cutoff, self.dtype).inputs
            derive = self.with_virial if periodic else self.energy_and_forces
            with RUNNING:
                outputs, forces, *virials = derive(*(Tensor.from_numpy(array) for array in inputs))
            if "composition" not in self.outside:
                counts = element_counts(atoms.numbers, np.array([count]))
                energy = float(self.normalizer.invert(outputs.asnumpy()[:1], counts)[0])  # (1)
                self.results["energy"] = self.results["free_energy"] = energy
            self.results["forces"] = forces.asnumpy()[:count].astype(np.float64) * self.normalizer.scale  # (2)
            if periodic:
                virial = virials[0].asnumpy()[0].astype(np.float64) * self.normalizer.scale
                self.results["stress"] = full_3x3_to_voigt_6_stress(-virial / atoms.get_volume())  # (3)
        if wants_hessian:
            sizes = np.array([[count, budget.edges, budget.triplets]])  # atoms may move without another shape
            with RUNNING:
                (rows,) = exact_rows(self.product, [graph], self.cutoff, self.dtype, sizes=sizes).arrays()
            self.last_hessian = rows.reshape(3 * count, 3 * count).astype(np.float64) * self.normalizer.scale  # (2)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As ASE has it, and ``hessian`` besides."""
        if name != "hessian":
            return super().get_property(name, atoms, allow_calculation)
        changes = [] if atoms is None else self.check_state(atoms)
        if changes:
            self.reset()
        if self.last_hessian is None and allow_calculation:
            self.calculate(atoms, [name], changes)
        return None if self.last_hessian is None else self.last_hessian.copy()

    def get_hessian(self, atoms: Atoms | None = None) -> np.ndarray:
        """The Hessian (3N, 3N) of ``atoms``, or of those last computed, eV/Angstrom^2; it may be changed freely."""
        return self.get_property("hessian", atoms)

    def reset(self) -> None:
        """Forget what was computed."""
        super().reset()
        self.last_hessian = None

    def _compare(self, atoms: Atoms, graph: AtomGraph) -> None:
        """Note what of a structure is outside of what was learned, and warn once of each kind."""
        if self.learned is None:
            return
        half = len(graph.senders) // 2
        receivers, senders = graph.receivers[:half], graph.senders[:half]
        vectors = graph.positions[senders] + graph.shifts[:half] - graph.positions[receivers]
        distances = np.sqrt((vectors * vectors).sum(-1))
        charge, unpaired = _charge_and_unpaired(atoms)
        state = (self.neighbors.searches, charge, unpaired)
        close = bool((distances < self.learned.closest[graph.numbers[receivers], graph.numbers[senders]]).any())
        if state == self.compared and close == ("close" in self.outside):
            return
        self.compared = state
        found = Observed(
            graph.numbers, np.array([len(graph.numbers)]), receivers, senders, distances, np.array([atoms.pbc.all()]),
            np.array([charge], np.float64), np.array([unpaired], np.float64),
        )  # fmt: skip
        self.outside = {finding.kind: finding.words for finding in findings(self.learned, found)}
        for kind, words in self.outside.items():
            if kind not in self.told:
                self.told.add(kind)
                outside = f"{atoms.symbols} is outside of what the model has learned: {words}"
                warnings.warn(outside, OutsideWarning, stacklevel=2)

    def _graph(self, atoms: Atoms) -> AtomGraph:
        """The graph of a structure.

        Raises:
            DataError: see ``calculate``.
        """
        graph = self.neighbors(self._structure(atoms))
        self._compare(atoms, graph)
        # far from the origin float32 would lose digits, and energies do not depend on where a structure is
        return dataclasses.replace(graph, positions=graph.positions - graph.positions.mean(axis=0))

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


def _charge_and_unpaired(atoms: Atoms) -> tuple[float | None, float | None]:
    """The total charge and the unpaired electrons that atoms have been given; None where they have not."""
    charge, unpaired = atoms.info.get("charge"), None
    if not isinstance(charge, int | float | np.number):
        charge = atoms.get_initial_charges().sum() if atoms.has("initial_charges") else None
    if atoms.has("initial_magmoms"):
        unpaired = float(np.abs(atoms.get_initial_magnetic_moments().sum()))
    return None if charge is None else float(charge), unpaired


def _round_up(number: float, step: int) -> int:
    """The smallest multiple of ``step`` that is not below ``number``."""
    return int(-(-number // step)) * step

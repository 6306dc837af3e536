"""Where the force constants of a crystal come from: a checkpoint, a calculator of ASE, or a file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.graph import DataError
from data_tools.progress_bar import track
from data_tools.source_files import one_line, sha256_of
from physics.energy_checks import atoms_of
from physics.finite_displacements import DISTANCE, blocks_of_forces, displaced_cells

SAMPLES = Path(__file__).parents[1] / "data_tools" / "samples"


class Potential(NamedTuple):
    """A calculator of ASE, and what is said of it.

    Attributes:
        calculator: of ASE; this project's own where ``exact``; None of models of force constants themselves.
        name: for the page.
        cutoff: Angstrom; None: unknown.
        exact: whether it has second derivatives.
        members: this project's calculators whose mean it is, itself alone if it is one of them, or models of force
            constants themselves; none of others.
        card: what is known of how good it is; empty: nothing.
    """

    calculator: Any
    name: str
    cutoff: float | None
    exact: bool
    members: tuple[Any, ...] = ()
    card: Mapping[str, Any] = {}


class Blocks(NamedTuple):
    """Force constants of a potential.

    Attributes:
        blocks: (p, n, 3, 3) eV/Angstrom^2.
        method: in words how they were computed.
        spread: (p, n, 3, 3) standard deviation over the members, eV/Angstrom^2; None of a single one.
    """

    blocks: np.ndarray
    method: str
    spread: np.ndarray | None = None


def potential_of_class(text: str) -> Potential:
    """The calculator ``module:Class``, made without arguments.

    Raises:
        ConfigError: there is no such class, or it cannot be made.
    """
    module, colon, name = text.partition(":")
    if not (colon and module and name):
        raise ConfigError(f"--calculator {text}: expected module:Class, for example ase.calculators.emt:EMT")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a file of the user's own
    try:
        calculator = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise ConfigError(
            f"--calculator {text}: expected a class of an installed module that needs no arguments, got "
            f"{type(error).__name__}: {one_line(error)[:200]}; install it for {sys.executable}, or write a class that "
            "needs none"
        ) from None
    if not callable(getattr(calculator, "get_forces", None)):
        raise ConfigError(f"--calculator {text}: expected a calculator of ASE, got {type(calculator).__name__}")
    parameters = getattr(calculator, "parameters", None) or {}
    cutoff = getattr(calculator, "cutoff", None) or parameters.get("rc")
    return Potential(calculator, text, float(cutoff) if isinstance(cutoff, int | float) else None, exact=False)


def potential_of_checkpoints(
    paths: Sequence[str], overrides: Sequence[tuple[str, str]] = (), dtype: str = "float64"
) -> Potential:
    """The calculator of a checkpoint, or of the best one of a run folder, or the mean of several.

    With a model of force constants themselves among them there is no energy.

    Args:
        paths: files or folders.
        overrides: ``(section.key, text)`` pairs that change the configuration in the checkpoint.
        dtype: of the arithmetic.

    Raises:
        DataError: the model predicts neither energies nor force constants.
        ConfigError: one is given more than once; and as ``experiment.trained.load_calculator``.
        CheckpointError, DeviceError: as that.
    """
    from experiment.trained import DirectProducts, load_products  # noqa: PLC0415  MindSpore takes seconds
    from physics.several_potentials import mean_of  # noqa: PLC0415  which others need not wait

    check_different(paths)
    members = tuple(load_products(paths, dtype, overrides))
    cutoff = max(float(member.cutoff) for member in members)
    calculators = [member for member in members if not isinstance(member, DirectProducts)]
    calculator = mean_of(calculators) if len(calculators) == len(members) else None
    cards = [_information(member).get("card", {}) for member in members]
    same = all(card == cards[0] for card in cards)  # of these members together
    names = [Path(path).name if Path(path).parent == SAMPLES else str(path) for path in paths]
    return Potential(calculator, ", ".join(names), cutoff, True, members, cards[0] if same else {})


def check_different(paths: Sequence[str]) -> None:
    """Refuse a potential that is given twice: the spread between several says how far to trust them.

    Raises:
        ConfigError: two files are equal.
        CheckpointError: there is none.
    """
    from training.checkpoint import find  # noqa: PLC0415  as above

    seen: dict[str, str] = {}
    for path in map(str, paths):
        digest = sha256_of(find(path))
        if digest in seen:
            raise ConfigError(
                f"--ckpt {path}: expected potentials that differ, got {seen[digest]} again; leave one out"
            )
        seen[digest] = path


def _information(member: Any) -> Mapping[str, Any]:
    """What the checkpoint of a member says about itself."""
    return member.information if hasattr(member, "information") else member.recipe.checkpoint.information


def shipped() -> list[str]:
    """The potentials of force constants that ship with the project.

    Raises:
        ConfigError: they are not there.
    """
    files = sorted(SAMPLES.glob("phonons_*.safetensors"))
    if not files:
        raise ConfigError(f"{SAMPLES}: expected phonons_*.safetensors; give --ckpt, --calculator or --force_constants")
    return [str(file) for file in files]


def largest_force(crystal: Crystal, potential: Potential) -> float:
    """The largest force on an atom of the supercell, eV/Angstrom; 0 at a minimum of the energy, NaN without energies.

    Raises:
        DataError: the calculator cannot compute this crystal, or a model has not learned its elements.
    """
    if potential.calculator is None:
        for member in potential.members:
            _check_elements(crystal, member, potential.name)
        return np.nan
    forces = _forces(potential, atoms_of(crystal.supercell, potential.calculator))
    return float(np.linalg.norm(forces, axis=1).max())


def blocks_of(crystal: Crystal, potential: Potential, progress: bool = False) -> Blocks:
    """Compact force constants, of several potentials their mean.

    Args:
        crystal: its supercell; its blocks are not read.
        potential: whose second derivatives they are.
        progress: whether to report it on stderr.

    Raises:
        DataError: the calculator cannot compute this crystal.
    """
    if potential.exact:
        found = np.stack([_exact(crystal, member, progress) for member in potential.members])
        several = len(found) > 1
        words = "exact second derivatives" if potential.calculator is not None else "predicted without an energy"
        words = f"{words}{f' of the mean of {len(found)} potentials' if several else ''}"
        return Blocks(found.mean(axis=0), words, found.std(axis=0, ddof=1) if several else None)
    displaced = displaced_cells(crystal)
    atoms = atoms_of(crystal.supercell, potential.calculator)
    forces = np.empty(displaced.positions.shape)
    places = range(len(displaced.atoms))
    for place in track(places, "force constants", "displacements", len(places), progress):
        atoms.positions[:] = displaced.positions[place]
        forces[place] = _forces(potential, atoms)
    count = f"{len(places)} displacement{'s' if len(places) > 1 else ''}"
    words = f"differences of forces for {count} of {DISTANCE:g} Angstrom"
    return Blocks(blocks_of_forces(crystal, displaced, forces, symmetrisations=0), words)


def _check_elements(crystal: Crystal, member: Any, name: str) -> None:
    """Refuse elements that a model has not learned.

    Raises:
        DataError: there are some.
    """
    from data_tools.dataset import symbols  # noqa: PLC0415  as above

    unknown = sorted(set(crystal.supercell.numbers.tolist()) - set(member.elements))
    if unknown:
        raise DataError(
            f"{crystal.name}: {name} has not learned {symbols(unknown)}, only {symbols(member.elements)}; "
            "use a model that was trained with it"
        )


def _exact(crystal: Crystal, calculator: Any, progress: bool) -> np.ndarray:
    from physics.hessian import exact_rows  # noqa: PLC0415  as above

    graph = calculator.neighbors(crystal.supercell)
    rows = exact_rows(
        calculator.product, [graph], calculator.cutoff, calculator.dtype, [crystal.p2s.tolist()], progress=progress
    )
    (blocks,) = rows.arrays()  # (p, 3, n, 3)
    return blocks.transpose(0, 2, 1, 3).astype(np.float64) * calculator.normalizer.scale


def _forces(potential: Potential, atoms: Any) -> np.ndarray:
    """Forces in eV/Angstrom, finite.

    Raises:
        DataError: the calculator fails.
    """
    try:
        forces = np.array(atoms.get_forces(), np.float64)
    except DataError:
        raise
    except Exception as error:  # of whatever calculator
        raise DataError(
            f"{potential.name}: expected forces on {atoms.symbols}, the calculator fails ({type(error).__name__}: "
            f"{one_line(error)[:200]}); use one for these elements"
        ) from None
    if forces.shape != (len(atoms), 3) or not np.isfinite(forces).all():
        raise DataError(
            f"{potential.name}: expected finite forces on {atoms.symbols}, the calculator gives others; check its unit "
            "and its range"
        )
    return forces

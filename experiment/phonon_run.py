"""Everything that a phonon report tells of one crystal, computed.

cells -> (relaxation) -> force constants -> checks, raw and projected -> frequencies, with a reference beside them
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.formats.cell_files import (
    brings_supercell,
    crystal_of_setting,
    read_blocks,
    read_cell,
    structure_of,
    with_structure,
    with_supercell,
)
from data_tools.formats.phonopy_cells import Setting
from data_tools.formats.phonopy_files import read_born
from data_tools.graph import DataError
from experiment.phonon_source import Blocks, Potential, blocks_of, largest_force
from physics.checks import Check, check_blocks
from physics.energy_checks import check_differences, check_energy
from physics.force_constants import projected
from physics.minimum_image import MinimumImages, minimum_images
from physics.phonon_spectra import Bands, DensityOfStates, band_structure, density_of_states
from physics.phonons import Mesh, Stability, mesh_frequencies, stability
from physics.relaxation import FMAX, STEPS, Relaxed, relax
from physics.supercells import (
    in_a_box,
    polar_without_charges,
    repetitions,
    rounded_symmetry,
    small_supercell,
    space_group,
)
from physics.thermal import Thermal, thermal

TEMPERATURES = np.arange(0.0, 1001.0, 10.0)  # K
MESH_LENGTH = 40.0  # Angstrom: points of the mesh along a reciprocal lattice vector times the length of a cell
LEAST_POINTS = 6
SYMMETRIC = 0.01  # relative deviation from the space group up to which a mesh is reduced by it


class Request(NamedTuple):
    """What is asked for.

    Attributes:
        structure: file of the cell.
        supercell: repetitions along the lattice vectors; None: those of the file, or where it has none as many as make
            it wide enough.
        potential: whose force constants; None: those of ``force_constants``.
        force_constants: file; None: computed.
        relaxed: relax the structure first.
        fmax, steps: of the relaxation.
        born: file of Born charges; None: no non-analytical term.
        reference: file of force constants to compare with; None: none.
        project: compute phonons from projected force constants.
        progress: report it on stderr.
    """

    structure: Path
    supercell: tuple[int, int, int] | None = None
    potential: Potential | None = None
    force_constants: Path | None = None
    relaxed: bool = False
    fmax: float = FMAX
    steps: int = STEPS
    born: Path | None = None
    reference: Path | None = None
    project: bool = False
    progress: bool = False


@dataclass(frozen=True)
class Phonons:
    """What follows from one set of force constants.

    Attributes:
        crystal: with them.
        stability: from the 6 x 6 x 6 mesh, without the non-analytical term.
        bands, density, thermal: with it, where there are Born charges.
        mesh: from which the density and thermal properties are made.
    """

    crystal: Crystal
    stability: Stability
    bands: Bands
    density: DensityOfStates
    mesh: Mesh
    thermal: Thermal


@dataclass
class PhononRun:
    """What was asked for and what came of it.

    Attributes:
        request: what was asked for.
        setting: the cells of the force constants.
        raw: the crystal with its force constants as they are.
        projected: with the space group, exchange symmetry and sum rule.
        method: how the force constants were made, in words.
        images: of the crystal.
        phonons: of the raw force constants, or of the projected ones where that was asked for.
        reference: of those to compare with, as they are.
        checks: of ``raw`` and ``projected``, and of the ``reference``.
        energy_checks: of the potential.
        relaxed: what the relaxation has led to.
        force: the largest on an atom at this geometry, eV/Angstrom; NaN without a potential.
        spread: (p, n, 3, 3) standard deviation over several potentials, eV/Angstrom^2; None of a single one.
        warnings: one line each.
        seconds: of each part.
    """

    request: Request
    setting: Setting
    raw: Crystal
    projected: Crystal
    method: str
    images: MinimumImages
    phonons: Phonons
    reference: Phonons | None
    checks: dict[str, list[Check]]
    energy_checks: list[Check]
    relaxed: Relaxed | None
    force: float
    spread: np.ndarray | None
    warnings: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


class _Clock:
    """Seconds of the parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def run_phonons(request: Request, say: Callable[[str], None]) -> PhononRun:
    """Compute all of it; mistakes in what files say come before anything that takes time.

    Args:
        request: what is asked for.
        say: takes the warnings, one line each, when they are known.

    Raises:
        DataError, ConfigError: one line on what is wrong.
    """
    clock, warnings = _Clock(), _Warnings(say)
    original = _setting(request)
    reference = _reference(request, original)
    start = crystal_of_setting(original)
    _check_crystal(request, original)
    warnings(rounded_symmetry(structure_of(original)))
    warnings(small_supercell(start, request.potential.cutoff if request.potential else None))
    if request.born is None:
        warnings(polar_without_charges(start))
    else:
        read_born(request.born, start)  # a mistake in it comes first
    if request.potential is not None:
        largest_force(start, request.potential)  # so does an element that it does not know
    with clock("relaxation"):
        setting, relaxed = _relaxed(request, original, warnings)
    with clock("force constants"):
        raw, method, spread = _raw(request, setting, start if relaxed is None else crystal_of_setting(setting))
    if request.born is not None:
        born, dielectric = read_born(request.born, raw)
        raw = dataclasses.replace(raw, born=born, dielectric=dielectric)
    with clock("checks"):
        images, after = minimum_images(raw), projected(raw)
        checks = {"raw": check_blocks(raw, images), "projected": check_blocks(after, images)}
        if reference is not None:
            checks["reference"] = check_blocks(reference)
        force, of_energy = _of_potential(request, raw)
    with clock("phonons"):
        phonons = phonons_of(after if request.project else raw, checks["raw"])
        compared = None
        if reference is not None:
            if raw.born is not None:
                reference = dataclasses.replace(reference, born=raw.born, dielectric=raw.dielectric)
            compared = phonons_of(reference, checks["reference"])
            if compared.bands.labels != phonons.bands.labels:
                warnings(f"{raw.name}: the reference has another path in the Brillouin zone; its bands are not drawn")
    return PhononRun(
        request, setting, raw, after, method, images, phonons, compared, checks, of_energy, relaxed, force,
        spread, warnings.lines, clock.seconds,
    )  # fmt: skip


def check_cells(request: Request) -> None:
    """Refuse what the file of the structure says, before a potential is loaded.

    Raises:
        DataError, ConfigError: as ``run_phonons``.
    """
    crystal_of_setting(_setting(request))


def phonons_of(crystal: Crystal, checks: list[Check]) -> Phonons:
    """Frequencies and what follows from them.

    Args:
        crystal: with force constants; with Born charges the non-analytical term is added.
        checks: of the force constants: a mesh is reduced by the space group only where they have it.
    """
    nac = crystal.born is not None and crystal.dielectric is not None
    symmetric = next(one for one in checks if one.name == "space_group").relative <= SYMMETRIC
    points = mesh_points(crystal.primitive_cell)
    mesh = mesh_frequencies(crystal, points, nac=nac, symmetry=symmetric)
    return Phonons(
        crystal,
        stability(crystal, symmetry=symmetric),
        band_structure(crystal, nac=nac),
        density_of_states(crystal, points, len(set(crystal.supercell.numbers.tolist())) > 1, nac),
        mesh,
        thermal(mesh, TEMPERATURES),
    )


def mesh_points(cell: np.ndarray) -> tuple[int, int, int]:
    """An even number of points along each reciprocal lattice vector, more for a longer one.

    Args:
        cell: (3, 3) primitive lattice vectors as rows, Angstrom.
    """
    lengths = np.linalg.norm(np.linalg.inv(cell), axis=0)  # of the reciprocal lattice vectors, without 2 pi
    counts = [max(LEAST_POINTS, 2 * round(MESH_LENGTH * length / 2)) for length in lengths.tolist()]
    return counts[0], counts[1], counts[2]


class _Warnings:
    """Lines that are said at once and kept for the report."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        if line:
            self.lines.append(line)
            self.say(line)


def _setting(request: Request) -> Setting:
    """The cells, with the supercell that was asked for."""
    found = read_cell(request.structure)
    if request.supercell is not None:
        return with_supercell(found, request.supercell)
    if brings_supercell(request.structure):
        return found
    if request.force_constants is not None:
        raise ConfigError("--supercell: expected that of the force constants, for example --supercell 2 2 2, got none")
    return with_supercell(found, repetitions(structure_of(found)))


def _reference(request: Request, setting: Setting) -> Crystal | None:
    if request.reference is None:
        return None
    return dataclasses.replace(crystal_of_setting(setting), blocks=read_blocks(request.reference, setting))


def _relaxed(request: Request, setting: Setting, warn: _Warnings) -> tuple[Setting, Relaxed | None]:
    if not request.relaxed:
        return setting, None
    if request.potential is None:
        raise ConfigError("--relax: expected --ckpt or --calculator, got force constants, which do not move atoms")
    if request.potential.calculator is None:
        raise ConfigError(
            f"--relax: expected a model of energies, {request.potential.name} predicts force constants themselves and "
            "has none"
        )
    structure = structure_of(setting)
    found = relax(structure, request.potential.calculator, request.fmax, request.steps)
    if not found.converged:
        warn(
            f"{structure.name}: the relaxation has not come to its end: the largest force is {found.fmax:.2g} "
            f"eV/Angstrom after {found.steps} steps, expected {request.fmax:g}; give more --steps"
        )
    before, after = space_group(structure)[0], space_group(found.structure)[0]
    if before != after:
        warn(f"{structure.name}: the relaxation has changed the space group from {before} to {after}")
    return with_structure(setting, found.structure), found


def _raw(request: Request, setting: Setting, crystal: Crystal) -> tuple[Crystal, str, np.ndarray | None]:
    """The crystal with its force constants, how they were made, and how far several potentials differ.

    Raises:
        DataError: they are all 0, or not finite.
    """
    if request.force_constants is not None:
        found = Blocks(read_blocks(request.force_constants, setting), f"read from {request.force_constants.name}")
    else:
        assert request.potential is not None
        found = blocks_of(crystal, request.potential, request.progress)
    if not found.blocks.any() or not np.isfinite(found.blocks).all():
        raise DataError(f"{crystal.name}: expected force constants, all are 0 or some not finite ({found.method})")
    return dataclasses.replace(crystal, blocks=found.blocks), found.method, found.spread


def _check_crystal(request: Request, setting: Setting) -> None:
    """Refuse a molecule in a box, whose force constants a potential would compute.

    Raises:
        DataError: it is one.
    """
    words = in_a_box(structure_of(setting), request.potential.cutoff) if request.potential else ""
    if words:
        raise DataError(words)


def _of_potential(request: Request, crystal: Crystal) -> tuple[float, list[Check]]:
    """The largest force, and the checks of the energy; of exact second derivatives those of differences too."""
    if request.potential is None or request.potential.calculator is None:
        return np.nan, []
    potential, structure = request.potential, crystal.supercell
    checks = check_energy(structure, potential.calculator)
    if potential.exact:
        rows = crystal.p2s.tolist()
        checks.append(check_differences(crystal.blocks, structure, potential.calculator, rows))
    return largest_force(crystal, potential), checks

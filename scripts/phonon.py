r"""Phonons of a crystal from a trained model, a calculator of ASE, or given force constants, and how far to trust them.

    python scripts/phonon.py --structure POSCAR --output runs/phonons
    python scripts/phonon.py --structure POSCAR --supercell 2 2 2 --ckpt runs/RUN --output runs/phonons
    python scripts/phonon.py --structure Al.cif --supercell 3 3 3 --calculator ase.calculators.emt:EMT --relax \
        --output runs/Al
    python scripts/phonon.py --structure phonopy.yaml --force_constants FORCE_CONSTANTS --born BORN --output runs/NaCl

The structure is a POSCAR, a cif, an extended xyz or a phonopy.yaml; the last, a folder of phonopy's files and an
archive of phonondb bring their supercell along, others get one that is wide enough unless --supercell says which.
Without --ckpt, --calculator and --force_constants the potentials that ship with the project are used.  A checkpoint
gives exact second derivatives, a calculator differences of forces for displacements of 0.01 Angstrom.  Force constants
are FORCE_CONSTANTS or force_constants.hdf5 of the same supercell in eV/Angstrom^2, or in the unit of the phonopy.yaml;
or phonopy's files of the same cells, which are phonopy_params.yaml, a folder or an archive.

The output folder gets report.md (the page), report.json (every number), bands.png, dos.png, thermal.png, thermal.csv,
decay.png, and FORCE_CONSTANTS, phonopy_params.yaml and SPOSCAR for phonopy.  Force constants are used as they are;
--project enforces the space group, exchange symmetry and the sum rule.  The page says what both break.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from experiment.startup import begin

    begin()

import argparse

from configs.loading import ConfigError
from experiment.closed_pipes import until_closed
from experiment.command_line import CommandLine, exit_code
from experiment.page_folder import check_folder, new_folder
from experiment.phonon_report import PAGE, PROGRAM, write_report
from experiment.phonon_run import Phonons, Request, check_cells, run_phonons
from experiment.phonon_source import Potential, potential_of_checkpoints, potential_of_class, shipped
from experiment.provenance import command_of
from physics.phonons import UNSTABLE
from physics.relaxation import FMAX, STEPS

MOST_CELLS = 1000  # along a lattice vector


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options.

    Raises:
        ConfigError: they do not fit together.
    """
    parser = CommandLine(description=__doc__)
    add = parser.add_argument
    add("--structure", type=Path, required=True, metavar="FILE", help="POSCAR, cif, extended xyz, phonopy.yaml, ...")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--ckpt", nargs="+", metavar="RUN",
        help="run folders or checkpoints of models of energies, whose mean is used (default: those that ship)",
    )  # fmt: skip
    source.add_argument("--calculator", metavar="MODULE:CLASS", help="calculator of ASE, made without arguments")
    source.add_argument(
        "--force_constants", type=Path, metavar="FILE", help="FORCE_CONSTANTS, force_constants.hdf5, ..."
    )
    add(
        "--supercell",
        type=int,
        nargs=3,
        metavar="N",
        help="cells along each lattice vector (default: the file's, or wide enough)",
    )
    add("--relax", action="store_true", help="relax atoms and cell first, symmetry kept; needs stress")
    add("--fmax", type=float, default=FMAX, help=f"of the relaxation, eV/Angstrom (default: {FMAX:g})")
    add("--steps", type=int, default=STEPS, help=f"of the relaxation at most (default: {STEPS})")
    add("--born", type=Path, metavar="BORN", help="Born charges and permittivity: adds the non-analytical term")
    add("--reference", type=Path, metavar="FILE", help="force constants to compare with")
    add("--project", action="store_true", help="enforce space group, exchange symmetry and sum rule")
    add("--dtype", choices=("float64", "float32"), default="float64", help="of --ckpt (default: float64)")
    add("--device_target", default="", metavar="NAME", help="of --ckpt: CPU, GPU or Ascend (default: that of the run)")
    add("--output", type=Path, required=True, metavar="FOLDER", help="new or empty folder")
    add("--overwrite", action="store_true", help="replace an earlier report in it")
    options = parser.parse_args(arguments)
    if options.supercell and not all(1 <= cells <= MOST_CELLS for cells in options.supercell):
        raise ConfigError(f"--supercell: expected three numbers from 1 to {MOST_CELLS}, got {options.supercell}")
    if not options.fmax > 0 or options.steps < 1:
        raise ConfigError("--fmax and --steps: expected numbers above 0")
    if options.relax and options.force_constants:
        raise ConfigError("--relax: expected --ckpt or --calculator, got force constants, which do not move atoms")
    return options


def potential_of(options: argparse.Namespace) -> Potential | None:
    """What computes forces; None: force constants are given."""
    if options.calculator:
        return potential_of_class(options.calculator)
    if options.force_constants:
        return None
    device = [("run.device_target", options.device_target)] if options.device_target else []
    return potential_of_checkpoints(options.ckpt or shipped(), device, options.dtype)


def summary(found: Phonons) -> str:
    """Stable or not, in a few words."""
    words, (on_path, _) = f"lowest frequency {found.stability.lowest_on_mesh:.3g} THz", found.bands.lowest
    if not found.stability.stable:
        return f"not stable, {words}"
    if found.stability.lowest_at_gamma < UNSTABLE:
        return f"not stable at Gamma ({found.stability.lowest_at_gamma:.3g} THz)"
    return f"stable on the mesh, not on the path ({on_path:.3g} THz)" if on_path < UNSTABLE else f"stable, {words}"


def say(line: str) -> None:
    """A warning on standard error."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        options = parse(arguments)
        check_folder(options.output, PROGRAM, options.overwrite)
        supercell = tuple(options.supercell) if options.supercell else None
        request = Request(
            options.structure, supercell, None, options.force_constants, options.relax, options.fmax,
            options.steps, options.born, options.reference, options.project, progress=True,
        )  # fmt: skip
        check_cells(request)
        run = run_phonons(request._replace(potential=potential_of(options)), say)
        with new_folder(options.output, PROGRAM, options.overwrite) as folder:
            write_report(run, folder, command)
        print(f"{run.raw.name}: {summary(run.phonons)}; {options.output / PAGE}")
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))

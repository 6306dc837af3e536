"""The page of potentials.py: the table of errors beside the baselines, and the record of every figure."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("potential_page.py is a part of potentials.py: see python scripts/peers/potentials.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiment.evaluation.force_constant_table import markdown, summary
from experiment.evaluation.force_constants import Judged
from training.device import versions

INTRODUCTION = """# Force constants of universal potentials

What a user would take instead of a model of force constants: universal potentials, differentiated by finite
displacements. They are judged at the geometry of DFT, in its supercell, with phonopy's displacements of 0.01 Angstrom,
its traditional solver, and sum rule and exchange symmetry enforced once (level 1), as the force constants of DFT are.

**These potentials were trained on PBE data that may hold these compounds, so for them this is no test of unseen
materials. The reference is PBEsol without spin polarisation: part of every error is the difference between the two
functionals, PBE being softer.**
"""
DEFINITIONS = """Each cell is mean / median over materials; `zero` and `mean of pair and shell` need no model. The
latter has, for the ordered pair of species and the shell (the first shell; beyond it, every half Angstrom of distance),
the mean longitudinal and transverse force constant of the other materials; for a pair that they do not have in that
shell, the mean of all pairs of the shell; on-site, minus the sum of the rest.

First shell: minimum-image distance of at most 1.15 times the nearest distance of the first atom of the pair. Relative
Frobenius: |Phi' - Phi| / |Phi|. Slope: sum Phi' Phi / sum Phi^2. Frequencies: 6x6x6 mesh with Gamma, without the
non-analytical term, imaginary ones negative. Free energy, entropy and Cv at 300 K an atom, modes of at most 0.05 THz
dropped on both sides. Unstable: a frequency away from Gamma below -0.05 THz.
"""


class Potential(NamedTuple):
    """Who computed forces, and how long it took.

    Attributes:
        name: of the calculator.
        packages: name to version, of the interpreter that it ran in.
        cpu_seconds: of the forces of each material.
    """

    name: str
    packages: Mapping[str, str]
    cpu_seconds: Sequence[float]


def page(judged: Judged, potentials: Sequence[Potential], about: Mapping[str, Any]) -> str:
    """The page.

    Args:
        judged: errors of the potentials and the baselines.
        potentials: in the order of their columns.
        about: the command, the commit, and the choice of materials.
    """
    programs = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        INTRODUCTION,
        "```bash", about["command"], "```", "",
        f"Commit {about['commit'] or 'unknown'}, started {about['started']}; {programs}.",
        f"{len(judged.materials)} materials of {about['source']}: of those with at most {about['max_atoms']} atoms in",
        f"the supercell, sorted by their number, one in {about['every']} from the first on; the means are those of the",
        f"{about['training_materials']} others. Errors of every material stand in the JSON file beside this page.", "",
        *markdown(judged), "",
        DEFINITIONS,
        "| potential | CPU s a material, mean / median | computed by |",
        "|---|---|---|",
    ]  # fmt: skip
    for one in potentials:
        by = ", ".join(f"{name} {version}" for name, version in one.packages.items())
        lines.append(f"| {one.name} | {np.mean(one.cpu_seconds):.1f} / {np.median(one.cpu_seconds):.1f} | {by} |")
    lines += ["", "CPU seconds are of all displaced supercells of a material, one thread, beside other programs."]
    return "\n".join(lines) + "\n"


def record_of(judged: Judged, potentials: Sequence[Potential], about: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure of the page, and the errors of each material."""
    return {
        **about,
        "summary": summary(judged),
        "potentials": {
            one.name: {"packages": dict(one.packages), "cpu_seconds": list(one.cpu_seconds)} for one in potentials
        },
        "materials": list(judged.materials),
        "stable": None if judged.stable is None else judged.stable.tolist(),
        "predicted_stable": {whose: values.tolist() for whose, values in judged.predicted_stable.items()},
        "errors": {
            whose: {
                key: [None if np.isnan(value) else round(float(value), 6) for value in values]
                for key, values in of_one.items()
            }
            for whose, of_one in judged.errors.items()
        },
    }

"""Several potentials as one calculator of ASE: the mean, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.mixing import AverageCalculator

WITH_SPREAD = ("energy", "forces")


class MeanCalculator(AverageCalculator):
    """Energies, forces and stresses that are the means of several calculators.

    Beside what ASE's own has, ``results`` holds ``energy_std`` (eV) and ``forces_std`` (N, 3) (eV/Angstrom, of each
    component): the standard deviations (K - 1 in the denominator) of the K members, wherever energy and forces are.
    """

    def calculate(self, atoms: Atoms, properties: Sequence[str], system_changes: Sequence[str]) -> None:
        """Put what is asked for, and all that the members have computed with it, into ``results``.

        Raises:
            What a member raises.
        """
        super().calculate(atoms, properties, system_changes)
        for name in WITH_SPREAD:
            if name in self.results:
                spread = np.std(self.results[f"{name}_contributions"], axis=0, ddof=1)
                self.results[f"{name}_std"] = float(spread) if spread.ndim == 0 else spread


def mean_of(members: Sequence[AseCalculator]) -> Any:
    """One calculator whose energies, forces and stresses are the means of several; one alone as it is."""
    return members[0] if len(members) == 1 else MeanCalculator(list(members))

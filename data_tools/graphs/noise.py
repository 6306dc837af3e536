"""Random displacements of atoms: noise on the positions that a model learns from, where the labels are numbers.

    x' = x + s z        z: three normal numbers for each atom, s: the standard deviation, Angstrom

The edges stay those of x.  A pair that comes closer than the cutoff is missed, and one that goes beyond it stays; there
the functions that take a model to zero at the cutoff c are next to 0: (pi s / 2c)^2 = 2e-4 for s = 0.05 and c = 5 and
the cosine, 0 for the polynomial.
"""

from __future__ import annotations

import numpy as np

STREAM = 4  # apart from the random numbers of labels and rotations


def displacements(seed: int, rows: np.ndarray, draws: np.ndarray, n_atoms: np.ndarray, deviation: float) -> np.ndarray:
    """Displacements of the atoms of K structures, those of each a function of (seed, draw, row).

    Args:
        seed: of the run.
        rows, draws: (K,) which structures, and for the how manieth time.
        n_atoms: (K,) atoms of each.
        deviation: standard deviation of each coordinate, Angstrom.

    Returns:
        (N, 3) Angstrom, structures one after the other.
    """
    found = [np.zeros((0, 3))]
    for row, draw, count in zip(rows.tolist(), draws.tolist(), n_atoms.tolist(), strict=True):
        found.append(np.random.default_rng([seed, row, draw, STREAM]).normal(scale=deviation, size=(count, 3)))
    return np.concatenate(found)

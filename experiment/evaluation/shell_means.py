"""The baseline of force constants: means of the training materials for each pair of species and each shell.

A block between two atoms is a |r><r| + b (1 - |r><r|) with the direction r from one to the other, averaged over the
images that are equally near: a is the mean longitudinal and b the mean transverse force constant of all training pairs
with the same species (first, second) in the same shell, so a rotated crystal gets rotated blocks.  An atom with itself
has b alone, a third of the mean trace.  Shells: the atom itself, its first shell (``physics.minimum_image``), and
beyond it every half Angstrom of distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_tools.crystals import Crystal
from physics.minimum_image import REST, MinimumImages, minimum_images

WIDTH = 0.5  # Angstrom, of a shell beyond the first
_SHELLS, _SPECIES = 10_000, 1_000  # more than there are
_ANY = 0  # in the place of both species: of all pairs


class ShellMeans(NamedTuple):
    """Means of longitudinal and transverse force constants.

    Where a pair of species was not seen in a shell, the mean of all pairs of that shell counts; where the shell was
    not seen either, 0.

    Attributes:
        keys: (K,) int64 ascending, of species and shell.
        means: (K, 2) longitudinal and transverse, eV/Angstrom^2.
    """

    keys: np.ndarray
    means: np.ndarray

    @classmethod
    def of(cls, crystals: Sequence[Crystal]) -> ShellMeans:
        """The means of training materials; every pair of the compact force constants counts once."""
        sums: dict[int, np.ndarray] = {}
        for crystal in crystals:
            images = minimum_images(crystal)
            values = _components(crystal.blocks, images.directions).reshape(-1, 2)
            for species in (crystal.supercell.numbers, np.full(crystal.n_atoms, _ANY)):
                keys, places = np.unique(_keys(species, crystal.p2s, images), return_inverse=True)
                counts = np.bincount(places.ravel())
                columns = [np.bincount(places.ravel(), column) for column in values.T]
                for key, *row in zip(keys.tolist(), *columns, counts, strict=True):
                    sums[key] = sums.get(key, 0) + np.array(row)
        known = np.array(sorted(sums), np.int64)
        rows = np.array([sums[key] for key in known.tolist()]).reshape(-1, 3)
        return cls(known, rows[:, :2] / rows[:, 2:])

    def predict(self, crystal: Crystal, images: MinimumImages | None = None) -> np.ndarray:
        """Blocks (p, n, 3, 3) in eV/Angstrom^2; those of the crystal are not read.

        Args:
            crystal: what is predicted for.
            images: of its pairs, where they are at hand.
        """
        images = minimum_images(crystal) if images is None else images
        values = np.zeros((*images.shells.shape, 2))
        for species in (np.full(crystal.n_atoms, _ANY), crystal.supercell.numbers):  # the second where it is known
            keys = _keys(species, crystal.p2s, images)
            seen = np.isin(keys, self.keys)
            values[seen] = self.means[np.searchsorted(self.keys, keys[seen])]
        longitudinal, transverse = values[..., 0, None, None], values[..., 1, None, None]
        return longitudinal * images.directions + transverse * (np.eye(3) - images.directions)


def _keys(species: np.ndarray, p2s: np.ndarray, images: MinimumImages) -> np.ndarray:
    """(p, n) one number for the ordered pair of species and the shell."""
    beyond = REST + np.floor(images.distances / WIDTH).astype(np.int64)
    shells = np.where(images.shells == REST, beyond, images.shells)
    return (species[p2s][:, None].astype(np.int64) * _SPECIES + species) * _SHELLS + shells


def _components(blocks: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(p, n, 2) longitudinal and transverse components; a block without a direction has a third of its trace twice."""
    trace = np.trace(blocks, axis1=-2, axis2=-1)
    longitudinal = (blocks * directions).sum(axis=(-2, -1))
    directed = np.trace(directions, axis1=-2, axis2=-1) > 0.5
    return np.stack(
        (np.where(directed, longitudinal, trace / 3), np.where(directed, (trace - longitudinal) / 2, trace / 3)),
        axis=-1,
    )

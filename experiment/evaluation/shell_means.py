"""The baseline of force constants: means of the training materials for each pair of species and each shell.

A block between two atoms is a |r><r| + b (1 - |r><r|) with the direction r from one to the other, averaged over the
images that are equally near: a is the mean longitudinal and b the mean transverse force constant of all training pairs
with the same species (first, second) in the same shell, so a rotated crystal gets rotated blocks.  Shells: the first
one (``physics.minimum_image``), and beyond it every half Angstrom of distance.  The block of an atom with itself
follows from the sum rule: it is minus the sum of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_tools.crystals import Crystal
from physics.minimum_image import ON_SITE, REST, MinimumImages, minimum_images

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
            pairs = images.shells.ravel() != ON_SITE
            values = _components(crystal.blocks, images.directions).reshape(-1, 2)[pairs]
            for species in (crystal.supercell.numbers, np.full(crystal.n_atoms, _ANY)):
                keys, places = np.unique(_keys(species, crystal.p2s, images).ravel()[pairs], return_inverse=True)
                counts = np.bincount(places)
                columns = [np.bincount(places, column) for column in values.T]
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
        blocks = longitudinal * images.directions + transverse * (np.eye(3) - images.directions)
        itself = np.arange(crystal.n_primitive), crystal.p2s
        blocks[itself] = 0
        blocks[itself] = -blocks.sum(axis=1)
        return blocks


def _keys(species: np.ndarray, p2s: np.ndarray, images: MinimumImages) -> np.ndarray:
    """(p, n) one number for the ordered pair of species and the shell."""
    beyond = REST + np.floor(images.distances / WIDTH).astype(np.int64)
    shells = np.where(images.shells == REST, beyond, images.shells)
    return (species[p2s][:, None].astype(np.int64) * _SPECIES + species) * _SHELLS + shells


def _components(blocks: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(p, n, 2) longitudinal and transverse components."""
    longitudinal = (blocks * directions).sum(axis=(-2, -1))
    return np.stack((longitudinal, (np.trace(blocks, axis1=-2, axis2=-1) - longitudinal) / 2), axis=-1)

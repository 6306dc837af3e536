"""The nearest periodic images of the pairs of atoms of a crystal, in cells of any shape."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from data_tools.crystals import Crystal

TIE = 1e-3  # Angstrom: images that are farther by less are as near as the nearest
ON_SITE, FIRST_SHELL, REST = 0, 1, 2
FIRST_SHELL_REACH = 1.15  # of the nearest distance


class MinimumImages(NamedTuple):
    """Pairs of the p atoms of the primitive cell with the n of the supercell.

    Attributes:
        distances: (p, n) to the nearest image, Angstrom; 0 of an atom with itself.
        vectors: (p, n, 3) to the nearest image, Angstrom; the mean of those that are equally near, which is shorter.
        directions: (p, n, 3, 3) r r^T / |r|^2 averaged over the images that are equally near; 0 of an atom with itself.
        shells: (p, n) int64: an atom with itself is ``ON_SITE``; ``FIRST_SHELL`` are the pairs of up to 1.15 times the
            nearest distance of their first atom; all others are the ``REST``.
    """

    distances: np.ndarray
    vectors: np.ndarray
    directions: np.ndarray
    shells: np.ndarray


def minimum_images(crystal: Crystal) -> MinimumImages:
    """Distances, vectors, directions and shells of all pairs of the compact force constants."""
    cell = np.asarray(crystal.supercell.cell, np.float64)
    fractional = np.asarray(crystal.supercell.positions, np.float64) @ np.linalg.inv(cell)
    wrapped = fractional[None] - fractional[crystal.p2s][:, None]
    wrapped -= np.round(wrapped)  # (p, n, 3)
    distances = _nearest(wrapped, cell, (1, 1, 1))
    # an image within r has fractional coordinates of at most r / (distance of the faces)
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.maximum(np.floor(distances.max() / heights + 0.5 + 1e-9).astype(int), 1)
    if reach.max() > 1:
        distances = _nearest(wrapped, cell, tuple(reach))
    total, count = np.zeros((*distances.shape, 3, 3)), np.zeros(distances.shape)
    mean = np.zeros((*distances.shape, 3))
    for shift in _shifts(tuple(reach)):
        vectors = (wrapped + shift) @ cell
        lengths = np.linalg.norm(vectors, axis=-1)
        near = (lengths <= distances + TIE) & (lengths > TIE)
        units = vectors[near] / lengths[near][:, None]
        total[near] += units[:, :, None] * units[:, None, :]
        mean[near] += vectors[near]
        count += near
    count = np.maximum(count, 1)[..., None]
    return MinimumImages(distances, mean / count, total / count[..., None], _shells(distances, crystal.p2s))


def _shells(distances: np.ndarray, p2s: np.ndarray) -> np.ndarray:
    """(p, n) of pairs with these distances."""
    itself = np.arange(distances.shape[1]) == p2s[:, None]
    nearest = np.where(itself, np.inf, distances).min(axis=1, keepdims=True)
    return np.where(itself, ON_SITE, np.where(distances <= FIRST_SHELL_REACH * nearest, FIRST_SHELL, REST))


def _shifts(reach: tuple[int, ...]) -> np.ndarray:
    """Lattice vectors in units of the cell's, (S, 3)."""
    return np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))


def _nearest(wrapped: np.ndarray, cell: np.ndarray, reach: tuple[int, ...]) -> np.ndarray:
    """(p, n) the smallest length among the images within reach."""
    smallest = np.full(wrapped.shape[:2], np.inf)
    for shift in _shifts(reach):
        np.minimum(smallest, np.linalg.norm((wrapped + shift) @ cell, axis=-1), out=smallest)
    return smallest

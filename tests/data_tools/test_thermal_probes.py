"""Thermal probes are waves of the crystal's own phonons: each product is right, soft modes move farthest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import ForceConstants
from data_tools.graphs.packed import pack
from data_tools.labels.force_constant_probes import ForceConstantProbes
from data_tools.labels.thermal_probes import LEAST, thermal_probe
from data_tools.tables import select_rows
from physics.force_constants import full_of

SAMPLE = Path(__file__).parents[2] / "data_tools" / "samples" / "crystals_100.npz"
MATERIALS = ("mp-23330", "mp-8352", "mp-23160", "mp-8393")
DRAWS = 400


@pytest.fixture(scope="module")
def packed():
    """Supercells of 1, 4, 4 and 6 primitive cells; those of the last two are skew."""
    table = read_crystal_file(SAMPLE).table
    return pack(select_rows(table, np.array([table.names.index(name) for name in MATERIALS])), 3.0)


def probes_of(packed, row: int, draw: int = 0, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Probe and product of a structure, flat."""
    constants = packed.table.force_constants
    assert isinstance(constants, ForceConstants)
    labels = ForceConstantProbes(packed, constants, 3, kind="thermal", **settings)(np.array([row]), draw)
    return labels.probes.ravel(), labels.of_nodes["hessian_product"].ravel()


def matrix_of(crystal: Crystal) -> np.ndarray:
    """(3 n, 3 n) force constants of the whole supercell, eV/Angstrom^2."""
    size = 3 * len(crystal.masses)
    return full_of(crystal).transpose(0, 2, 1, 3).reshape(size, size)


@pytest.mark.parametrize("row", range(4))
def test_products_are_those_of_the_whole_matrix(packed, row):
    """To what the published constants lack in symmetry."""
    crystal = crystal_of(packed.table, row)
    full = matrix_of(crystal)
    for draw in range(12):
        probe, product = probes_of(packed, row, draw)
        np.testing.assert_allclose(full.T @ probe, product, atol=2e-5 * np.abs(full).max())
        assert np.linalg.norm(probe) == pytest.approx(np.sqrt(len(crystal.masses) / len(crystal.p2s)))


def test_modes_move_as_they_do_when_warm(packed):
    """The mean square of each mode of a wave vector is proportional to 1 / (|lambda| + lambda_0), translations stay."""
    row = int(np.argmax(packed.table.force_constants.n_primitive > 1))
    crystal = crystal_of(packed.table, row)
    root = np.repeat(np.sqrt(crystal.masses), 3)
    values, vectors = np.linalg.eigh(matrix_of(crystal) / np.outer(root, root))
    amplitudes = np.zeros((DRAWS, len(values)))
    for draw in range(DRAWS):
        probe, _ = probes_of(packed, row, draw)
        amplitudes[draw] = vectors.T @ (root * probe) / np.linalg.norm(root * probe)
        assert np.abs(crystal.masses @ probe.reshape(-1, 3)).max() < 1e-9 * crystal.masses.sum()
    mean_squares = (amplitudes**2).mean(axis=0)
    moving = np.abs(values) > 1e-3 * np.abs(values).max()
    assert mean_squares[~moving].max() < 1e-6 * mean_squares.max()
    soft, stiff = np.array_split(np.flatnonzero(moving), 2)
    expected = 1 / (np.abs(values) + LEAST * np.abs(values[moving]).mean())
    assert mean_squares[soft].mean() / mean_squares[stiff].mean() == pytest.approx(
        expected[soft].mean() / expected[stiff].mean(), rel=0.25
    )
    assert mean_squares[soft].mean() > 2 * mean_squares[stiff].mean()


def test_a_crystal_of_one_atom_is_translated():
    """There is nothing else that it could do: the probe is no 0, which no mass weight could be of."""
    one = np.zeros(1, np.int64)
    probe, product = thermal_probe(
        np.zeros((1, 1, 3, 3)), np.zeros((1, 3)), one, np.array([26.98]), np.eye(3), np.random.default_rng(0)
    )
    assert np.linalg.norm(probe) == pytest.approx(1.0) and not product.any()


def test_every_wave_vector_comes_as_often():
    """A chain of four atoms, each tied to its place: the waves of q = 0, 1/4, 1/2 and 3/4."""
    blocks = np.zeros((1, 4, 3, 3))
    blocks[0, 0] = np.eye(3)
    translations = np.arange(4)[:, None] * np.array([[1, 0, 0]])
    supercell = np.diag([4.0, 1.0, 1.0])
    random, counts = np.random.default_rng(1), np.zeros(3)
    for _ in range(DRAWS):
        probe, product = thermal_probe(blocks, translations, np.zeros(4, np.int64), np.ones(1), supercell, random)
        np.testing.assert_allclose(product, probe, atol=1e-12)
        weights = (np.abs(np.fft.fft(probe, axis=0)) ** 2).sum(axis=1)
        assert weights.max() == pytest.approx(weights.sum(), rel=0.51)  # a wave and the one that runs back
        counts[min(int(weights.argmax()), 4 - int(weights.argmax())) % 4] += 1
    np.testing.assert_allclose(counts / DRAWS, [0.25, 0.5, 0.25], atol=0.07)

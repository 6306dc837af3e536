"""The laws of crystals, for every network and readout that has a value for them, on both paths.

A cell of one atom has nothing but its own images for neighbours; a skewed cell of three elements has no symmetry.
All numbers are float64; the tolerances stand in ``helpers.TOLERANCES``.  ``test_contract.py`` holds them, with the
graphs that it has compiled.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import BUDGET, TIGHT, assert_close, crystals, molecule, moved, repeated, rotations
from mindspore import Tensor

from data_tools.graph import Structure
from data_tools.graphs.batching import build_graph
from training.step import to_tensors

TIMES = ((2, 2, 1), (2, 1, 1))


class CrystalLaws:
    """Tests of a class that is collected; ``bench`` is the fixture of the models."""

    @pytest.fixture
    def crystal_bench(self, bench):
        """A model that has a value for crystals."""
        if "crystals" in bench.case.exempt:
            pytest.skip(bench.case.exempt["crystals"])
        return bench

    def test_the_crystals_ask_for_images(self):
        """The one atom is its own neighbour; in the skewed cell a pair of atoms meets through several images."""
        alone, skewed = (build_graph(crystal, 3.0) for crystal in crystals())
        assert len(alone.senders) == 12 and not (alone.senders - alone.receivers).any()
        pairs = {tuple(pair) for pair in np.stack((skewed.senders, skewed.receivers), 1).tolist()}
        assert len(skewed.senders) > len(pairs) > 6 and np.abs(skewed.shifts).max() > 1.0

    def test_supercell_is_n_cells(self, crystal_bench):
        outputs, forces = crystal_bench.run(crystals())
        assert np.isfinite(outputs).all() and np.abs(forces[1:]).max() > 1e-2
        large = [repeated(crystal, times) for crystal, times in zip(crystals(), TIMES, strict=True)]
        mean = crystal_bench.case.hyperparameters.get("readout") in ("mean", "attention")
        counts = np.array([np.prod(times) for times in TIMES])
        new_outputs, new_forces = crystal_bench.run(large)
        assert_close(new_outputs, outputs * (1 if mean else counts), "symmetry")
        of_cells = (forces[:1], forces[1:])
        expected = np.concatenate([np.tile(part, (count, 1)) for part, count in zip(of_cells, counts, strict=True)])
        if mean:
            expected /= np.repeat(counts, [len(part) * count for part, count in zip(of_cells, counts, strict=True)])[
                :, None
            ]
        assert_close(new_forces, expected, "symmetry")

    def test_an_atom_moves_by_a_lattice_vector(self, crystal_bench):
        outputs, forces = crystal_bench.run(crystals())
        displaced = []
        for crystal in crystals():
            positions = crystal.positions.copy()
            positions[-1] += crystal.cell[0] - 2 * crystal.cell[2]
            displaced.append(Structure(crystal.numbers, positions, crystal.cell))
        new_outputs, new_forces = crystal_bench.run(displaced)
        assert_close(new_outputs, outputs, "symmetry")
        assert_close(new_forces, forces, "symmetry")

    def test_another_cell_of_the_same_lattice(self, crystal_bench):
        """The lattice vectors of a crystal are not unique."""
        outputs, forces = crystal_bench.run(crystals())
        other = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
        sheared = [Structure(crystal.numbers, crystal.positions, other @ crystal.cell) for crystal in crystals()]
        new_outputs, new_forces = crystal_bench.run(sheared)
        assert_close(new_outputs, outputs, "symmetry")
        assert_close(new_forces, forces, "symmetry")

    def test_rotation_inversion_and_translation_of_crystals(self, crystal_bench):
        outputs, forces = crystal_bench.run(crystals())
        assert_close(forces[1:].sum(0), np.zeros(3), "symmetry", scale=np.abs(forces).max())
        for matrix in rotations(2):
            new_outputs, new_forces = crystal_bench.run(
                [moved(one, matrix, np.array([0.3, -7.1, 2.2])) for one in crystals()]
            )
            assert_close(new_outputs, outputs, "symmetry")
            assert_close(new_forces, forces @ matrix.T, "symmetry")

    def test_permutation_in_a_crystal(self, crystal_bench):
        outputs, forces = crystal_bench.run(crystals()[1:])
        order = np.array([2, 0, 1])
        crystal = crystals()[1]
        new_outputs, new_forces = crystal_bench.run(
            [Structure(crystal.numbers[order], crystal.positions[order], crystal.cell)]
        )
        assert_close(new_outputs, outputs, "symmetry")
        assert_close(new_forces, forces[order], "symmetry")

    def test_crystals_beside_molecules(self, crystal_bench):
        """A batch of both gives each what it has alone, whatever the number of ghosts."""
        mixed = [*crystals(), molecule("CH3CH2OH", 1)]
        outputs, forces = crystal_bench.run(mixed)
        singles = [crystal_bench.run([structure]) for structure in mixed]
        assert_close(np.concatenate([single[0] for single in singles]), outputs, "symmetry")
        assert_close(np.concatenate([single[1] for single in singles]), forces, "symmetry")
        # with operators both are of one shape, and compared with the kernels, which have another one
        (_, loose), (_, tight) = crystal_bench.loss(mixed), crystal_bench.loss(mixed, TIGHT)
        largest = max(np.abs(gradient).max() for gradient in loose.values())
        for name, gradient in loose.items():
            assert_close(tight[name], gradient, "gradients", scale=max(np.abs(gradient).max(), 1e-3 * largest))

    def test_probes_do_not_reach_another_crystal(self, crystal_bench):
        """One product with a probe in one crystal of a batch: H v of that crystal, and zero for the others."""
        if crystal_bench.case.name != crystal_bench.case.model:
            return  # readouts do not couple graphs
        product = crystal_bench.product
        inputs = to_tensors(crystal_bench.case.batch([crystals()[1], *crystals()]).inputs)
        probes = np.zeros((BUDGET.nodes, 3))
        probes[1] = (0.3, -1.0, 0.5)
        found = product(*inputs, Tensor(probes)).asnumpy()
        assert np.abs(found[:3]).max() > 1e-2 and not found[3:].any()
        probes[5] = probes[1]  # the same atom of the second copy, behind the one atom of copper
        both = product(*inputs, Tensor(probes)).asnumpy()
        assert_close(both[:3], found[:3], "symmetry")
        assert_close(both[4:7], found[:3], "symmetry")
        assert not both[3].any() and not both[7:].any()

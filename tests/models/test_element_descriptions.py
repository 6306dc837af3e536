"""What the periodic table says of the elements."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from ase.data import covalent_radii

from models.element_descriptions import COVALENT_RADII, SPREAD, DescribedElements, descriptions, standardised
from models.elements import ELEMENTS

BLOCKS = {1: "s", 2: "s", 5: "p", 11: "s", 14: "p", 26: "d", 30: "d", 31: "p", 58: "f", 79: "d", 92: "f", 118: "p"}
PERIODS = {1: 1, 2: 1, 3: 2, 10: 2, 11: 3, 18: 3, 19: 4, 36: 4, 37: 5, 54: 5, 55: 6, 86: 6, 87: 7, 118: 7}


def test_descriptions():
    rows = descriptions()
    assert not rows[0].any() and len(np.unique(rows, axis=0)) == ELEMENTS
    for number, block in BLOCKS.items():
        assert "spdf"[rows[number, 1:5].argmax()] == block and rows[number, 1:5].sum() == 1
    for number, period in PERIODS.items():
        assert rows[number, 0] == period / 7
    np.testing.assert_allclose(rows[14, 5:9], (1, 2 / 6, 0, 0))  # silicon: 3s2 3p2
    np.testing.assert_allclose(rows[26, 5:9], (1, 0, 6 / 10, 0))  # iron: 4s2 3d6
    np.testing.assert_allclose(rows[82, 5:9], (1, 2 / 6, 1, 1))  # lead: 6s2 4f14 5d10 6p2
    np.testing.assert_array_equal(COVALENT_RADII[1:97], covalent_radii[1:97])


def test_columns_are_of_one_size():
    rows = standardised(descriptions())
    assert not rows[0].any()
    np.testing.assert_allclose(rows[1:].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(rows[1:].std(axis=0), SPREAD)


def test_elements_that_are_alike_begin_alike():
    ms.set_seed(0)
    embed = DescribedElements(32, ms.float32)
    features = embed(ms.Tensor(np.array([17, 35, 11, 8], np.int32))).asnumpy()
    distances = np.linalg.norm(features[1:] - features[0], axis=1)
    assert features.shape == (4, 32) and distances[0] < 0.5 * distances[1]  # Cl is nearer to Br than to Na

"""Statistics of spreads against numbers that were made by hand, and laws of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from experiment.uncertainty import (
    ISOTONIC_FEWEST,
    Calibration,
    area_under_roc,
    coverage,
    fitted_floor,
    fitted_scale,
    negative_log_likelihood,
    quality,
    rank_correlation,
    spread_of,
)


def normal_errors(count=4000, factor=3.0):
    """Errors of which the spreads know the size but for a factor."""
    generator = np.random.default_rng(0)
    spreads = generator.uniform(0.1, 1.0, count)
    return factor * spreads * generator.normal(size=count), spreads


def test_spreads_by_hand():
    values = np.array([[1.0, 2.0, 5.0], [3.0, 2.0, np.nan]])
    assert spread_of(values)[:2] == pytest.approx([math.sqrt(2), 0.0]) and np.isnan(spread_of(values)[2])
    assert spread_of(np.array([[0.0], [1.0], [5.0]])) == pytest.approx(math.sqrt(7))  # 4 + 1 + 9 over 2
    with pytest.raises(ValueError, match="two members"):
        spread_of(values[:1])


def test_coverage_and_likelihood_by_hand():
    errors, spreads = np.array([0.5, -0.99, 1.1, -3.0]), np.ones(4)
    assert coverage(errors, spreads, 0.68) == 0.5 and coverage(errors, spreads, 0.95) == 0.75  # 0.994 and 1.960
    expected = -np.mean(norm.logpdf(errors, scale=2.0))
    assert negative_log_likelihood(errors, 2 * spreads) == pytest.approx(expected)
    assert negative_log_likelihood(errors, np.array([0.0, 1, 1, 1])) == math.inf
    found = quality(errors, spreads)
    assert found == {"coverage_68": 0.5, "coverage_95": 0.75, "nll": negative_log_likelihood(errors, spreads)}


def test_the_scale_is_the_one_of_the_least_likelihood_loss():
    errors, spreads = np.array([3.0, -4.0, 0.0, 6.0, 8.0, 9.0]), np.array([1.0, 2.0, 1.0, 2.0, 2.0, 0.0])
    scale = fitted_scale(errors, spreads)
    assert scale == pytest.approx(math.sqrt((9 + 4 + 0 + 9 + 16) / 5))  # without the one whose spread is 0
    least = negative_log_likelihood(errors[:5], scale * spreads[:5])
    for other in (0.99, 1.01):
        assert negative_log_likelihood(errors[:5], other * scale * spreads[:5]) > least
    assert math.isnan(fitted_scale(errors[:4], spreads[:4]))


def test_the_floor_and_the_factor_are_those_of_the_least_likelihood_loss():
    generator = np.random.default_rng(2)
    spreads = np.abs(generator.normal(size=4000))  # of two members, next to 0 as often as not
    errors = np.sqrt(0.3**2 + (0.8 * spreads) ** 2) * generator.normal(size=4000)
    floor, factor = fitted_floor(errors, spreads)
    assert (floor, factor) == pytest.approx((0.3, 0.8), rel=0.1)

    def loss(c, a):
        return negative_log_likelihood(errors, np.sqrt(c**2 + (a * spreads) ** 2))

    least = loss(floor, factor)
    assert least < loss(0.0, fitted_scale(errors, spreads))
    for change in (0.95, 1.05):
        assert loss(change * floor, factor) > least and loss(floor, change * factor) > least


def test_calibrated_spreads_have_the_floor():
    """Members that agree by chance do not make a prediction certain."""
    calibration = Calibration(9, 1.0, 2.0, floor=0.3, factor=0.4, isotonic=None)
    np.testing.assert_allclose(calibration.with_floor(np.array([0.0, 1.0])), [0.3, 0.5])
    np.testing.assert_allclose(calibration.calibrated(np.array([1.0]))["with_floor"], [0.5])


def test_a_floor_has_the_unit_of_the_errors_and_no_more():
    errors, spreads = normal_errors(400)
    floor, factor = fitted_floor(errors, spreads)
    assert fitted_floor(1e3 * errors, 1e3 * spreads) == pytest.approx((1e3 * floor, factor))
    assert factor == pytest.approx(3.0, rel=0.15) and floor < 0.3  # the spreads know nearly all
    constant = fitted_floor(np.array([1.0, -1.0] * 50), np.linspace(0.01, 1.0, 100))
    assert constant == pytest.approx((1.0, 0.0), abs=1e-6)  # and here nothing
    assert np.isnan(fitted_floor(errors[:4], spreads[:4])).all()


def test_a_record_gives_the_same_calibration():
    errors, spreads = normal_errors(100)
    found = Calibration.fit(errors, spreads)
    again = Calibration.from_record(json.loads(json.dumps(found.record())))
    assert again.with_floor(spreads) == pytest.approx(found.with_floor(spreads), abs=0)
    assert again.uncertain(spreads) == found.uncertain(spreads) and again.count == 100
    for key, value in (("floor", -1.0), ("threshold", math.nan), ("factor", "much")):
        with pytest.raises(ValueError):
            Calibration.from_record(found.record() | {key: value})


def test_calibration_repairs_what_is_wrong():
    errors, spreads = normal_errors()
    found = Calibration.fit(errors[:2000], spreads[:2000])
    assert found.scale == pytest.approx(3.0, rel=0.05) and found.count == 2000
    before = quality(errors[2000:], spreads[2000:])
    assert before["coverage_68"] < 0.35
    after = {name: quality(errors[2000:], values) for name, values in found.calibrated(spreads[2000:]).items()}
    assert list(after) == ["scaled", "with_floor", "isotonic"]
    for each in after.values():
        assert each["coverage_68"] == pytest.approx(0.68, abs=0.04)
        assert each["coverage_95"] == pytest.approx(0.95, abs=0.025) and each["nll"] < before["nll"]


def test_a_twentieth_of_the_validation_structures_is_uncertain():
    errors, spreads = np.ones(101), np.arange(101.0)
    found = Calibration.fit(errors, spreads)
    assert found.threshold == 95.0 and found.uncertain(spreads).count("yes") == 5
    assert found.uncertain(np.array([95.0, 95.5, np.nan])) == ["no", "yes", ""]
    few = ISOTONIC_FEWEST - 1
    assert Calibration.fit(errors[:few], spreads[:few]).isotonic is None
    assert Calibration.fit(np.array([np.nan]), np.ones(1)) is None
    alone = Calibration.fit(np.ones(3), np.ones(3))
    assert alone.threshold == 1.0 and alone.calibrated(np.ones(3)) == {}


def test_ranks_count_ties_half():
    generator = np.random.default_rng(1)
    first, second = generator.integers(0, 6, 50).astype(float), generator.normal(size=50)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(second, np.exp(second)) == pytest.approx(1.0)
    assert math.isnan(rank_correlation(first, np.ones(50)))


def test_the_area_under_the_curve_by_hand():
    scores, marked = np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])
    assert area_under_roc(scores, marked) == (1 + 0.5 + 2) / 4
    assert math.isnan(area_under_roc(scores, np.ones(4, bool)))

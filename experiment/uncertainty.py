"""What the spread of an ensemble says of its error: rank correlation, coverage, likelihood, calibration.

    (1)  s = sqrt(sum_k (y_k - mean)^2 / (K - 1))       spread of K members
    (2)  NLL = mean(ln(2 pi s^2) / 2 + e^2 / (2 s^2))   of errors e that are normal with the standard deviation s
    (3)  a = sqrt(mean(e^2 / s^2))                      the one factor of s for which (2) is least
    (4)  s' = sqrt(pi / 2) f(s)                         f: isotonic regression of |e| on s; the mean of |e| of a normal
                                                        distribution is sqrt(2 / pi) of its standard deviation
    (5)  s'' = sqrt(c^2 + a^2 s^2)                      the floor c and the factor a for which (2) is least

(1) is that of the members among each other: it knows nothing of an error that all of them make.  How far it is too
small is measured on the validation structures, (3), (4) and (5), and told beside it.  Few members agree by chance: of
two, every twentieth spread is below a sixteenth of that of many, and these decide (3), but not (5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

LEVELS = (0.68, 0.95)  # of the intervals whose coverage is reported
PERCENTILE = 95  # of the spread on the validation structures: above it a prediction is called uncertain
RECORDED = ("threshold", "scale", "floor", "factor")  # of a calibration
FEWEST = 5  # structures that a scale is fitted on
#: a^2 / c^2 of equation (5) that are tried, times the mean of s^2: 0 and both ends far beyond what data can tell
RATIOS = np.concatenate([[0.0], np.logspace(-4, 6, 1001)])
ISOTONIC_FEWEST = 20  # a step function of fewer would be those structures themselves


def spread_of(values: np.ndarray) -> np.ndarray:
    """Equation (1).

    Args:
        values: (K, ...) of K members; NaN where a member has none.

    Returns:
        (...) in their unit, NaN where a member has no value.

    Raises:
        ValueError: fewer than two members.
    """
    if len(values) < 2:
        raise ValueError(f"a spread needs two members or more, got {len(values)}")
    return np.std(values, axis=0, ddof=1)


def negative_log_likelihood(errors: np.ndarray, spreads: np.ndarray) -> float:
    """Equation (2); infinite where a spread is 0 and the error is not.

    Args:
        errors, spreads: (M,) in one unit; the logarithm is that of its number.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.log(2 * np.pi * spreads**2) / 2 + errors**2 / (2 * spreads**2)
    return float(np.mean(np.where(spreads > 0, terms, np.inf)))


def coverage(errors: np.ndarray, spreads: np.ndarray, level: float) -> float:
    """The part of M errors within the central interval that holds ``level`` of a normal distribution.

    Args:
        errors, spreads: (M,) in one unit.
        level: above 0 and below 1.
    """
    width = NormalDist().inv_cdf((1 + level) / 2)
    return float(np.mean(np.abs(errors) <= width * spreads))


def fitted_scale(errors: np.ndarray, spreads: np.ndarray) -> float:
    """Equation (3), of the structures whose spread is not 0; NaN where there are fewer than ``FEWEST``."""
    there = spreads > 0
    if there.sum() < FEWEST:
        return math.nan
    return float(np.sqrt(np.mean((errors[there] / spreads[there]) ** 2)))


def fitted_floor(errors: np.ndarray, spreads: np.ndarray) -> tuple[float, float]:
    """Equation (5): c and a; for each ratio of them the best c has a closed form.  NaN where (3) is.

    Args:
        errors, spreads: (M,) in one unit, which is that of c.
    """
    if (spreads > 0).sum() < FEWEST:
        return math.nan, math.nan
    unit = float(np.mean(spreads**2))
    best, found = math.inf, (math.nan, math.nan)
    for ratio in RATIOS:
        shape = 1 + ratio / unit * spreads**2
        square = float(np.mean(errors**2 / shape))
        loss = (math.log(square) if square else -math.inf) + float(np.mean(np.log(shape)))
        if loss < best:
            best, found = loss, (math.sqrt(square), math.sqrt(square * ratio / unit))
    return found


def fitted_isotonic(errors: np.ndarray, spreads: np.ndarray) -> Callable[[np.ndarray], np.ndarray] | None:
    """Equation (4) as a function of spreads; None where there are fewer than ``ISOTONIC_FEWEST`` structures."""
    if len(errors) < ISOTONIC_FEWEST:
        return None
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415  takes a second

    found = IsotonicRegression(out_of_bounds="clip").fit(spreads, np.abs(errors))
    return lambda values: math.sqrt(math.pi / 2) * found.predict(values)


def relative_spread(spreads: Sequence[np.ndarray], thresholds: Sequence[float]) -> np.ndarray:
    """(M,) mean over properties of spread over threshold, of (M,) spreads of each.

    It tells structures outside of what was learned better than the spread of one property, which is small by chance
    where members are few.
    """
    return np.mean([spread / threshold for spread, threshold in zip(spreads, thresholds, strict=True)], axis=0)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's coefficient of (M,) and (M,); NaN where one of them does not vary."""
    one, other = (_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    norm = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / norm if norm else math.nan


def area_under_roc(scores: np.ndarray, marked: np.ndarray) -> float:
    """How likely a marked structure has a higher score than another one; equal scores count half.

    Args:
        scores: (M,).
        marked: (M,) bool.

    Returns:
        0 to 1; NaN where all are marked, or none.
    """
    count, others = int(marked.sum()), int((~marked).sum())
    if not count or not others:
        return math.nan
    return float(_ranks(scores)[marked].sum() - count * (count + 1) / 2) / (count * others)


@dataclass(frozen=True)
class Calibration:
    """What the validation structures say of spreads.

    Attributes:
        count: of validation structures.
        threshold: the spread above which a prediction is uncertain, in the unit of the target.
        scale: equation (3); NaN where there are too few structures.
        floor, factor: c, in the unit of the target, and a of equation (5); NaN likewise.
        isotonic: equation (4); None likewise.
    """

    count: int
    threshold: float
    scale: float
    floor: float
    factor: float
    isotonic: Callable[[np.ndarray], np.ndarray] | None

    @classmethod
    def fit(cls, errors: np.ndarray, spreads: np.ndarray) -> Calibration | None:
        """Of (V,) errors and spreads of validation structures, NaN where there is none; None without any."""
        there = np.isfinite(spreads) & np.isfinite(errors)
        if not there.any():
            return None
        errors, spreads = errors[there], spreads[there]
        threshold = float(np.percentile(spreads, PERCENTILE))
        numbers = fitted_scale(errors, spreads), *fitted_floor(errors, spreads)
        return cls(len(errors), threshold, *numbers, fitted_isotonic(errors, spreads))

    def record(self) -> dict[str, float]:
        """The numbers, for JSON; without the isotonic regression."""
        numbers = {name: getattr(self, name) for name in RECORDED}
        return {"structures": self.count, **numbers}

    @classmethod
    def from_record(cls, content: Mapping[str, float]) -> Calibration:
        """Undo ``record``.

        Raises:
            LookupError, TypeError, ValueError: it is something else.
        """
        numbers = {name: float(content[name]) for name in RECORDED}
        if not all(math.isfinite(number) and number >= 0 for number in numbers.values()):
            raise ValueError(f"calibration: expected numbers from 0, got {numbers}")
        return cls(int(content["structures"]), **numbers, isotonic=None)

    def uncertain(self, spreads: np.ndarray) -> list[str]:
        """``yes`` or ``no`` for each of (M,) spreads; empty where there is none."""
        return ["" if np.isnan(spread) else "yes" if spread > self.threshold else "no" for spread in spreads]

    def with_floor(self, spreads: np.ndarray) -> np.ndarray:
        """(M,) standard deviations of the error by equation (5)."""
        return np.sqrt(self.floor**2 + (self.factor * spreads) ** 2)

    def calibrated(self, spreads: np.ndarray) -> dict[str, np.ndarray]:
        """(M,) standard deviations of the error, by what was done to the spreads."""
        found = {}
        if math.isfinite(self.scale):
            found["scaled"] = self.scale * spreads
            found["with_floor"] = self.with_floor(spreads)
        if self.isotonic is not None:
            found["isotonic"] = self.isotonic(spreads)
        return found


def uncertain_names(
    names: Sequence[str], calibrations: Sequence[Calibration | None], spreads: Sequence[np.ndarray]
) -> list[str]:
    """For each of M structures the properties whose spread is above the threshold, with commas between them.

    Args:
        names: of the properties.
        calibrations: of each; None where the threshold is not known.
        spreads: (M,) of each.
    """
    high = [
        np.zeros(len(spread), bool) if one is None else spread > one.threshold
        for one, spread in zip(calibrations, spreads, strict=True)
    ]
    return [", ".join(name for name, is_high in zip(names, row, strict=True) if is_high) for row in np.transpose(high)]


def quality(errors: np.ndarray, deviations: np.ndarray) -> dict[str, float]:
    """How (M,) standard deviations describe (M,) errors: ``coverage_68``, ``coverage_95`` and ``nll``."""
    covered = {f"coverage_{round(100 * level)}": coverage(errors, deviations, level) for level in LEVELS}
    return {**covered, "nll": negative_log_likelihood(errors, deviations)}


def _ranks(values: np.ndarray) -> np.ndarray:
    """(M,) from 1; equal values have the mean of their ranks."""
    from scipy.stats import rankdata  # noqa: PLC0415  takes a quarter of a second

    return rankdata(values)

"""How far predicted stresses are from published ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from data_tools.labels.statistics import regression_metrics
from experiment.results import metrics_table

log = logging.getLogger("geospore")
MILLI, UNIT = 1000, "meV/A^3"  # of the log; files have eV/Angstrom^3


def stress_metrics(predicted: np.ndarray | None, published: np.ndarray | None) -> dict[str, float]:
    """Metrics of the nine components of stresses, over those that are known.

    Args:
        predicted, published: (M, 3, 3) eV/Angstrom^3, NaN where unknown.
    """
    assert predicted is not None and published is not None
    known = np.isfinite(published)
    return regression_metrics(predicted[known], published[known])


def measure_stress(
    models: Mapping[str, np.ndarray | None], published: np.ndarray | None
) -> dict[str, dict[str, float]]:
    """Metrics of stress components in eV/Angstrom^3 beside those of zero, logged; empty where no stress is known.

    Args:
        models: name to (M, 3, 3) predicted stresses, eV/Angstrom^3.
        published: (M, 3, 3), NaN where unknown.
    """
    if published is None or not np.isfinite(published).any():
        return {}
    compared = {name: values for name, values in models.items() if values is not None}
    metrics = {
        name: stress_metrics(values, published)
        for name, values in {**compared, "zero": np.zeros_like(published)}.items()
    }
    shown = {
        name: row | {key: MILLI * row[key] for key in ("mae", "rmse", "max_error")} for name, row in metrics.items()
    }
    log.info("components of the stress [%s]:\n%s", UNIT, metrics_table(shown, UNIT))
    return metrics

"""Metrics of predictions beside trivial ones, as train.py and eval.py print them."""

from __future__ import annotations

import logging

import numpy as np

from data_tools import dataset as data
from data_tools.labels.statistics import linear_baseline, mean_baseline, regression_metrics
from data_tools.units import KCAL_PER_MOL
from experiment.results import metrics_table

log = logging.getLogger("geospore")


def baseline_predictions(
    train_labels: np.ndarray, train_counts: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """What the mean of the training labels, and a linear fit on element counts, predict for molecules.

    Args:
        train_labels: (K,) labels of the training molecules.
        train_counts: (K, 119) their element counts.
        counts: (M, 119) element counts of the molecules to predict.
    """
    return {
        "mean of the training labels": mean_baseline(train_labels, len(counts)),
        "linear in element counts": linear_baseline(train_labels, train_counts, counts)[0],
    }


def force_metrics(predicted: np.ndarray | None, published: np.ndarray | None) -> dict[str, float]:
    """Metrics of the components of forces, over those that are known.

    Args:
        predicted, published: (A, 3) in the target's unit per Angstrom, NaN where unknown.
    """
    assert predicted is not None and published is not None
    known = np.isfinite(published)
    return regression_metrics(predicted[known], published[known])


def measure_forces(
    energies: dict[str, float], models: dict[str, np.ndarray], published: np.ndarray | None, unit: str
) -> dict[str, dict[str, float]]:
    """Metrics of force components beside those of zero, logged; empty where no force is known.

    Args:
        energies: metrics in eV of the first of ``models``; empty where none could be measured.
        models: name to (A, 3) predicted forces.
        published: (A, 3), NaN where unknown.
        unit: of the forces.
    """
    if published is None or not np.isfinite(published).any():
        return {}
    metrics = {
        name: force_metrics(values, published) for name, values in {**models, "zero": np.zeros_like(published)}.items()
    }
    log.info("components of the forces [%s]:\n%s", unit, metrics_table(metrics, unit))
    first = next(iter(models))
    log.info("%s: %s", first, in_other_units(energies, metrics[first]))
    return metrics


def in_other_units(energies: dict[str, float], forces: dict[str, float]) -> str:
    """The MAE of energies in eV and of forces in eV/Angstrom, in meV and in kcal/mol."""
    of_energies = ""
    if energies:
        of_energies = f"energy MAE {1000 * energies['mae']:.3f} meV = {energies['mae'] / KCAL_PER_MOL:.4f} kcal/mol, "
    return f"{of_energies}force MAE {1000 * forces['mae']:.3f} meV/A = {forces['mae'] / KCAL_PER_MOL:.4f} kcal/mol/A"


def metrics_of(
    labels: np.ndarray, counts: np.ndarray, predictions: dict[str, np.ndarray], known: list[int]
) -> dict[str, dict[str, float]]:
    """Metrics of several predictions for the same molecules; those with elements unseen in training apart.

    Args:
        labels: (M,) in the target's unit.
        counts: (M, 119) element counts.
        predictions: name to (M,) values in the target's unit.
        known: atomic numbers of the training molecules.
    """
    unseen = data.with_unseen_elements(counts, known)
    parts = {}
    if unseen.any():
        others = data.symbols(sorted(set(data.present_elements(counts)) - set(known)))
        parts = {f", without {others}": ~unseen, f", with {others}": unseen}
    table = {}
    for name, values in predictions.items():
        table[name] = regression_metrics(values, labels)
        for words, part in parts.items():
            if part.any():  # all of them may hold an unseen element
                table[name + words] = regression_metrics(values[part], labels[part])
    return table

"""Errors of predicted force constants and of the phonons that follow from them, beside baselines.

Reference and prediction are compact blocks Phi (p, n, 3, 3) in eV/Angstrom^2 of the same crystal.  Of each material:

- `mae`: mean |Phi' - Phi| over all entries, then over those of an atom with itself (`on_site`), of its first shell and
  of all other pairs (`rest`).  The first shell of an atom: minimum-image distances up to 1.15 times its nearest one.
- `frobenius`: |Phi' - Phi| / |Phi|, of all entries and without the on-site blocks; `slope`: sum Phi' Phi / sum Phi^2.
- of the frequencies w on a 6x6x6 mesh with Gamma and without the non-analytical term, imaginary ones negative, both
  sides in ascending order: mean |w' - w|, mean w' - w, and |max w' - max w| as a temperature.
- free energy, entropy and heat capacity at 300 K an atom: absolute differences; modes of at most 0.05 THz are dropped
  on both sides.
- stable: no frequency away from Gamma is below -0.05 THz.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data_tools.crystals import Crystal
from data_tools.graph import DataError
from experiment.evaluation.shell_means import ShellMeans
from physics.minimum_image import FIRST_SHELL, ON_SITE, REST, minimum_images
from physics.phonons import UNSTABLE, Mesh, mesh_frequencies
from physics.thermal import BOLTZMANN, PLANCK, thermal
from training.meter import LossError

ZERO, SHELL_MEANS = "zero", "mean of pair and shell"
TEMPERATURE = 300.0  # K
KELVIN = PLANCK * 1e12 / BOLTZMANN  # of a THz


class Judged(NamedTuple):
    """Errors of several predictions, baselines among them, for M materials.

    Attributes:
        materials: their names.
        stable: (M,) bool whether the reference is stable; None without phonons.
        errors: whose, to the metric, to (M,) values, NaN where a material has no such pair.
        predicted_stable: whose, to (M,); empty without phonons.
    """

    materials: tuple[str, ...]
    stable: np.ndarray | None
    errors: dict[str, dict[str, np.ndarray]]
    predicted_stable: dict[str, np.ndarray]


def judge(
    crystals: Sequence[Crystal],
    predictions: Mapping[str, Sequence[np.ndarray]],
    baselines: ShellMeans,
    phonons: bool = True,
) -> Judged:
    """Errors of predictions, beside those of zero and of the means of the training set.

    Args:
        crystals: M materials with their reference force constants.
        predictions: whose, to M blocks (p, n, 3, 3) eV/Angstrom^2 in the order of ``crystals``.
        baselines: of the training materials.
        phonons: whether frequencies, thermal properties and stability are compared too.

    Raises:
        DataError: another number or shape of blocks than the crystals have, or see ``phonopy_of``.
        LossError: a prediction is NaN or infinite.
    """
    for whose, blocks in predictions.items():
        _check(crystals, whose, blocks)
    rows: dict[str, list[dict[str, float]]] = {whose: [] for whose in (ZERO, SHELL_MEANS, *predictions)}
    stable: list[bool] = []
    predicted_stable: dict[str, list[bool]] = {whose: [] for whose in rows}
    for place, crystal in enumerate(crystals):
        images = minimum_images(crystal)
        mesh = mesh_frequencies(crystal) if phonons else None
        if mesh is not None:
            stable.append(is_stable(mesh))
        of_all = {ZERO: np.zeros_like(crystal.blocks), SHELL_MEANS: baselines.predict(crystal, images)}
        of_all |= {whose: blocks[place] for whose, blocks in predictions.items()}
        for whose, predicted in of_all.items():
            errors = block_errors(crystal.blocks, predicted, images.shells)
            if mesh is not None:
                found = _frequencies(crystal, predicted, mesh)
                errors |= phonon_errors(mesh, found)
                predicted_stable[whose].append(is_stable(found))
            rows[whose].append(errors)
    return Judged(
        materials=tuple(crystal.name for crystal in crystals),
        stable=np.array(stable, bool) if phonons else None,
        errors={
            whose: {key: np.array([row[key] for row in found]) for key in found[0]} for whose, found in rows.items()
        },
        predicted_stable={whose: np.array(found, bool) for whose, found in predicted_stable.items()} if phonons else {},
    )


def block_errors(reference: np.ndarray, predicted: np.ndarray, shells: np.ndarray) -> dict[str, float]:
    """Errors of the blocks of one material, see the top of the file.

    Args:
        reference, predicted: (p, n, 3, 3) eV/Angstrom^2.
        shells: (p, n) of each pair, see ``physics.minimum_image``.
    """
    difference = predicted - reference
    absolute, off_site = np.abs(difference), shells != ON_SITE
    parts = {"on_site": shells == ON_SITE, "first_shell": shells == FIRST_SHELL, "rest": shells == REST}
    return {
        "mae": float(absolute.mean()),
        **{f"mae_{name}": float(absolute[part].mean()) if part.any() else np.nan for name, part in parts.items()},
        "frobenius": _ratio(np.linalg.norm(difference), np.linalg.norm(reference)),
        "frobenius_off_site": _ratio(np.linalg.norm(difference[off_site]), np.linalg.norm(reference[off_site])),
        "slope": _ratio((predicted * reference).sum(), (reference**2).sum()),
    }


def phonon_errors(reference: Mesh, predicted: Mesh) -> dict[str, float]:
    """Errors of the frequencies of one material on the same mesh, and of what follows from them."""
    difference = predicted.frequencies - reference.frequencies
    weights = reference.weights / reference.weights.sum()
    before, after = thermal(reference, (TEMPERATURE,)), thermal(predicted, (TEMPERATURE,))
    return {
        "frequency_mae": float(weights @ np.abs(difference).mean(axis=1)),
        "frequency_bias": float(weights @ difference.mean(axis=1)),
        "highest_frequency": abs(predicted.highest - reference.highest) * KELVIN,
        "free_energy": float(np.abs(after.free_energy_per_atom - before.free_energy_per_atom)[0]),
        "entropy": float(np.abs(after.entropy_per_atom - before.entropy_per_atom)[0]),
        "heat_capacity": float(np.abs(after.heat_capacity_per_atom - before.heat_capacity_per_atom)[0]),
    }


def is_stable(mesh: Mesh) -> bool:
    """Whether no frequency away from Gamma is below -0.05 THz."""
    return bool(mesh.frequencies[mesh.away_from_gamma].min() >= UNSTABLE)


def _frequencies(crystal: Crystal, predicted: np.ndarray, reference: Mesh) -> Mesh:
    """Those of predicted blocks; without a force all are 0."""
    if not predicted.any():
        return dataclasses.replace(reference, frequencies=np.zeros_like(reference.frequencies))
    return mesh_frequencies(dataclasses.replace(crystal, blocks=predicted))


def _ratio(above: np.floating, below: np.floating) -> float:
    return float(above / below) if below else np.nan


def _check(crystals: Sequence[Crystal], whose: str, blocks: Sequence[np.ndarray]) -> None:
    """Refuse blocks that do not belong to the crystals, and those that are no numbers."""
    if len(blocks) != len(crystals):
        raise DataError(f"{whose}: expected predictions for {len(crystals)} crystals, got {len(blocks)}")
    for crystal, predicted in zip(crystals, blocks, strict=True):
        if predicted.shape != crystal.blocks.shape:
            raise DataError(
                f"{whose}: expected force constants {crystal.blocks.shape} for {crystal.name}, got {predicted.shape}"
            )
    bad = [
        crystal.name for crystal, predicted in zip(crystals, blocks, strict=True) if not np.isfinite(predicted).all()
    ]
    if bad:
        raise LossError(
            f"{whose}: NaN or infinity in the force constants of {len(bad)} of {len(crystals)} crystals: "
            f"{', '.join(bad[:10])}"
        )

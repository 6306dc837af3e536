"""Standardisation of labels, the two trivial baselines and the metrics: all in float64, all from compositions.

A composition is a row of element counts, (M, 119) int32 by atomic number: made once per table by `element_counts`, it
can be indexed by the positions of a split like the labels themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_tools.graph import DataError
from data_tools.labels.targets import MAX_ATOMIC_NUMBER, STANDARDISATIONS

WIDTH = MAX_ATOMIC_NUMBER + 1
RANK_TOLERANCE = 1e-10  # eigenvalues of integers, relative to the largest: rounding leaves 1e-14 of a zero


def element_counts(numbers: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
    """Count the atoms of each element.

    Args:
        numbers: (A,) atomic numbers of all structures, one after the other; no ghosts.
        n_atoms: (M,) atoms per structure.

    Returns:
        (M, 119) int32, column = atomic number; the sum of a row is the number of atoms.

    Raises:
        DataError: an atomic number outside 1..118, or sizes that do not add up.
    """
    if len(numbers) != int(np.sum(n_atoms)):
        raise DataError(f"{int(np.sum(n_atoms))} atomic numbers expected from n_atoms, got {len(numbers)}")
    if len(numbers) and not (1 <= numbers.min() and numbers.max() <= MAX_ATOMIC_NUMBER):
        raise DataError(f"atomic numbers 1..{MAX_ATOMIC_NUMBER} expected, got {numbers.min()}..{numbers.max()}")
    cell = np.repeat(np.arange(len(n_atoms), dtype=np.int64) * WIDTH, n_atoms) + numbers
    return np.bincount(cell, minlength=len(n_atoms) * WIDTH).astype(np.int32).reshape(-1, WIDTH)


@dataclass(frozen=True, eq=False)
class Normalizer:
    """The linear law between the output o of a network and a label y, with n_z atoms of element z and n in all.

        y = scale o + offset,    offset = shift (n if per_atom else 1) + sum_z n_z references_z
        with average:            offset = shift + (1/n) sum_z n_z references_z

    Attributes:
        scale: unit of the label.
        shift: unit of the label.
        per_atom: the shift belongs to every atom.
        average: the network averages over atoms what this law describes per atom, so shift and references are averaged
            too: mean_i(scale h_i + shift + references_{z_i}).
        references: (119,) float64 by atomic number, unit of the label; NaN marks elements without a reference, which
            are refused.  Zeros when the network learns the label itself; else the energies of free atoms, and the
            label is the total energy.
        others: the laws of the further outputs of a network that has several.
    """

    scale: float
    shift: float
    per_atom: bool = False
    average: bool = False
    references: np.ndarray = field(default_factory=lambda: np.zeros(WIDTH))
    others: tuple[Normalizer, ...] = ()

    @property
    def every(self) -> tuple[Normalizer, ...]:
        """The law of each output."""
        return (self, *self.others)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and np.isfinite(self.shift) and self.scale != 0):
            raise DataError(f"finite scale other than 0 and finite shift expected, got {self.scale} and {self.shift}")
        if np.shape(self.references) != (WIDTH,):
            raise DataError(f"references of shape ({WIDTH},) expected, got {np.shape(self.references)}")

    def apply(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Label -> what the network has to put out.

        Args:
            values: (M,) labels.
            counts: (M, 119) element counts of the same structures.

        Returns:
            (M,) float64, without unit.

        Raises:
            DataError: shapes that do not agree, or an element without a reference.
        """
        return (_as_column(values, counts) - self._offset(counts)) / self.scale

    def invert(self, prediction: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Output of the network -> label, in float64: total energies of -1e4 eV do not fit float32.

        Args:
            prediction: (M,) outputs of the network, any float type.
            counts: (M, 119) element counts of the same structures.

        Returns:
            (M,) float64 in the unit of the label.

        Raises:
            DataError: shapes that do not agree, or an element without a reference.
        """
        return _as_column(prediction, counts) * self.scale + self._offset(counts)

    def _offset(self, counts: np.ndarray) -> np.ndarray:
        """(M,) float64: what composition alone contributes to the label."""
        n_atoms = counts.sum(axis=1, dtype=np.float64)
        references = _reference_sums(counts, np.asarray(self.references, np.float64))
        if self.average:
            return self.shift + references / n_atoms
        return self.shift * (n_atoms if self.per_atom else 1.0) + references

    def shares(self, numbers: np.ndarray, n_atoms: np.ndarray) -> np.ndarray:
        """What each atom contributes to the offset of its structure: they add up to it.

        Args:
            numbers: (A,) atomic numbers of M structures, one after the other.
            n_atoms: (M,) atoms per structure.

        Returns:
            (A,) float64 in the unit of the label; a shift that belongs to the structure is divided evenly.
        """
        n = np.repeat(n_atoms, n_atoms).astype(np.float64)
        references = np.asarray(self.references, np.float64)[numbers]
        return (references / n if self.average else references) + (self.shift if self.per_atom else self.shift / n)

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON and checkpoints; references as {atomic number: value}, empty when there are none."""
        used = np.isfinite(self.references) if np.any(self.references != 0) else np.zeros(WIDTH, bool)
        return {
            "scale": float(self.scale),
            "shift": float(self.shift),
            "per_atom": bool(self.per_atom),
            "average": bool(self.average),
            "references": {str(number): float(self.references[number]) for number in np.flatnonzero(used)},
            **({"others": [other.to_dict() for other in self.others]} if self.others else {}),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Normalizer:
        """Undo `to_dict`.

        Raises:
            DataError: a key is missing, or a value is not finite.
        """
        missing = {"scale", "shift", "per_atom", "average", "references"} - set(content)
        if missing:
            raise DataError(f"stored normaliser lacks {', '.join(sorted(missing))}")
        references = np.full(WIDTH, np.nan if content["references"] else 0.0)
        for number, value in content["references"].items():
            if not 0 <= int(number) < WIDTH or not np.isfinite(value):
                raise DataError(f"stored normaliser: expected finite references of elements, got {number}: {value}")
            references[int(number)] = value
        if not np.isfinite([float(content["scale"]), float(content["shift"])]).all():
            raise DataError("stored normaliser: expected a finite scale and shift")
        return cls(
            scale=float(content["scale"]),
            shift=float(content["shift"]),
            per_atom=bool(content["per_atom"]),
            average=bool(content["average"]),
            references=references,
            others=tuple(cls.from_dict(other) for other in content.get("others", ())),
        )


def fit_normalizer(
    values: np.ndarray,
    counts: np.ndarray,
    standardisation: str,
    references: np.ndarray | None = None,
    forces: np.ndarray | None = None,
) -> Normalizer:
    """Constants of the law from the TRAINING molecules; the module ``targets`` says which standardisation fits what.

    none: scale 1.  per_molecule: mean and standard deviation of the labels.  mean_mad: mean and mean absolute deviation
    (SEGNN).  per_atom: mean and standard deviation of label / n (SchNetPack, PyG).  per_element: least-squares
    contribution of each element and the standard deviation of the rest.  scale: root mean square, no shift.

    Args:
        values: (M,) labels of the training molecules.
        counts: (M, 119) their element counts.
        standardisation: one of ``targets.STANDARDISATIONS``.
        references: (119,) by atomic number, subtracted before the fit; only for a network that learns atomisation
            energies while the label is the total energy.  None: zeros.
        forces: (A, 3) of the training molecules in the unit of the label per Angstrom, NaN where unknown; their root
            mean square then is the scale, so that what is learned of them is of size 1.

    Raises:
        DataError: an unknown standardisation, missing labels, or labels that do not vary.
    """
    if standardisation not in STANDARDISATIONS:
        raise DataError(f"unknown standardisation '{standardisation}': one of {', '.join(STANDARDISATIONS)} expected")
    references = np.zeros(WIDTH) if references is None else np.asarray(references, np.float64)
    values = _complete(_as_column(values, counts), "training labels")
    if standardisation == "per_element":
        references = references + _element_contributions(values - _reference_sums(counts, references), counts)
    rest = values - _reference_sums(counts, references)
    shift, scale = 0.0, 1.0
    if standardisation == "scale":
        scale = float(np.sqrt(np.mean(rest**2)))
    elif standardisation == "per_element":
        scale = float(rest.std())
    elif standardisation != "none":
        share = rest / counts.sum(axis=1) if standardisation == "per_atom" else rest
        shift = float(share.mean())
        scale = float(np.abs(share - shift).mean() if standardisation == "mean_mad" else share.std())
    if forces is not None and np.isfinite(forces).any() and standardisation != "none":
        scale = float(np.sqrt(np.nanmean(np.square(forces))))
    # Rounding leaves a constant label with a standard deviation of about 1e-16 of its size instead of 0.
    if scale <= 1e-12 * max(float(np.abs(rest).max()), 1e-300):
        raise DataError(
            f"the {len(values)} training labels do not vary ({standardisation}: scale {scale:.3g}): "
            "use more molecules or standardisation 'none'"
        )
    return Normalizer(scale, shift, per_atom=standardisation == "per_atom", references=references)


def undetermined(train_counts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which compositions are no linear combination of those of training.

    Least squares on the training molecules then say nothing certain of the sum of their elements' contributions: from
    frames of ethanol alone do not determine what a carbon atom adds.

    Args:
        train_counts: (M, 119) element counts of the training molecules.
        counts: (K, 119) element counts; elements that training lacks are left out of the question.

    Returns:
        (K,) bool.
    """
    present = train_counts.any(axis=0)
    known = np.unique(train_counts[:, present], axis=0).astype(np.float64)
    values, directions = np.linalg.eigh(known.T @ known)
    unknown = directions[:, values <= RANK_TOLERANCE * values.max(initial=0.0)]
    return np.abs(counts[:, present] @ unknown).max(axis=1, initial=0.0) > RANK_TOLERANCE**0.5


def mean_baseline(train_values: np.ndarray, count: int) -> np.ndarray:
    """Predict the mean of the training labels for everything.

    Args:
        train_values: (M,) labels of the training molecules.
        count: number of predictions.

    Returns:
        (count,) float64, unit of the label.

    Raises:
        DataError: missing labels.
    """
    return np.full(count, _complete(np.asarray(train_values, np.float64), "training labels").mean())


def linear_baseline(
    train_values: np.ndarray, train_counts: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Predict y = intercept + sum_z n_z c_z, fitted by least squares on the training molecules.

    Where the training set cannot tell elements apart (fewer molecules than elements, fixed ratios) the solution of
    smallest norm is taken, so an element that was never seen contributes nothing.

    Args:
        train_values: (M,) labels of the training molecules.
        train_counts: (M, 119) their element counts.
        counts: (K, 119) element counts of the molecules to predict.

    Returns:
        (K,) float64 predictions in the unit of the label, and the atomic numbers in ``counts`` unseen in training.

    Raises:
        DataError: missing labels or shapes that do not agree.
    """
    values = _complete(_as_column(train_values, train_counts), "training labels")
    seen = np.flatnonzero(train_counts.any(axis=0))
    # Centred columns make the intercept exact and keep it out of the smallest-norm choice.
    mean_counts = train_counts[:, seen].mean(axis=0)
    coefficients = np.linalg.lstsq(train_counts[:, seen] - mean_counts, values - values.mean(), rcond=None)[0]
    prediction = values.mean() + (counts[:, seen] - mean_counts) @ coefficients
    unseen = np.setdiff1d(np.flatnonzero(counts.any(axis=0)), seen)
    return prediction, tuple(int(number) for number in unseen)


def regression_metrics(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Errors of predictions, in float64.

    Args:
        prediction: (M,) unit of the label; a prediction that is not finite makes every metric NaN, it is not dropped.
        label: (M,).

    Returns:
        mae, rmse, max_error in the unit of the label; r2, 1 - residual / total sum of squares (NaN when the labels do
        not vary); count.

    Raises:
        DataError: nothing to compare, missing labels, or shapes that do not agree.
    """
    prediction = np.asarray(prediction, np.float64)
    label = _complete(np.asarray(label, np.float64), "labels")
    if prediction.shape != label.shape:
        raise DataError(f"predictions of shape {label.shape} expected, got {prediction.shape}")
    error = prediction - label
    spread = float(np.sum((label - label.mean()) ** 2))
    return {
        "mae": float(np.mean(np.abs(error))),
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": 1.0 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
        "max_error": float(np.max(np.abs(error))),
        "count": len(label),
    }


def _element_contributions(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(119,) float64: what an atom of each element adds to a label, by least squares without an intercept.

    An element that no training molecule holds gets the mean per atom: a model may still be measured on it.
    """
    contributions = np.full(WIDTH, values.sum() / counts.sum())
    present = np.flatnonzero(counts.any(axis=0))
    contributions[present] = np.linalg.lstsq(counts[:, present].astype(np.float64), values, rcond=None)[0]
    contributions[0] = 0.0
    return contributions


def _reference_sums(counts: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(M,) float64: sum_z n_z references_z over the elements that occur; elements without a reference are refused."""
    present = np.flatnonzero(counts.any(axis=0))
    missing = present[np.isnan(references[present])]
    if len(missing):
        raise DataError(f"atomic numbers {', '.join(map(str, missing))} have no reference energy in this normaliser")
    return counts[:, present] @ references[present]


def _as_column(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(M,) float64; refuses (M, 1), which NumPy would broadcast to (M, M)."""
    values = np.asarray(values, np.float64)
    if counts.ndim != 2 or counts.shape[1] != WIDTH or values.shape != counts.shape[:1]:
        raise DataError(f"values (M,) with counts (M, {WIDTH}) expected, got {values.shape} with {counts.shape}")
    return values


def _complete(values: np.ndarray, what: str) -> np.ndarray:
    """The values themselves; refuses none, NaN and infinity."""
    missing = int(np.sum(~np.isfinite(values)))
    if values.ndim != 1 or len(values) == 0 or missing:
        raise DataError(f"{what}: finite values of shape (M,) expected, got {values.shape} with {missing} missing")
    return values

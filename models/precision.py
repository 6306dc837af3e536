"""What a model computes in float16."""

from __future__ import annotations

from typing import NamedTuple

from mindspore import dtype as mstype

#: MindSpore's names; O1, a white list of operators, has no counterpart here
AMP_LEVELS = ("O0", "O2", "O3")


class Precision(NamedTuple):
    """Precision of the weights, and of two kinds of arithmetic.

    Attributes:
        weights: float32 or float64.
        edges: of features and layers on edges and triplets, where nearly all the work is.
        atoms: of geometry and bases, of all that lives on atoms, of the sums onto atoms and the readout.
    """

    weights: mstype.Type
    edges: mstype.Type
    atoms: mstype.Type


def precision(amp_level: str, dtype: mstype.Type) -> Precision:
    """The precisions of an AMP level.

    O0: ``dtype`` everywhere.  O2: float16 on edges and triplets; geometry, bases and atoms keep ``dtype``, as batch
    normalisation does at MindSpore's O2.  O3: float16 everywhere, with distances good to 2e-3 Angstrom and a sum over
    atoms rounded to 11 bits: made to repeat what others have trained, not to be recommended.

    Args:
        amp_level: one of ``AMP_LEVELS``.
        dtype: of the weights.

    Raises:
        ValueError: unknown level, or float16 beside float64 weights.
    """
    if amp_level not in AMP_LEVELS:
        raise ValueError(f"amp_level {amp_level!r}: expected one of {', '.join(AMP_LEVELS)}")
    if amp_level == "O0":
        return Precision(dtype, dtype, dtype)
    if dtype != mstype.float32:
        raise ValueError(f"amp_level {amp_level} computes in float16: expected dtype float32, got {dtype}".lower())
    return Precision(dtype, mstype.float16, mstype.float32 if amp_level == "O2" else mstype.float16)

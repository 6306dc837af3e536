"""The irreps of a network's nodes, chosen by a number of features as the authors of SEGNN choose them."""

from __future__ import annotations

import numpy as np

from models.e3.irreps import Irreps
from models.e3.tensor_product import fully_connected_paths

SUBSPACES = ("weight_balanced", "balanced")


def hidden_irreps(features: int, lmax: int, lmax_attributes: int, subspace: str) -> Irreps:
    """The irreps of a node.

    ``weight_balanced``: the same number of copies of each degree, such that a product with the attributes has at least
    as many weights as a linear layer of so many features.  ``balanced``: so many components in all, about the same
    number in each degree.

    Raises:
        ValueError: an unknown subspace, or so few features that a degree has no copy.
    """
    degrees = Irreps.spherical_harmonics(lmax)
    if subspace == "balanced":
        copies = [int(features / part.dim / (lmax + 1)) for part in degrees]
        copies[0] += features - sum(mul * part.dim for mul, part in zip(copies, degrees, strict=True))
    elif subspace == "weight_balanced":
        paths = len(fully_connected_paths(degrees, Irreps.spherical_harmonics(lmax_attributes), degrees))
        copies = [int(np.ceil(features / np.sqrt(paths) - 1e-9))] * (lmax + 1)
    else:
        raise ValueError(f"subspace {subspace!r}: expected one of {', '.join(SUBSPACES)}")
    if min(copies) < 1:
        raise ValueError(f"features {features}: expected more, a degree up to {lmax} has no copy of its own")
    return Irreps([(mul, part.ir) for mul, part in zip(copies, degrees, strict=True)])


def with_gates(irreps: Irreps) -> Irreps:
    """What goes into a gate: a scalar more for each copy that is no scalar."""
    return Irreps([(irreps.num_irreps, "0e"), *irreps[1:]])

"""Checkpoints of the first format: their parameters under today's names, their tables of elements with today's rows.

Models then had no parts ``network`` and ``head``, and SchNet's table held 100 elements, DimeNet++'s 95.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.elements import every_row

Arrays = Mapping[str, np.ndarray]

#: beginning of a name to what stands there today; the first that fits counts
NAMES = (
    (r"readout\.", "head."),
    (r"(embedding|embedding\.elements)$", r"network.\1.table"),
    (r"head_(hidden|output)\.", r"network.value.\1."),
    (r"(interactions\.\d+)\.update_(hidden|output)\.", r"network.\1.update.\2."),
    (r"", "network."),
)
TABLES = ("embedding.table", "embedding.elements.table")  # with a row for each element
MOMENTS = ("first.", "second.", "largest.")  # before the names of weights


def todays_name(name: str) -> str:
    """The name of a parameter, or of a moment of one."""
    moment = next((word for word in MOMENTS if name.startswith(word)), "")
    rest = name.removeprefix(moment)
    beginning, today = next(pair for pair in NAMES if re.match(pair[0], rest))
    return moment + re.sub(f"^{beginning}", today, rest)


def todays_arrays(arrays: Arrays) -> dict[str, np.ndarray]:
    """Parameters, their average or their moments; elements beyond the table have numbers 0."""
    renamed = {todays_name(name): values for name, values in arrays.items()}
    return {name: every_row(values) if _is_table(name, values) else values for name, values in renamed.items()}


def todays_information(information: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
    """What a checkpoint says about itself, without the elements that its table did not hold.

    Args:
        information: of the checkpoint.
        arrays: its parameters under their earlier names.
    """
    rows = [len(values) for name, values in arrays.items() if _is_table(todays_name(name), values)]
    elements = information.get("elements")
    if not rows or not isinstance(elements, list):
        return information
    return {**information, "elements": [one for one in elements if not (isinstance(one, int) and one >= min(rows))]}


def _is_table(name: str, values: np.ndarray) -> bool:
    return name.endswith(TABLES) and values.ndim == 2

"""What a run predicts, with every ``auto`` resolved: one target, or several that share a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_tools.graph import DataError
from data_tools.labels.own_property import target_of
from data_tools.labels.targets import Target, allowed_standardisations, check_combination

AUTO, ATTENTION = "auto", "attention"  # readouts
OWN = "own"  # what a checkpoint says of a target that is a property of a user's own data
STORED = ("name", "readout", "reference", "standardisation")  # of what a checkpoint says


@dataclass(frozen=True)
class Task:
    """What is predicted, with every ``auto`` resolved to its value.

    Attributes:
        target, readout, reference, standardisation: see ``targets``.
        others: the further tasks of the same network, one for each of its further outputs.
    """

    target: Target
    readout: str
    reference: str
    standardisation: str
    others: tuple[Task, ...] = ()

    @property
    def every(self) -> tuple[Task, ...]:
        """One task for each output of the network."""
        return (dataclasses.replace(self, others=()), *self.others)

    def to_dict(self) -> dict[str, Any]:
        """Names for a checkpoint's header."""
        return {
            "name": self.target.name,
            "unit": self.target.unit,
            "readout": self.readout,
            "reference": self.reference,
            "standardisation": self.standardisation,
            **({"property": OWN} if self.target.is_own else {}),
            **({"others": [task.to_dict() for task in self.others]} if self.others else {}),
        }


def resolve_task(
    name: str,
    readout: str = AUTO,
    reference: str = AUTO,
    standardisation: str = AUTO,
    unit: str = "",
    own: bool = False,
) -> Task:
    """Look the target up, fill in every ``auto`` and check that the four fit together.

    Args:
        name, readout, reference, standardisation: what is predicted, and how.
        unit, own: as of ``target_of``.

    Raises:
        DataError: unknown target, or a combination that would silently give a bad number.
    """
    target = target_of(name, unit, own)
    readout = target.readouts[0] if readout == AUTO else readout
    reference = target.references[0] if reference == AUTO else reference
    if standardisation == AUTO:
        standardisation = allowed_standardisations(target, readout, reference)[0]
    check_combination(target, readout, reference, standardisation)
    return Task(target, readout, reference, standardisation)


def resolve_tasks(
    names: Sequence[str],
    readout: str = AUTO,
    reference: str = AUTO,
    standardisation: str = AUTO,
    units: Mapping[str, str] | None = None,
    own: bool = False,
    readouts: Mapping[str, str] | None = None,
) -> Task:
    """Several tasks that share a network, each with the readout and the standardisation that ``auto`` means for it.

    A readout or standardisation that is given holds for all, a label definition for those that have several.

    Args:
        names: of the targets, two or more.
        readout, reference, standardisation: as of ``resolve_task``.
        units: of properties of a user's own, by their names.
        own: as of ``target_of``.
        readouts: of some of the targets, by their names, instead of ``readout``.

    Raises:
        DataError: one task or one twice, an unknown target, one whose gradient is learned, or what does not fit.
    """
    units, readouts = units or {}, readouts or {}
    for key, given in (("target.units", units), ("target.readouts", readouts)):
        if unknown := set(given) - set(names):
            raise DataError(f"{key}: {', '.join(sorted(unknown))}: expected names of target.names; correct them")
    if readouts and ATTENTION in (readout, *readouts.values()):
        raise DataError(
            f"target.readouts: expected no {ATTENTION}, which all outputs of a network have or none; give "
            f"target.readout={ATTENTION} alone, or other readouts"
        )
    tasks = []
    for name in names:
        target = target_of(name, units.get(name, ""), own)
        if target.is_of_potential:
            raise DataError(f"target.names: expected properties of structures, found {target.name}; learn it alone")
        definition = reference if reference in (AUTO, *target.references) else target.references[0]
        one = readouts.get(name, readout)
        tasks.append(resolve_task(name, one, definition, standardisation, units.get(name, ""), own))
    found = [task.target.name for task in tasks]
    if len(found) < 2 or len(set(found)) < len(found):
        raise DataError(
            f"target.names {', '.join(found)}: expected two or more different targets; for one, target.name"
        )
    return dataclasses.replace(tasks[0], others=tuple(tasks[1:]))


def task_of(stored: Mapping[str, Any]) -> Task:
    """The task that a checkpoint describes.

    Raises:
        KeyError: something is missing.
        DataError: it does not fit together.
    """
    own = stored.get("property") == OWN
    name, readout, reference, standardisation = (stored[key] for key in STORED)
    task = resolve_task(name, readout, reference, standardisation, stored["unit"] if own else "", own)
    return dataclasses.replace(task, others=tuple(task_of(one) for one in stored.get("others", ())))

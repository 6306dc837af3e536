"""Several models of the same targets: what they predict together, and how far they are apart."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from configs.loading import ConfigError
from configs.rules import check_force_precision
from data_tools.coverage.outside import compare
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.targets import FORCE_CONSTANTS
from data_tools.labels.tasks import Task
from experiment.data import for_model
from experiment.evaluation.evaluator import Predictions
from experiment.shared_networks import SharedNetworks
from experiment.trained import Trained, trained_of
from experiment.uncertainty import spread_of
from training import checkpoint as checkpoints

#: what must be the same of all members, as the task of a checkpoint calls it
SAME = ("name", "unit", "readout", "reference")
WORDS = {"name": "target", "unit": "unit", "readout": "readout", "reference": "label definition"}


@dataclass(frozen=True)
class Ensemble:
    """Models of the same target, or of the same targets in the same order.

    Attributes:
        names: of the members, for tables.
        members: the models, two or more.
    """

    names: tuple[str, ...]
    members: tuple[Trained, ...]

    def only(self, outputs: Sequence[int]) -> Ensemble:
        """The same models with some of their tasks, for what is said of them; all of them predict together."""
        return Ensemble(self.names, tuple(member.only(outputs) for member in self.members))

    @property
    def lead(self) -> Trained:
        """The first member, with only those elements that all members know."""
        known = set.intersection(*(member.known for member in self.members))
        return dataclasses.replace(self.members[0], elements=sorted(known))

    @property
    def title(self) -> str:
        """What tables call the mean."""
        return f"mean of {len(self.members)} members"

    def common(self, key: str) -> bool:
        """Whether the checkpoints of all members say the same of something."""
        first, *others = (member.information.get(key) for member in self.members)
        return all(other == first for other in others)


class Several(NamedTuple):
    """What an ensemble says of M structures with A atoms in all.

    Attributes:
        mean: of the members, without embeddings.
        spread: (M,) standard deviation of their values, NaN where a member has none.
        forces_spread: (A, 3) that of each component of the forces; without rows where they were not asked for.
        members: what each of them says.
        others: the same of each further output of networks with several.
    """

    mean: Predictions
    spread: np.ndarray
    forces_spread: np.ndarray
    members: tuple[Predictions, ...]
    others: tuple[Several, ...] = ()

    @property
    def every(self) -> tuple[Several, ...]:
        """One for each output, in the order of the tasks."""
        return (self._replace(others=()), *self.others)

    def of_rows(self, chosen: np.ndarray) -> Several:
        """The values of some of the structures (M,) bool, of one output."""
        mean, *members = (Predictions(one.values[chosen], one.embeddings[chosen]) for one in (self.mean, *self.members))
        return Several(mean, self.spread[chosen], self.forces_spread, tuple(members))


def load_ensemble(paths: Sequence[str], overrides: Iterable[tuple[str, str]] = ()) -> Ensemble:
    """Read the members, and refuse what does not belong together.

    Args:
        paths: files or run folders, two or more.
        overrides: as of ``experiment.trained.load_trained``.

    Raises:
        ConfigError: two of them have the same weights, or other targets, units, readouts, label definitions or
            cutoffs; models of force constants; or there is no element that all know.
        CheckpointError, DeviceError: as ``load_trained``.
    """
    overrides = list(overrides)
    seen: dict[str, str] = {}
    members: list[Trained] = []
    for path in paths:
        file = checkpoints.find(path)
        checkpoint = checkpoints.load_weights(file)
        digest = _digest(checkpoint.weights)
        if digest in seen:
            raise ConfigError(
                f"--ckpt {path}: expected models that differ, got the weights of {seen[digest]} again; leave one out"
            )
        seen[digest] = path
        members.append(trained_of(checkpoint, file, overrides))
        _check_fits(members[0], str(paths[0]), members[-1], path)
    names = [Path(path).name for path in paths]
    found = Ensemble(tuple(names if len(set(names)) == len(names) else paths), tuple(members))
    if not found.lead.elements:
        raise ConfigError(f"--ckpt {' '.join(paths)}: there is no element that all of these models know; leave one out")
    return found


def _check_fits(first: Trained, its_path: str, other: Trained, path: str) -> None:
    """Refuse a member whose predictions mean something else than those of the first.

    Raises:
        ConfigError: it is one, or a model of force constants.
    """
    if other.task.target.name == FORCE_CONSTANTS:
        raise ConfigError(
            f"--ckpt {path}: several models of force constants are compared by scripts/phonon.py --ckpt, which takes "
            "their mean and spread; give one here"
        )
    wrong = _differences(first.task, other.task)
    cutoffs = first.config.model.cutoff, other.config.model.cutoff
    if cutoffs[0] != cutoffs[1]:
        wrong.append(f"cutoff {cutoffs[1]:g} instead of {cutoffs[0]:g} Angstrom")
    if wrong:
        raise ConfigError(
            f"--ckpt {path}: expected a model like {its_path}, got {', '.join(wrong)}; the mean of such models has no "
            "meaning: leave one out"
        )


def _differences(ours: Task, theirs: Task) -> list[str]:
    """What of the tasks of two models differs, in words."""
    names = [", ".join(task.target.name for task in one.every) for one in (ours, theirs)]
    if names[0] != names[1] and (ours.others or theirs.others):
        return [f"targets {names[1]} instead of {names[0]}"]
    found = []
    for one, other in zip(ours.every, theirs.every, strict=True):
        mine, its = one.to_dict(), other.to_dict()
        about = f" of {one.target.name}" if ours.others else ""
        found += [f"{WORDS[key]}{about} {its[key]} instead of {mine[key]}" for key in SAME if its[key] != mine[key]]
    return found


def _digest(weights: Mapping[str, np.ndarray]) -> str:
    """Of the numbers alone: two files may say different things about the same weights."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(f"{name} {weights[name].dtype} {weights[name].shape}".encode())
        total.update(np.ascontiguousarray(weights[name]).tobytes())
    return total.hexdigest()


def predict_sets(
    ensemble: Ensemble,
    packed: PackedGraphs,
    quantities: Collection[str],
    wanted: Sequence[np.ndarray],
    sets: Sequence[np.ndarray] = (),
    networks: SharedNetworks | None = None,
) -> list[Several]:
    """What the members say of some sets of structures; networks that are alike are compiled once.

    Args:
        ensemble: the models.
        packed: graphs with their cutoff.
        quantities: what is predicted.
        wanted: the sets, each (M,) rows.
        sets: rows that share one static shape with them.
        networks: that have been compiled for other ensembles.

    Raises:
        ConfigError: forces or stress in float16.
    """
    networks = networks or SharedNetworks()
    found: list[list[Predictions]] = [[] for _ in wanted]
    for member in ensemble.members:
        check_force_precision(member.config, quantities)
        graphs = for_model(packed, member.config)
        evaluator = networks.evaluator(member, quantities, graphs, [*sets, *wanted])
        for place, rows in zip(found, wanted, strict=True):
            place.append(evaluator(rows))
    return [together(each, undetermined(ensemble, packed, rows)) for each, rows in zip(found, wanted, strict=True)]


def together(members: Sequence[Predictions], left_out: np.ndarray) -> Several:
    """Mean and spread of what members say.

    Args:
        members: two or more.
        left_out: (M,) bool: structures whose values are none.
    """
    for one in members:
        for values in one.every:
            values[left_out] = np.nan
    first, *others = (
        _together([one._replace(values=one.every[k], others=()) for one in members])
        for k in range(len(members[0].every))
    )
    return first._replace(others=tuple(others))


def _together(members: Sequence[Predictions]) -> Several:
    """Mean and spread of one output."""
    names = ("values", "forces", "stress")
    values, forces, stress = (np.stack([getattr(one, name) for one in members]) for name in names)
    mean = Predictions(values.mean(0), np.zeros((values.shape[1], 0)), forces.mean(0), stress.mean(0))
    return Several(mean, spread_of(values), spread_of(forces), tuple(members))


def undetermined(ensemble: Ensemble, packed: PackedGraphs, rows: np.ndarray) -> np.ndarray:
    """(M,) bool: for whose composition the training of some member gives no reference energy."""
    found, seen = np.zeros(len(rows), bool), []
    for member in ensemble.members:
        learned = member.information.get("range")
        if learned not in seen:  # members of one split have learned from the same structures
            seen.append(learned)
            found |= compare(member.learned, packed, rows).undetermined
    return found

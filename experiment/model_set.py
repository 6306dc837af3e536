"""A set of models: ensembles for several properties in one folder, and what their spread means.

scripts/ship_models.py writes the files of the members and models.json: for each property the members, what the
validation structures have said of their spread (so that a prediction needs no data), and their errors on test
structures.  The set ``qm9`` ships with the project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.loading import ConfigError
from data_tools.formats.spelling import listed
from data_tools.qm9 import SAMPLES
from experiment.ensemble_folder import is_ensemble
from experiment.uncertainty import Calibration
from training.checkpoint import BEST, LAST
from training.files import one_line, write_text

RECORD, PROGRAM = "models.json", "scripts/ship_models.py"
LARGEST = 1_000_000  # bytes of the record
#: names that options may have instead of a folder
SHIPPED = {"qm9": SAMPLES / "qm9_models"}


@dataclass(frozen=True)
class PropertyModels:
    """The models of one property.

    Attributes:
        name: of the target.
        files: the members, two or more.
        calibration: what the validation structures say of their spread.
        about: what else the record says: ``unit``, ``test`` with the errors, ``trained`` with the training.
    """

    name: str
    files: tuple[Path, ...]
    calibration: Calibration
    about: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Its part of models.json."""
        return {"members": [file.name for file in self.files], "calibration": self.calibration.record(), **self.about}


@dataclass(frozen=True)
class ModelSet:
    """Models of several properties.

    Attributes:
        folder: with their files.
        properties: in the order of predictions.
        together: the mean over the properties of spread over threshold that 95 % of the validation structures are
            below; None where they have no validation structures in common, or it is one property.
    """

    folder: Path
    properties: tuple[PropertyModels, ...]
    together: float | None = None

    def only(self, places: Sequence[int]) -> ModelSet:
        """Some of the properties, numbered from 0."""
        every = len(places) == len(self.properties)
        return ModelSet(self.folder, tuple(self.properties[k] for k in places), self.together if every else None)


def is_set(path: str | Path) -> bool:
    """Whether a folder has been made by scripts/ship_models.py."""
    return (Path(path) / RECORD).is_file()


def find_set(paths: Sequence[str]) -> ModelSet | None:
    """The set of models that ``--ckpt`` names: a folder, ``qm9``, or one property of either, as ``qm9/gap``.

    A path that exists comes before the names of what ships.

    Args:
        paths: of the option.

    Returns:
        None where they are something else.

    Raises:
        ConfigError: a set beside other models, a property that it does not have, or a record that cannot be used.
    """
    for path in paths:
        found = _place(path)
        if found is None:
            continue
        if len(paths) > 1:
            raise ConfigError(f"--ckpt {' '.join(paths)}: {path} is a set of models; give it alone")
        folder, name = found
        whole = read_set(folder)
        names = [one.name for one in whole.properties]
        if not name:
            return whole
        if name not in names:
            raise ConfigError(f"--ckpt {path}: expected one of {listed(names)}, got {name}")
        return whole.only([names.index(name)])
    return None


def _place(path: str) -> tuple[Path, str] | None:
    """The folder of a set and a property of it, empty for all; None where the path is something else.

    Raises:
        ConfigError: a folder without models has the name of a set that ships.
    """
    plain = path.rstrip("/")
    parent, _, name = plain.rpartition("/")
    for folder, wanted in ((plain, ""), (parent, name)):
        if not folder:
            continue
        if is_set(folder):
            return (Path(folder), wanted) if not wanted or not Path(plain).exists() else None
        if folder in SHIPPED and not Path(folder).exists():
            return SHIPPED[folder], wanted
        if folder in SHIPPED and not wanted and Path(folder).is_dir() and not _holds_models(Path(folder)):
            raise ConfigError(
                f"--ckpt {path}: the folder {folder} that is here holds no checkpoint and comes before the models that "
                f"ship; for those give --ckpt {SHIPPED[folder]}"
            )
    return None


def _holds_models(folder: Path) -> bool:
    return is_ensemble(folder) or any((folder / name).is_file() for name in (BEST, LAST))


def read_set(folder: Path) -> ModelSet:
    """What the folder of a set says about itself.

    Raises:
        ConfigError: it is damaged, or a file is missing.
    """
    file = folder / RECORD
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["program"] != PROGRAM or not content["properties"]:
            raise ValueError("no program or no property")
        found = tuple(_property(folder, name, one) for name, one in content["properties"].items())
        together = content.get("together")
        if together is not None and not float(together) > 0:
            raise ValueError(f"together: expected a number above 0, got {together}")
    except (OSError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file}: expected the record of a set of models, but it is missing or damaged ({one_line(error)[:200]}); "
            f"write it again with {PROGRAM}, or name the models themselves: --ckpt FILE FILE"
        ) from None
    missing = [path for one in found for path in one.files if not path.is_file()]
    if missing:
        raise ConfigError(f"{file}: {missing[0].name}, which it names, is not there; copy the whole folder again")
    return ModelSet(folder, found, together)


def _property(folder: Path, name: str, content: Mapping[str, Any]) -> PropertyModels:
    """One entry of the record.

    Raises:
        LookupError, TypeError, ValueError: it is something else.
    """
    members = content["members"]
    if len(members) < 2 or any(Path(one).name != one for one in members):
        raise ValueError(f"{name}: expected the names of two files or more")
    about = {key: value for key, value in content.items() if key not in ("members", "calibration")}
    calibration = Calibration.from_record(content["calibration"])
    return PropertyModels(name, tuple(folder / one for one in members), calibration, about)


def write_set(models: ModelSet) -> None:
    """Write models.json, whole or not at all."""
    properties = {one.name: one.record() for one in models.properties}
    content = {"program": PROGRAM, "together": models.together, "properties": properties}
    write_text(models.folder / RECORD, json.dumps(content, indent=1) + "\n")

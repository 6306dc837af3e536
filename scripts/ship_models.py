"""Make a set of models of trained ensembles: small files that predict with calibrated spreads and need no data.

    python scripts/ship_models.py --runs runs/qm9 --output data_tools/samples/qm9_models

--runs is a folder with an ensemble of scripts/ensemble.py for each property or several, or one such ensemble.  --output
gets the weights of each member (the best epoch, without the state of the training) as PROPERTY_0.safetensors, ..., of
networks with several targets with the names of all, and models.json: of each property floor, factor and threshold of
the spread (experiment/uncertainty.py), fitted on the validation structures of the training, and the errors on its test
structures.  ``python eval.py --ckpt FOLDER`` predicts with it.  The data of the training must be at hand.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import ConfigError
from data_tools.graph import DataError
from data_tools.labels.targets import TARGETS
from experiment.command_line import CommandLine, exit_code
from experiment.ensemble_folder import PROGRAM as ENSEMBLES
from experiment.ensemble_folder import is_ensemble, members_of
from experiment.evaluation.evaluator import ENERGY
from experiment.evaluation.several_tasks import UNSAFE
from experiment.model_set import RECORD, ModelSet, PropertyModels, is_set, read_set, write_set
from experiment.selection import select
from experiment.several_models import Ensemble, Several, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.shipped_checkpoint import shipped_checkpoint
from experiment.trained import Trained
from experiment.uncertainty import FEWEST, PERCENTILE, Calibration, relative_spread
from training.checkpoint import save


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandLine(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="with the ensembles, or one of them")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new, or a set to write anew")
    return parser.parse_args(arguments)


def ensembles_of(runs: Path) -> list[Path]:
    """The ensembles that have two finished members or more; those that have not are named on standard error.

    Raises:
        ConfigError: there are none.
    """
    folders = [runs] if is_ensemble(runs) else []
    if not folders and runs.is_dir():
        folders = sorted(path for path in runs.iterdir() if is_ensemble(path))
    if not folders:
        raise ConfigError(f"--runs {runs}: expected ensembles of {ENSEMBLES}, found none; train some first")
    found = []
    for folder in folders:
        try:
            _, left_out = members_of([str(folder)])
        except ConfigError as error:
            print(f"warning: {folder.name} is left out: {error}", file=sys.stderr)
            continue
        if left_out:
            print(f"warning: {folder.name}: {', '.join(left_out)} left out, not finished", file=sys.stderr)
        found.append(folder)
    if not found:
        raise ConfigError(f"--runs {runs}: expected an ensemble with two finished members; finish one first")
    return found


def check_place(output: Path) -> list[Path]:
    """The files of an earlier set in the place of the new one.

    Raises:
        ConfigError: it is a file, or a folder of something else.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}: expected a folder, found a file; choose another name")
    if is_set(output):
        return [file for one in read_set(output).properties for file in one.files]
    if output.is_dir() and any(output.iterdir()):
        raise ConfigError(f"--output {output}: expected a new or empty folder, or a set of models; choose another name")
    return []


class Fitted(NamedTuple):
    """What is found of one property.

    Attributes:
        ensemble: its models, with this task alone.
        calibration: what the validation structures say of the spread.
        about: unit, and errors on the test structures.
        valid: (V,) rows of the validation structures that have a label.
        spread: (V,) their spread.
    """

    ensemble: Ensemble
    calibration: Calibration
    about: dict[str, Any]
    valid: np.ndarray
    spread: np.ndarray


def calibrated(ensemble: Ensemble, networks: SharedNetworks) -> list[Fitted]:
    """What the validation structures say of the spread of each property, and the errors on the test structures.

    Raises:
        DataError: the data of the training cannot be used, or are too few.
    """
    lead = ensemble.lead
    if not ensemble.common("split_sha256"):
        raise DataError(f"{lead.file}: expected members with the same validation structures; train them on one split")
    chosen = select(lead, None, "test", None)
    if chosen.validation is None:
        raise DataError(f"{lead.file}: expected the data of the training, found others; put them back")
    wanted = [chosen.validation, chosen.rows]
    own, found = predict_sets(ensemble, chosen.labelled.packed, (ENERGY,), wanted, chosen.sets, networks)
    return [
        _fitted(ensemble.only([k]), labelled.labels, wanted, (own.every[k], found.every[k]))
        for k, labelled in enumerate(chosen.labelled.every)
    ]


def _fitted(
    ensemble: Ensemble, labels: np.ndarray, rows: Sequence[np.ndarray], every: tuple[Several, Several]
) -> Fitted:
    """The same of one property, of predictions for validation and test structures.

    Raises:
        DataError: they are too few.
    """
    known = [np.isfinite(labels[each]) for each in rows]
    valid, test = (each[there] for each, there in zip(rows, known, strict=True))
    own, found = (several.of_rows(there) for several, there in zip(every, known, strict=True))
    calibration, target = Calibration.fit(own.mean.values - labels[valid], own.spread), ensemble.lead.task.target
    if calibration is None or not math.isfinite(calibration.scale) or not calibration.threshold:
        raise DataError(
            f"{ensemble.lead.file}: expected {FEWEST} validation structures with {target.name} or more to fit the "
            "spread on; train on more"
        )
    errors = [np.nanmean(np.abs(one.values - labels[test])) if len(test) else np.nan
              for one in (found.mean, *found.members)]  # fmt: skip
    mean, *members = map(float, errors)
    about = {"structures": len(test), "mae": mean, "mae_of_members": members}
    return Fitted(ensemble, calibration, {"unit": target.unit, "test": about}, valid, own.spread)


def together(fitted: Sequence[Fitted]) -> float | None:
    """What 95 % of the validation structures are below in the mean over the properties of spread over threshold."""
    first = fitted[0]
    split = first.ensemble.lead.information.get("split_sha256")
    for one in fitted:
        if one.ensemble.lead.information.get("split_sha256") != split or not np.array_equal(one.valid, first.valid):
            return None
    if len(fitted) < 2:
        return None
    thresholds = [one.calibration.threshold for one in fitted]
    return float(np.percentile(relative_spread([one.spread for one in fitted], thresholds), PERCENTILE))


def trained_of_members(ensemble: Ensemble) -> dict[str, Any]:
    """The training: its data, its split, and of each member commit, seed and epoch."""
    first = ensemble.lead.information
    members = [
        {
            "commit": (one.information.get("provenance") or {}).get("commit"),
            "seed": one.config.run.seed,
            "epoch": one.information.get("progress", {}).get("epoch"),
        }
        for one in ensemble.members
    ]
    return {"data": first.get("source"), "split": first.get("split"), "members": members}


def order(name: str) -> tuple[int, str]:
    """Properties of QM9 come in the order of their table, own ones behind them."""
    names = list(TARGETS)
    return (names.index(name) if name in names else len(names), name)


def line_of(models: PropertyModels) -> str:
    """What is printed of a property."""
    test, unit, fitted = models.about["test"], models.about["unit"], models.calibration
    members = ", ".join(f"{error:.4g}" for error in test["mae_of_members"])
    return (
        f"{models.name}: test MAE {test['mae']:.4g} {unit} (members {members}), calibrated spread of "
        f"{fitted.floor:.3g} {unit} and {fitted.factor:.3g} spreads, uncertain above {fitted.threshold:.3g} {unit}"
    )


def ship(folders: Sequence[Path], output: Path, earlier: Sequence[Path]) -> ModelSet:
    """Fit, and write the files; models.json comes last.

    Raises:
        DataError, ConfigError, CheckpointError: an ensemble or its data cannot be used; nothing is written then.
    """
    networks = SharedNetworks()
    found: dict[str, Fitted] = {}
    properties: dict[str, PropertyModels] = {}
    members: dict[Path, Trained] = {}
    for folder in folders:
        ensemble = load_ensemble(members_of([str(folder)])[0])
        names = [task.target.name for task in ensemble.lead.task.every]
        if twice := [name for name in names if name in found]:
            raise ConfigError(
                f"{folder}: expected one ensemble for each property, {twice[0]} is there already; move one"
            )
        files = tuple(output / name for name in file_names(names, len(ensemble.members)))
        for name, one in zip(names, calibrated(ensemble, networks), strict=True):
            about = {**one.about, "trained": trained_of_members(ensemble)}
            found[name], properties[name] = one, PropertyModels(name, files, one.calibration, about)
            print(line_of(properties[name]), flush=True)
        members |= dict(zip(files, ensemble.members, strict=True))
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as stage:  # a full disk leaves an earlier set as it was
        for file, member in members.items():
            save(Path(stage) / file.name, shipped_checkpoint(member, {}))
        for file in members:
            (Path(stage) / file.name).replace(file)
    ordered = tuple(properties[name] for name in sorted(properties, key=order))
    made = ModelSet(output, ordered, together([found[one.name] for one in ordered]))
    write_set(made)
    for file in {*earlier} - {*members}:
        file.unlink(missing_ok=True)
    return made


def file_names(names: Sequence[str], count: int) -> list[str]:
    """Names of the files of ``count`` members that predict the properties ``names``."""
    stem = UNSAFE.sub("_", "-".join(names))
    return [f"{stem}_{number}.safetensors" for number in range(count)]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        options = parse(arguments)
        earlier = check_place(options.output)
        made = ship(ensembles_of(options.runs), options.output, earlier)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    count = len({file for one in made.properties for file in one.files})
    print(f"wrote {count} models and {RECORD} to {options.output}")
    print(f"to predict with them: python eval.py --ckpt {options.output} --smiles CCO")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make a set of models of trained ensembles: small files that predict with calibrated spreads and need no data.

    python scripts/ship_models.py --runs runs/qm9 --output data_tools/samples/qm9_models

--runs is a folder with an ensemble of scripts/ensemble.py for each property, or one such ensemble.  --output gets the
weights of each member (the best epoch, without the state of the training) as PROPERTY_0.safetensors, ..., and
models.json: floor, factor and threshold of the spread (experiment/uncertainty.py), fitted on the validation structures
of the training, and the errors on its test structures.  ``python eval.py --ckpt FOLDER`` predicts with it.  The data of
the training must be at hand.
"""

from __future__ import annotations

import argparse
import math
import sys
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
from experiment.model_set import RECORD, ModelSet, PropertyModels, is_set, read_set, write_set
from experiment.selection import select
from experiment.several_models import Ensemble, load_ensemble, predict_sets
from experiment.shared_networks import SharedNetworks
from experiment.shipped_checkpoint import shipped_checkpoint
from experiment.uncertainty import FEWEST, PERCENTILE, Calibration
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
        ensemble: its models.
        calibration: what the validation structures say of the spread.
        about: unit, and errors on the test structures.
        valid: (V,) rows of the validation structures that have a label.
        ratios: (V,) their spread over the threshold.
    """

    ensemble: Ensemble
    calibration: Calibration
    about: dict[str, Any]
    valid: np.ndarray
    ratios: np.ndarray


def calibrated(ensemble: Ensemble, networks: SharedNetworks) -> Fitted:
    """What the validation structures say of the spread, and the errors on the test structures.

    Raises:
        DataError: the data of the training cannot be used, or are too few.
    """
    lead, target = ensemble.lead, ensemble.lead.task.target
    if not ensemble.common("split_sha256"):
        raise DataError(f"{lead.file}: expected members with the same validation structures; train them on one split")
    chosen = select(lead, None, "test", None)
    if chosen.validation is None:
        raise DataError(f"{lead.file}: expected the data of the training, found others; put them back")
    labels = chosen.labelled.labels
    valid, test = (rows[np.isfinite(labels[rows])] for rows in (chosen.validation, chosen.rows))
    packed = chosen.labelled.packed
    own, found = predict_sets(ensemble, packed, (ENERGY,), [valid, test], chosen.sets, networks)
    calibration = Calibration.fit(own.mean.values - labels[valid], own.spread)
    if calibration is None or not math.isfinite(calibration.scale) or not calibration.threshold:
        raise DataError(f"{lead.file}: expected {FEWEST} validation structures or more to fit the spread on")
    errors = [np.nanmean(np.abs(one.values - labels[test])) for one in (found.mean, *found.members)]
    mean, *members = map(float, errors)
    about = {"structures": len(test), "mae": mean, "mae_of_members": members}
    ratios = own.spread / calibration.threshold
    return Fitted(ensemble, calibration, {"unit": target.unit, "test": about}, valid, ratios)


def together(fitted: Sequence[Fitted]) -> float | None:
    """What 95 % of the validation structures are below in the mean over the properties of spread over threshold."""
    first = fitted[0]
    split = first.ensemble.lead.information.get("split_sha256")
    for one in fitted:
        if one.ensemble.lead.information.get("split_sha256") != split or not np.array_equal(one.valid, first.valid):
            return None
    return (
        None if len(fitted) < 2 else float(np.percentile(np.mean([one.ratios for one in fitted], axis=0), PERCENTILE))
    )


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
    for folder in folders:
        ensemble = load_ensemble(members_of([str(folder)])[0])
        name = ensemble.lead.task.target.name
        if name in found:
            raise ConfigError(f"{folder}: expected one ensemble for each property, {name} is there already; move one")
        found[name] = calibrated(ensemble, networks)
        files = tuple(output / f"{name}_{number}.safetensors" for number in range(len(ensemble.members)))
        about = {**found[name].about, "trained": trained_of_members(ensemble)}
        properties[name] = PropertyModels(name, files, found[name].calibration, about)
        print(line_of(properties[name]), flush=True)
    output.mkdir(parents=True, exist_ok=True)
    for name, models in properties.items():
        for file, member in zip(models.files, found[name].ensemble.members, strict=True):
            save(file, shipped_checkpoint(member, {}))
    ordered = tuple(properties[name] for name in sorted(properties, key=order))
    made = ModelSet(output, ordered, together([found[one.name] for one in ordered]))
    write_set(made)
    for file in {*earlier} - {file for one in made.properties for file in one.files}:
        file.unlink(missing_ok=True)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        options = parse(arguments)
        earlier = check_place(options.output)
        made = ship(ensembles_of(options.runs), options.output, earlier)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    print(f"wrote {sum(len(one.files) for one in made.properties)} models and {RECORD} to {options.output}")
    print(f"to predict with them: python eval.py --ckpt {options.output} --smiles CCO")
    return 0


if __name__ == "__main__":
    sys.exit(main())

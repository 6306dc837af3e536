"""Measure a set of models on the test molecules of its training, and its spread on molecules outside of their range.

    python scripts/benchmarks/shipped_models.py --ckpt qm9 --page results/schnet/shipped_models.md

Errors of the members and of their mean, what the spread says of the error before and after calibration, and how well it
tells molecules outside of what was learned from the test molecules.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import ConfigError
from data_tools.coverage.outside import compare
from data_tools.graph import StructureTable
from data_tools.graphs.packed import pack
from experiment.command_line import CommandLine, exit_code
from experiment.comparison import Rows, markdown
from experiment.ensemble_report import MEAN_LABEL, UNCERTAINTY, EnsembleMeasurement
from experiment.model_set import find_set
from experiment.provenance import Command, command_of
from experiment.report import write_metrics
from experiment.selection import select
from experiment.set_program import COMMON, Loaded, groups_of, load_set, measure_group, predict_loaded
from experiment.shared_networks import SharedNetworks
from experiment.uncertainty import area_under_roc, relative_spread
from scripts.benchmarks.out_of_range import groups
from training.device import versions
from training.files import write_text

PROGRAM = "scripts/benchmarks/shipped_models.py"
MEAN, LINEAR = MEAN_LABEL, "linear in element counts"
ALL = "all together"
ABOVE, NAMED = "above its threshold", "named by the range"
LOW = 0.8  # an area under the curve that is worth little
CONTROL = "validation molecules (control)"


class Measured(NamedTuple):
    """What is found for one property.

    Attributes:
        one: the property and its models.
        test: on the test molecules.
        spreads: of the validation molecules and of each group outside, in the unit of the property.
    """

    one: Loaded
    test: EnsembleMeasurement
    spreads: dict[str, np.ndarray]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandLine(description=__doc__)
    parser.add_argument("--ckpt", default="qm9", metavar="SET", help="a set of scripts/ship_models.py (default: qm9)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="Markdown page to write; a JSON file goes beside it")
    return parser.parse_args(arguments)


def measure(
    group: Sequence[Loaded], outside: dict[str, StructureTable] | None, networks: SharedNetworks
) -> tuple[list[Measured], dict[str, StructureTable], dict[str, float]]:
    """Test molecules, validation molecules and molecules outside.

    Args:
        group: properties that share their models.
        outside: the groups; None: they are made of the test molecules.
        networks: that have been compiled for other properties.

    Returns:
        What is found of each property, the groups, and the share of each that the range of the training names.
    """
    lead = group[0].whole.only([one.output for one in group]).lead
    chosen = select(lead, None, "test", None)
    tests = measure_group(group, chosen, networks)
    if chosen.validation is None:
        raise ConfigError("expected the data of the training, found others; put them back")
    packed = chosen.labelled.packed
    outside = outside or groups(packed.table, chosen.rows)
    own = predict_loaded(group, packed, [chosen.validation], chosen.sets, networks)
    spreads, named = {CONTROL: own}, {CONTROL: _named(lead, packed, chosen.validation)}
    for name, table in outside.items():
        rows, graphs = np.arange(len(table)), pack(table, lead.config.model.cutoff)
        spreads[name], named[name] = (
            predict_loaded(group, graphs, [rows], (), networks),
            _named(lead, graphs, rows),
        )
    every = [
        Measured(one, test, {name: found[k][0].spread for name, found in spreads.items()})
        for k, (one, test) in enumerate(zip(group, tests, strict=True))
    ]
    return every, outside, named


def _named(lead: Any, packed: Any, rows: np.ndarray) -> float:
    return float(np.mean([bool(words) for words in compare(lead.learned, packed, rows).column()]))


def numbers_of(found: Measured) -> dict[str, Any]:
    """What the JSON file says of a property."""
    about, ensemble = found.one.about, found.one.ensemble
    table, spread = found.test.tables["metrics"], found.test.found.spread
    return {
        "unit": ensemble.lead.task.target.unit,
        "mean": table[ensemble.title],
        "members": [table[name] for name in ensemble.names],
        "baselines": {name: table[name] for name in (MEAN, LINEAR)},
        "spread": found.test.uncertainty[UNCERTAINTY],
        "calibration": about.calibration.record(),
        "trained": about.about.get("trained"),
        "auroc": {name: area_under_roc(*_scores(spread, values)) for name, values in found.spreads.items()},
    }


def _scores(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores of both, and which are outside."""
    return np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside)


def together(every: Sequence[Measured], threshold: float | None) -> dict[str, dict[str, float]]:
    """Of the mean over the properties of spread over threshold: AUROC, and which share is above its own threshold."""
    thresholds = [one.one.about.calibration.threshold for one in every]
    inside = relative_spread([one.test.found.spread for one in every], thresholds)
    found: dict[str, dict[str, float]] = {ALL: {}, ABOVE: {}}
    for name in every[0].spreads:
        scores = relative_spread([one.spreads[name] for one in every], thresholds)
        found[ALL][name] = area_under_roc(*_scores(inside, scores))
        found[ABOVE][name] = float(np.mean(scores > (np.inf if threshold is None else threshold)))
    return found


def error_rows(numbers: dict[str, dict[str, Any]]) -> Rows:
    """The table of errors."""
    return [
        {
            "property": name,
            "unit": one["unit"],
            "MAE of members": ", ".join(f"{member['mae']:.4g}" for member in one["members"]),
            "MAE of the mean": f"**{one['mean']['mae']:.4g}**",
            "RMSE": f"{one['mean']['rmse']:.4g}",
            "R2": f"{one['mean']['r2']:.4f}",
            MEAN: f"{one['baselines'][MEAN]['mae']:.4g}",
            LINEAR: f"{one['baselines'][LINEAR]['mae']:.4g}",
        }
        for name, one in numbers.items()
    ]


def spread_rows(numbers: dict[str, dict[str, Any]]) -> Rows:
    """The table of what the spread says of the error."""
    rows = []
    for name, one in numbers.items():
        before, after = (one["spread"]["intervals"][key] for key in ("as_it_is", "with_floor"))
        row = {"property": name, "rank correlation": f"{one['spread']['rank_correlation']:.3f}"}
        for words, found in (("as it is", before), ("calibrated", after)):
            row[f"in 68 / 95 %, {words}"] = f"{100 * found['coverage_68']:.1f} / {100 * found['coverage_95']:.1f} %"
            row[f"NLL, {words}"] = f"{found['nll']:.3g}"
        calibration = one["calibration"]
        row |= {key: f"{calibration[key]:.3g}" for key in ("floor", "factor", "threshold")}
        row["MAE of uncertain / of others"] = (
            f"{one['spread']['mae_uncertain']:.3g} / {one['spread']['mae_others']:.3g}"
        )
        rows.append(row)
    return rows


def auroc_rows(numbers: dict[str, dict[str, Any]], auroc: dict[str, dict[str, float]]) -> Rows:
    """The table of molecules outside."""
    return [
        {
            "group": name,
            "molecules": str(count),
            **{column: f"{one['auroc'][name]:.2f}" for column, one in numbers.items()},
            ALL: f"**{auroc[ALL][name]:.2f}**",
            **{column: f"{100 * auroc[column][name]:.0f} %" for column in (ABOVE, NAMED)},
        }
        for name, count in auroc["molecules"].items()
    ]


def page(content: dict[str, Any], command: Command) -> str:
    """The page."""
    numbers, auroc = content["properties"], content["auroc"]
    digest, dash, mark = str(content["commit"]).partition("-")
    commit = digest[:10] + dash + mark
    weak = [f"{name} ({value:.2f})" for name, value in auroc[ALL].items() if value < LOW and "(control)" not in name]
    first = next(iter(numbers.values()))
    count, fitted = int(first["mean"]["count"]), first["calibration"]["structures"]
    return f"""# The models of QM9 that ship

```text
{command.text}
```

Errors on the {count:,} test molecules of the split `sample`, in the unit of the property; numbers and training in
[shipped_models.json](shipped_models.json), commit {commit}, {content["machine"]}.

{markdown(error_rows(numbers))}
How far the members are apart (spread), and the error of their mean on the same molecules: how many errors are in the
intervals of 68 and 95 %, and the negative log likelihood (NLL), of the spread as it is and calibrated, which is
sqrt(floor^2 + (factor spread)^2), fitted on the {fitted:,} validation molecules (`experiment/uncertainty.py`,
equation 5). Uncertain is what has a spread above the threshold, that of 95 % of the validation molecules.

{markdown(spread_rows(numbers))}
How well the spread tells molecules outside of what was learned from the test molecules: area under the ROC curve, 0.5
where it tells nothing, 1 where it always does; `{ALL}` is the mean over the properties of spread over threshold.
Beside it, how many are above what 95 % of the validation molecules are below (1 in the column `{COMMON}`
of eval.py), and how many the stored range of the training (sizes, distances, charges: column `outside`) names.
Groups whose spread all together tells little, with less than {LOW}: {", ".join(weak) or "none"}.

{markdown(auroc_rows(numbers, auroc))}"""


def run(options: argparse.Namespace, command: Command) -> None:
    """Measure, print, write.

    Raises:
        ConfigError, DataError, CheckpointError: models or data that cannot be used.
    """
    models = find_set([options.ckpt])
    if models is None:
        raise ConfigError(f"--ckpt {options.ckpt}: expected a set of scripts/ship_models.py, or qm9")
    networks, outside, every = SharedNetworks(), None, list[Measured]()
    named: dict[str, float] = {}
    loaded = load_set(models)
    for group in groups_of(loaded):
        found, outside, named = measure(group, outside, networks)
        every += found
        print(f"{', '.join(one.about.name for one in group)}: done", flush=True)
    place = {one.about.name: k for k, one in enumerate(loaded)}
    every.sort(key=lambda one: place[one.one.about.name])
    sizes = {name: len(values) for name, values in every[0].spreads.items()}
    content = {
        **command.record(),
        "machine": machine(),
        "versions": versions(),
        "properties": {found.one.about.name: numbers_of(found) for found in every},
        "auroc": {**together(every, models.together), NAMED: named, "molecules": sizes},
    }
    text = page(content, command)
    print(text)
    if options.page:
        write_text(options.page, text)
        write_metrics(options.page.with_suffix(".json"), content)


def machine() -> str:
    """The processor, as the operating system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    try:
        run(parse(arguments), command)
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

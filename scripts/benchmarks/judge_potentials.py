"""Judge trained potentials on crystals that they have not seen, beside universal potentials, and make them ship.

    python scripts/benchmarks/judge_potentials.py --ckpt runs/one runs/two --data runs/phonondb.npz \
        --peers results/force_constants/peers.json --page results/force_constants/potentials.md \
        --ship data_tools/samples

The crystals are the materials of --peers, whose errors were measured with the same definitions, or those that a file
names, one in a line, such as results/force_constants/valid.txt: to choose between potentials.  Several potentials are
judged one by one and as their mean, and so is what the spread between them says of the error.  --ship writes each
without the state of its training to phonons_1.safetensors, ... with a card of what was found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import json

import numpy as np
from scipy.stats import spearmanr

from configs.loading import ConfigError
from data_tools.crystals import Crystal
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import pack
from data_tools.tables import select_rows
from experiment.command_line import exit_code
from experiment.data import for_model
from experiment.evaluation.force_constant_table import markdown
from experiment.evaluation.force_constants import SHELL_MEANS, ZERO, Judged, judge
from experiment.evaluation.probe_evaluator import ProbeEvaluator
from experiment.evaluation.second_derivatives import crystals_of
from experiment.evaluation.shell_means import ShellMeans
from experiment.phonon_figures import plot_bands
from experiment.provenance import command_of
from experiment.shipped_checkpoint import shipped_checkpoint
from experiment.trained import Trained, load_trained
from physics.force_constants import exchange_asymmetry, sum_rule
from physics.phonon_spectra import band_structure
from scripts.benchmarks.judged_page import Made, page, record_of
from scripts.fold_crystals import names_of
from scripts.help_defaults import Defaults
from training.checkpoint import save
from training.files import write_text

PROGRAM = "scripts/benchmarks/judge_potentials.py"
MEAN = "mean of them"
AT_ONCE = 8  # structures in a batch of columns
SHARE = (10, 90)  # percent: limits of the error over the spread


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--ckpt", nargs="+", required=True, help="run folders or checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="packed file with the materials")
    materials = parser.add_mutually_exclusive_group(required=True)
    materials.add_argument("--peers", type=Path, help="JSON of scripts/peers/potentials.py")
    materials.add_argument("--rows", type=Path, help="text file with their names")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="of the arithmetic")
    parser.add_argument("--page", type=Path, help="Markdown page to write; a JSON file and pictures go beside it")
    parser.add_argument("--ship", type=Path, help="folder for the potentials")
    return parser.parse_args(arguments)


def materials_of(options: argparse.Namespace) -> tuple[list[str], dict[str, Any] | None]:
    """The names of the materials, and what is known of the peers, if they are wanted.

    Raises:
        DataError: a file that is not there or is something else.
    """
    if options.rows:
        return names_of(options.rows), None
    try:
        peers = json.loads(options.peers.read_text(encoding="utf-8"))
        return peers["materials"], peers
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{options.peers}: expected the JSON of scripts/peers/potentials.py ({error})") from None


def rows_of(table: StructureTable, names: Sequence[str]) -> np.ndarray:
    """The rows of some materials, in their order.

    Raises:
        DataError: one is not there.
    """
    place = {name: row for row, name in enumerate(table.names)}
    missing = [name for name in names if name not in place]
    if missing:
        raise DataError(f"{missing[0]}: expected it in the data; {len(missing)} of {len(names)} materials are missing")
    return np.array([place[name] for name in names])


def predicted(trained: Trained, table: StructureTable, dtype: str) -> tuple[list[np.ndarray], float]:
    """Force constants (p, n, 3, 3) of all structures of a table, and CPU seconds for them."""
    packed = for_model(pack(table, trained.config.model.cutoff), trained.config)
    rows = np.arange(len(table))
    evaluator = ProbeEvaluator(trained.model, packed, [rows], trained.normalizer, AT_ONCE, dtype)
    started = time.process_time()
    return list(evaluator(rows).blocks), time.process_time() - started


def beside(judged: Judged, peers: Mapping[str, Any]) -> Judged:
    """Errors and those of the peers, with the baselines of the peers."""
    errors = {
        whose: {key: np.array([np.nan if v is None else v for v in values]) for key, values in of_one.items()}
        for whose, of_one in peers["errors"].items()
    }
    stable = {whose: np.array(values, bool) for whose, values in peers["predicted_stable"].items()}
    own = {whose: found for whose, found in judged.errors.items() if whose not in (ZERO, SHELL_MEANS)}
    return judged._replace(
        errors=errors | own, predicted_stable=stable | {whose: judged.predicted_stable[whose] for whose in own}
    )


def card_of(judged: Judged, whose: str, spreads: np.ndarray | None) -> dict[str, Any]:
    """What the potentials say of themselves: errors on the materials, and what the spread between them means."""
    errors = judged.errors[whose]
    card: dict[str, Any] = {
        "materials": len(judged.materials),
        "median_relative_error": float(np.median(errors["frobenius"])),
        "mae_eV_per_A2": {"mean": float(errors["mae"].mean()), "median": float(np.median(errors["mae"]))},
        "frequency_mae_THz": float(errors["frequency_mae"].mean()),
        "relative_error_percentiles": dict(
            zip(map(str, SHARE), np.percentile(errors["frobenius"], SHARE).tolist(), strict=True)
        ),
    }
    if spreads is not None:
        ratios = errors["frobenius"] / spreads
        lower, upper = np.percentile(ratios, SHARE).tolist()
        card |= {"error_over_spread": float(np.median(ratios)), "lower": lower, "upper": upper,
                 "rank_correlation": float(spearmanr(spreads, errors["frobenius"]).statistic)}  # fmt: skip
    return card


def bands(
    folder: Path, crystals: Sequence[Crystal], blocks: Sequence[np.ndarray], judged: Judged, whose: str
) -> list[tuple[str, str]]:
    """Pictures of the bands of the two best, the median and the worst material; their names and titles."""
    order = np.argsort(judged.errors[whose]["frequency_mae"], kind="stable")
    chosen = {"best": order[0], "second": order[1], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    found = []
    for word, place in chosen.items():
        crystal = crystals[place]
        title = f"{crystal.name}, {judged.errors[whose]['frequency_mae'][place]:.2f} THz ({word})"
        path = folder / f"potentials_bands_{word}.png"
        plot_bands(
            path, band_structure(replace(crystal, blocks=blocks[place])), band_structure(crystal), ["PBEsol"], title
        )
        found.append((path.name, title))
    return found


def residuals(crystals: Sequence[Crystal], blocks: Sequence[np.ndarray]) -> tuple[float, float]:
    """Largest violation of the sum rule and of exchange symmetry over all crystals, eV/Angstrom^2."""
    both = [replace(crystal, blocks=one) for crystal, one in zip(crystals, blocks, strict=True)]
    of_sums = max(float(np.abs(sum_rule(one.blocks)).max()) for one in both)
    return of_sums, max(float(np.abs(exchange_asymmetry(one)).max()) for one in both)


def run(options: argparse.Namespace, command: Any) -> None:
    """Predict, judge, write.

    Raises:
        DataError, ConfigError: a file that does not fit.
    """
    names, peers = materials_of(options)
    table = read_crystal_file(options.data).table
    table = select_rows(table, rows_of(table, names))
    crystals = crystals_of(table, np.arange(len(table)))
    members = [load_trained(path, [("run.dtype", options.dtype)]) for path in options.ckpt]
    if any(member.task.target.name != "force_constants" for member in members):
        raise ConfigError("--ckpt: expected models of the target force_constants")
    found: dict[str, list[np.ndarray]] = {}
    seconds = []
    for number, member in enumerate(members, 1):
        found[f"potential {number}"], used = predicted(member, table, options.dtype)
        seconds.append(used / len(table))
        print(f"{member.file}: {used:.0f} CPU s", flush=True)
    spreads, whose = None, "potential 1"
    if len(members) > 1:
        stacks = [np.stack(several) for several in zip(*found.values(), strict=True)]
        found[MEAN], whose = [stack.mean(axis=0) for stack in stacks], MEAN
        spreads = np.array([np.linalg.norm(s.std(axis=0, ddof=1)) / np.linalg.norm(s.mean(axis=0)) for s in stacks])
        if not spreads.all():
            raise ConfigError("--ckpt: expected potentials that differ, got the same one more than once")
    judged = judge(crystals, found, ShellMeans.of(crystals))
    if peers is not None:
        judged = beside(judged, peers)
    card = card_of(judged, whose, spreads)
    print("\n".join(markdown(judged)), flush=True)
    print(json.dumps(card, indent=1), flush=True)
    if options.page:
        made = Made(members, card, seconds, spreads, residuals(crystals, found[whose]), options.dtype)
        pictures = bands(options.page.parent, crystals, found[whose], judged, whose)
        write_text(options.page, page(judged, made, pictures, command.text))
        record = {**command.record(), **record_of(judged, made, list(found))}
        write_text(options.page.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    if options.ship:
        for number, member in enumerate(members, 1):
            save(options.ship / f"phonons_{number}.safetensors", shipped_checkpoint(member, {"card": card}))


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

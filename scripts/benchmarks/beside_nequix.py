"""Train the equivariant potential and nequix for the same time, and judge both on the same unseen materials.

    python scripts/benchmarks/beside_nequix.py --data runs/train.npz --peers results/force_constants/peers.json \
        --peer_python .venv-peers/bin/python --output runs/beside_nequix --page results/force_constants/equal_time.md

nequix trains in its own interpreter by ``scripts/peers/peer_nequix_training.py``, ours as in ``equal_time.py``.  Run it
on one core: ours counts the time of the clock, nequix that of the processor, which are the same where nothing else
runs.  What is finished is not done again.  A section between two marks of --page is replaced, all else on it stays.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import json

import numpy as np

from configs.loading import ConfigError
from data_tools.graph import DataError
from experiment.command_line import exit_code
from experiment.evaluation.second_derivatives import crystals_of
from experiment.provenance import Command, command_of
from scripts.benchmarks.equal_time import WAYS, Trainings, heading, judged_blocks, line_of, one_way
from scripts.benchmarks.law_residuals import put
from scripts.help_defaults import Defaults
from training.files import write_text

PROGRAM = "scripts/benchmarks/beside_nequix.py"
PEER_PROGRAM = Path(__file__).resolve().parents[1] / "peers" / "peer_nequix_training.py"
START, END = "<!-- nequix -->", "<!-- /nequix -->"
OWN = ("columns", "directions")
#: titles and options of the peer: what its authors publish for random weights, and its other optimiser
PEERS = {
    "nequix": ("nequix, muon, 0.01", {"optimizer": "muon", "learning_rate": "0.01"}),
    "nequix_adamw": ("nequix, adamw, 0.003", {"optimizer": "adamw", "learning_rate": "0.003"}),
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="file of fold_crystals.py, its split beside it")
    parser.add_argument("--peers", type=Path, required=True, help="JSON that names the materials to judge on")
    parser.add_argument("--peer_python", required=True, help="interpreter that has nequix")
    parser.add_argument("--output", type=Path, required=True, help="folder for the trainings")
    parser.add_argument("--minutes", type=float, default=6.0, help="of each training")
    ways = (*OWN, *PEERS)
    parser.add_argument(
        "--ways", nargs="+", choices=ways, default=[*OWN, "nequix"], metavar="WAY", help=", ".join(ways)
    )
    parser.add_argument("--page", type=Path, help="Markdown page with the marks; a JSON file goes beside it")
    return parser.parse_args(arguments)


def peer(name: str, options: argparse.Namespace, trainings: Trainings) -> None:
    """Train nequix and judge it, unless that is done.

    Raises:
        ConfigError: its program cannot be run or failed; it has said why.
    """
    file, folder = options.output / f"{name}.json", options.output / name
    if file.exists():
        return
    given = {
        "data": options.data,
        "peers": options.peers,
        "output": folder,
        "minutes": options.minutes,
        **PEERS[name][1],
    }
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    try:
        done = subprocess.run([options.peer_python, str(PEER_PROGRAM), *words], env=environment, check=False)
    except OSError as error:
        raise ConfigError(f"--peer_python {options.peer_python}: expected an interpreter, {error.strerror}") from None
    if done.returncode:
        raise ConfigError(f"{name}: expected force constants of nequix, its program failed; see the lines above")
    with np.load(folder / "weights.npz") as arrays:
        about = json.loads(str(arrays["about"]))
    blocks, seconds = [], []
    for material in trainings.tested.names:
        with np.load(folder / f"{material}.npz") as arrays:
            blocks.append(arrays["blocks"])
            seconds.append(float(arrays["cpu_seconds"]))
    found = judged_blocks(blocks, crystals_of(trainings.tested, np.arange(len(blocks))))
    record = {**about, "minutes": about["cpu_seconds"] / 60, "cpu_seconds_a_material": float(np.mean(seconds)), **found}
    write_text(file, json.dumps(record, indent=1) + "\n")
    print(f"{name}: {about['steps']:,} steps, MAE {np.mean(found['errors']['mae']):.4f} eV/A^2", flush=True)


def section(records: dict[str, dict[str, Any]], command: Command) -> list[str]:
    """What stands between the marks."""
    titles = {name: WAYS[name].title for name in OWN} | {name: title for name, (title, _) in PEERS.items()}
    lines = [*heading(), *(line_of(titles[name], record) for name, record in records.items())]
    steps = [
        f"{titles[name]}: {60e3 * record['minutes'] / record['steps']:.0f} ms a step, "
        f"{record['cpu_seconds_a_material']:.1f} CPU s for the force constants of a material"
        for name, record in records.items()
    ]
    for name, record in records.items():
        if name in PEERS:
            size, compiling = record["crystals"] / record["steps"], record["compilation_cpu_seconds"]
            versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
            steps.append(f"{titles[name]}: {size:.1f} crystals a step, compiled in {compiling:.0f} CPU s, {versions}")
    return [*lines, "", "; ".join(steps) + ".", "", "```text", command.text, "```"]


def run(options: argparse.Namespace, command: Command) -> None:
    """Train, judge, write.

    Raises:
        DataError, ConfigError: files that do not fit, or a training that failed.
    """
    if options.page and not options.page.is_file():
        raise DataError(f"{options.page}: expected a page with {START} and {END}, found no file")
    trainings = Trainings(options.data, options.peers, options.output)
    for name in options.ways:
        if name in PEERS:
            peer(name, options, trainings)
        else:
            one_way(trainings, name, options.minutes)
    files = {name: options.output / f"{name}.json" for name in (*OWN, *PEERS)}
    records = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    print("\n".join(section(records, command)))
    if options.page:
        put(options.page, section(records, command), START, END)
        record = {**command.record(), "ways": records}
        write_text(options.page.with_name("beside_nequix.json"), json.dumps(record, indent=1) + "\n")


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

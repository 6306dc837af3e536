"""Compare trainings, finished or running: one table, and their curves in one picture.

    python scripts/compare_runs.py runs/*
    python scripts/compare_runs.py PyG=peer/gap GeoSpore=runs/gap --output comparison

Each RUN is a run folder of train.py, or one of the trainings in scripts/peers/; NAME=RUN gives it a name of its own.
The folder of an ensemble stands for its members.
The table has a row for each: how far it is, validation error of its best epoch and test error with their units,
seconds a step, time, versions and commit, and those keys of the configuration in which the runs differ.  It is Markdown
that reads as plain text.  --output FOLDER writes it as table.md and table.csv, and curves.png.  Folders without a run
are left out with a warning; a damaged run is named on standard error, the others are compared, and the exit code is 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from experiment.startup import begin

    begin()

import argparse
import itertools
import json
import logging

from configs.loading import ConfigError
from data_tools.source_files import one_line
from experiment.closed_pipes import until_closed
from experiment.command_line import BAD_INPUT, CommandLine, exit_code
from experiment.comparison import comparison, markdown, notes
from experiment.comparison_figures import MOST_RUNS, plot_comparison
from experiment.ensemble_folder import is_ensemble, member_folder
from experiment.page_folder import REPORT, check_folder, new_folder
from experiment.provenance import command_of
from experiment.run_files import NoRunError, RunError, RunFiles, read_run
from training.files import write_rows, write_text

PROGRAM = "scripts/compare_runs.py"
TABLE, ROWS, CURVES = "table.md", "table.csv", "curves.png"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options.

    Raises:
        ConfigError: an unknown one.
    """
    parser = CommandLine(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or NAME=RUN")
    parser.add_argument("--title", default="", help="of the picture")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"new or empty, for {TABLE}, {ROWS}, {CURVES}")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier comparison in it")
    return parser.parse_args(arguments)


def read_runs(words: list[str]) -> tuple[list[RunFiles], int]:
    """The runs that can be read, and the exit code; a line on standard error for each of the others.

    Raises:
        ConfigError: no run can be read, or two have one name.
    """
    runs: dict[Path, RunFiles] = {}
    code = 0
    for word in itertools.chain.from_iterable(map(members, words)):
        name, equals, folder = word.partition("=")
        named = bool(equals and name and not Path(word).exists())
        path = Path(folder if named else word)
        try:
            if path.resolve() in runs:
                print(f"warning: {path}: left out, it is the folder of {runs[path.resolve()].name}", file=sys.stderr)
                continue
            runs[path.resolve()] = read_run(path, name if named else "")
        except NoRunError as error:
            print(f"warning: {one_line(error)}; left out", file=sys.stderr)
        except (RunError, ConfigError, OSError) as error:
            print(f"error: {one_line(error)}; left out", file=sys.stderr)
            code = BAD_INPUT
    if not runs:
        raise ConfigError("expected folders of trainings such as runs/*, found none that can be compared")
    return unlike_names(list(runs.values())), code


def members(word: str) -> list[str]:
    """The runs of an ensemble's folder, in the order of their seeds; of anything else the word itself."""
    if not is_ensemble(word):
        return [word]
    folders = itertools.takewhile(Path.is_dir, (member_folder(Path(word), seed) for seed in itertools.count()))
    return list(map(str, folders)) or [word]


def unlike_names(runs: list[RunFiles]) -> list[RunFiles]:
    """Runs whose folders have the same name are called by their whole paths."""
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else read_run(run.folder, str(run.folder)) for run in runs]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of(PROGRAM, arguments)
    logging.getLogger("geospore").setLevel(logging.ERROR)  # keys of earlier versions, which mean nothing any more
    try:
        options = parse(arguments)
        if options.output:
            check_folder(options.output, PROGRAM, options.overwrite)
        runs, code = read_runs(options.runs)
        if options.output and len(runs) > MOST_RUNS:
            raise ConfigError(
                f"--output: expected at most {MOST_RUNS} runs in one picture, got {len(runs)}; name fewer, or leave "
                "--output out: the table alone takes all"
            )
        rows, said = comparison(runs), notes(runs)
        for line in said:
            print(f"note: {line}", file=sys.stderr)
        sys.stdout.write(markdown(rows))
        if options.output:
            write(options, runs, rows, said, command.record())
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return code


def write(options: argparse.Namespace, runs: list[RunFiles], rows: list, said: list[str], about: dict) -> None:
    """The files of ``--output``; a picture needs an epoch to draw."""
    with new_folder(options.output, PROGRAM, options.overwrite) as folder:
        text = [markdown(rows), *(f"\nNote: {line}.\n" for line in said)]
        write_text(folder / TABLE, "".join(text))
        write_rows(folder / ROWS, rows)
        files = [TABLE, ROWS]
        if any(run.rows for run in runs):
            plot_comparison(runs, folder / CURVES, options.title)
            files.append(CURVES)
        write_text(folder / REPORT, json.dumps({"program": PROGRAM, "files": files, **about}, indent=2) + "\n")
    print(f"wrote {', '.join(files)} to {options.output}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(until_closed(main))

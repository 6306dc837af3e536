"""Run the hostile cases in one process with bounded memory and time, and judge how each ends.

    python tests/hostile_run.py FOLDER SEED FIRST LAST

One line of JSON a case; also by hand, to see one case again.  A process of its own because a bound on memory holds for
the whole process, and because a reader that kills it must not kill the tests.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("GLOG_v", "3")

import numpy as np
from crystal_samples import ZINC_OXIDE
from hostile_arrays import Payload
from hostile_cases import Case, formats, make_case
from hostile_crystals import complaint_of_crystal, read_forces_only
from hostile_seeds import seeds

from configs.loading import ConfigError
from configs.schema import Config
from configs.writing import config_to_yaml
from data_tools.crystals import Crystal
from data_tools.graph import DataError, StructureTable
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.splits import Split
from experiment.trained import Trained
from scripts.weights.weight_source import WeightError
from training.checkpoint import Checkpoint, CheckpointError

REFUSALS = (DataError, ConfigError, CheckpointError, WeightError)
SECONDS = 8.0  # of computing, for one case; the slowest needs one
PATIENCE = 120.0  # seconds until a case that waits for something is ended, on a machine with other work too
MEGABYTES = 600  # of growth in one case; the neighbours of 100,000 atoms take most
MEMORY = 1 << 30  # bytes of addresses above what the libraries take: where the system stops a case
LONGEST = 700  # characters of a message, besides the path


class TooSlow(BaseException):
    """Not an Exception: no reader may take it for a damaged file."""


def on_alarm(*_: Any) -> None:
    raise TooSlow


def complaint(result: Any) -> str:  # noqa: PLR0911
    """What is wrong with what a reader accepted; empty if it is sound."""
    with np.errstate(all="ignore"):
        if isinstance(result, PackedGraphs):
            return _of_graphs(result)
        if isinstance(result, Crystal | StructureTable):
            return complaint_of_crystal(result) if isinstance(result, Crystal) else _of_force_constants(result)
        if isinstance(result, Split):
            rows = np.concatenate((result.train, result.valid, result.test))
            return "" if len(np.unique(rows)) == len(rows) and set(rows) <= set(range(12)) else "rows out of range"
        if isinstance(result, Config):
            return "" if len(config_to_yaml(result)) < 1e6 else "an endless configuration"
        if isinstance(result, Checkpoint):
            return "" if isinstance(result.information, dict) else "information is no dictionary"
        if isinstance(result, Trained):
            whole = all(np.isfinite(value.asnumpy()).all() for value in result.model.get_parameters())
            known = all(isinstance(number, int) and 0 < number < 119 for number in result.elements)
            return "" if whole and known and np.isfinite(result.normalizer.scale) else "unsound model"
        sound = all(value.dtype.kind in "fiu" and np.isfinite(value).all() for value in result.values())
        return "" if sound else "weights are not finite numbers"


def _of_graphs(packed: PackedGraphs) -> str:
    table = packed.table
    atoms, rows = len(table.numbers), len(table)
    if table.n_atoms.sum() != atoms or table.n_atoms.min() < 1 or table.positions.shape != (atoms, 3):
        return "shapes do not fit"
    if table.numbers.min() < 1 or table.numbers.max() > 118 or table.numbers.dtype.kind not in "iu":
        return "unknown elements"
    if not np.isfinite(table.positions).all() or not 0 < packed.cutoff < np.inf:
        return "not finite"
    labels = [(rows, value) for value in table.of_structures.values()]
    labels += [(atoms, value) for value in table.of_atoms.values()]
    if any(len(value) != count or np.isinf(value).any() for count, value in labels):
        return "labels are not sound"
    largest = np.repeat(table.n_atoms, packed.n_pairs)
    if (packed.pair_receivers >= largest).any() or (packed.pair_senders >= largest).any():
        return "pairs out of range"
    return _of_force_constants(table)


def _of_force_constants(table: StructureTable) -> str:
    constants = table.force_constants
    if constants is None:
        return ""
    cells, sizes = constants.n_primitive, table.n_atoms
    shapes = constants.blocks.shape, constants.p2s.shape, constants.masses.shape
    if shapes != ((int((cells * sizes).sum()), 3, 3), (int(cells.sum()),), (len(table.numbers),)):
        return "force constants of other structures"
    inside = (constants.p2s >= 0) & (constants.p2s < np.repeat(sizes, cells))
    mapped = ((constants.s2p >= 0) & (constants.s2p < np.repeat(sizes, sizes)))[np.repeat(cells > 0, sizes)]
    sound = inside.all() and mapped.all() and np.isfinite(constants.blocks).all()
    return "" if sound else "force constants are not sound"


def kilobytes(name: str) -> int:
    """An entry of the process's status: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def contents(folder: Path) -> set[str]:
    return {os.fsdecode(Path(root) / name) for root, folders, files in os.walk(folder) for name in folders + files}


def judge(case: Case, place: Path) -> tuple[str, str]:
    """``accepted``, ``refused`` or ``FAILED``, and the message or the reason."""
    before = contents(place)
    try:
        result = case.read(case.path)
        outcome, words = "accepted", complaint(result)
        if words:
            outcome, words = "FAILED", f"accepted: {words}"
    except REFUSALS as error:
        outcome, words = "refused", str(error)
        shown = words.replace(str(case.path), "PATH")
        named = case.path.name in words or str(case.path.parent) in words or case.format == "override"
        if not named:
            outcome, words = "FAILED", f"the file is not named: {words}"
        elif "\n" in shown.replace(case.path.name, "") or len(shown) > LONGEST:
            outcome, words = "FAILED", f"not one line of {LONGEST} characters: {words[:900]!r}"
    except TooSlow:
        outcome, words = "FAILED", f"took more than {PATIENCE} s"
    except BaseException as error:
        outcome, words = "FAILED", f"{type(error).__name__}: {str(error)[:200]}"
    signal.setitimer(signal.ITIMER_REAL, 0)
    if contents(place) != before:
        outcome, words = "FAILED", f"left behind: {sorted(contents(place) - before)}"
    return outcome, words


def run(case: Case, place: Path, temporary: Path) -> dict[str, Any]:
    """One case with its bounds; what it prints is a failure too, because the user would see more than one line."""
    said = tempfile.TemporaryFile(dir=temporary.parent)
    kept = os.dup(2)
    os.dup2(said.fileno(), 2)
    sys.stdout, stdout = io.StringIO(), sys.stdout
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    started, memory = time.process_time(), kilobytes("VmRSS")
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            outcome, words = judge(case, place)
    finally:
        sys.stderr.flush()
        sys.stdout, printed = stdout, sys.stdout
        os.dup2(kept, 2)
        os.close(kept)
    seconds = time.process_time() - started
    grown = (kilobytes("VmHWM") - memory) / 1024
    said.seek(0)
    noise = said.read().decode(errors="replace") + printed.getvalue()
    said.close()
    if noise and outcome != "FAILED":
        outcome, words = "FAILED", f"printed {noise[:400]!r}"
    if Path(Payload.marker).exists():
        outcome, words = "FAILED", "code of the file was run"
        Path(Payload.marker).unlink()
    if left := contents(temporary):
        outcome, words = "FAILED", f"temporary files left: {sorted(left)}"
    if seconds > SECONDS:
        outcome, words = "FAILED", f"took {seconds:.1f} s"
    if grown > MEGABYTES:
        outcome, words = "FAILED", f"took {grown:.0f} MB"
    return {"outcome": outcome, "words": words, "seconds": round(seconds, 3), "megabytes": round(grown)}


def main(folder: Path, seed: int, first: int, last: int) -> None:
    """Run cases ``first`` to ``last - 1``."""
    signal.signal(signal.SIGALRM, on_alarm)
    Payload.marker = str(folder / "code_was_run")
    (folder / "good").mkdir(parents=True)
    (folder / "temporary").mkdir()
    table = formats(seeds(folder / "good"))
    for name in ("raw QM9 xyz", "extended xyz", "sdf", "smiles", "checkpoint"):  # libraries take memory once
        kind = table[name]
        kind.read(kind.harms[-1](np.random.default_rng(2), folder / kind.name) or folder / kind.name)
    read_forces_only(ZINC_OXIDE)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    tempfile.tempdir = str(folder / "temporary")
    for number in range(first, last):
        place = folder / f"case{number}"
        place.mkdir()
        case = make_case(table, seed, number, place)
        print(json.dumps({"number": number, "format": case.format, "harm": case.harm}), flush=True)
        print(json.dumps(run(case, place, folder / "temporary")), flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))

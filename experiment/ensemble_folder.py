"""The folder of an ensemble: which runs are its members, and how far they are.

scripts/ensemble.py writes ensemble.json (configuration and number of seeds) and a run folder for each seed, seed0 and
so on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.loading import ConfigError, config_from_dict
from configs.schema import Config
from configs.writing import config_to_dict
from experiment.run_folder import CONFIG, FolderError, files_of_run
from training.checkpoint import LAST
from training.files import one_line, write_text

RECORD, FINISHED, PROGRAM = "ensemble.json", "metrics.json", "scripts/ensemble.py"
LARGEST = 1_000_000  # bytes of the record


@dataclass(frozen=True)
class EnsembleRecord:
    """What an ensemble consists of.

    Attributes:
        config: of every member but for its seed and its folder.
        seeds: how many members there are; their seeds are 0, 1, ...
    """

    config: Config
    seeds: int


def member_folder(folder: Path, seed: int) -> Path:
    """The run folder of a member."""
    return folder / f"seed{seed}"


def is_ensemble(path: str | Path) -> bool:
    """Whether a folder has been made by scripts/ensemble.py."""
    return (Path(path) / RECORD).is_file()


def read_record(folder: Path) -> EnsembleRecord:
    """What the folder of an ensemble says about itself.

    Raises:
        FolderError: it is damaged.
        ConfigError: its configuration does not fit this version of the program.
    """
    file = folder / RECORD
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
        seeds = content["seeds"]
        if content.get("program") != PROGRAM or type(seeds) is not int or not 2 <= seeds < LARGEST:
            raise ValueError("no program or no number of seeds")
        return EnsembleRecord(config_from_dict(content["config"], str(file)), seeds)
    except ConfigError:
        raise
    except (OSError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise FolderError(
            f"{file}: expected the record of an ensemble, but it is damaged ({one_line(error)[:200]}); give another "
            "--output, or name the runs themselves: --ckpt RUN RUN"
        ) from None


def write_record(folder: Path, record: EnsembleRecord) -> None:
    """Write it, whole or not at all; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"program": PROGRAM, "seeds": record.seeds, "config": config_to_dict(record.config)}
    write_text(folder / RECORD, json.dumps(content, indent=2) + "\n")


def is_finished(run: Path) -> bool:
    """Whether a training has come to its end."""
    return (run / FINISHED).is_file()


def can_resume(run: Path) -> bool:
    """Whether a training has begun and can be continued."""
    return (run / CONFIG).is_file() and any(run.glob(f"{Path(LAST).stem}*.safetensors"))


def has_begun(folder: Path, seeds: int) -> bool:
    """Whether some member has written anything."""
    return any(files_of_run(member_folder(folder, seed)) for seed in range(seeds))


def members_of(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs that options of eval.py name, where they are an ensemble.

    Args:
        paths: of ``--ckpt``; one may be the folder of an ensemble.

    Returns:
        The runs, empty where one model alone is named; and the members that have not finished and are left out.

    Raises:
        ConfigError: fewer than two members have finished.
        FolderError: the record of the ensemble is damaged.
    """
    if len(paths) != 1 or not is_ensemble(paths[0]):
        return (list(paths) if len(paths) > 1 else []), []
    folder = Path(paths[0])
    runs = [member_folder(folder, seed) for seed in range(read_record(folder).seeds)]
    finished = [str(run) for run in runs if is_finished(run)]
    if len(finished) < 2:
        raise ConfigError(
            f"--ckpt {folder}: expected two finished members or more, found {len(finished)} of {len(runs)}; call "
            "scripts/ensemble.py again, which goes on where it was"
        )
    return finished, [run.name for run in runs if not is_finished(run)]

"""Add to a checkpoint what its training structures covered, where an older version of the program has trained it.

    python scripts/add_range.py --ckpt runs/RUN/best.safetensors
    python scripts/add_range.py --ckpt runs/RUN --output with_range.safetensors

Predictions are then compared with it, as with that of a new checkpoint.  The data of the run must still be there.
Weights stay as they are, bit for bit.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

from configs.loading import config_from_dict
from data_tools import dataset as data
from data_tools.labels.tasks import task_of
from experiment.command_line import CommandLine, exit_code
from experiment.resolve import open_dataset
from training import checkpoint as checkpoints
from training.checkpoint import CheckpointError


def add_range(path: Path, output: Path | None) -> Path:
    """Write a checkpoint that says its range; returns the file.

    Raises:
        CheckpointError: no checkpoint of a run of the program, or its data are not those of the run.
        DataError: the data cannot be used.
    """
    file = checkpoints.find(path)
    checkpoint = checkpoints.load(file)
    information = checkpoint.information
    missing = [key for key in ("config", "task", "source", "split") if key not in information]
    if missing:
        raise CheckpointError(
            f"{file}: expected a checkpoint that train.py has written, this one does not say its {', '.join(missing)}; "
            "what converted weights were trained on is not known"
        )
    config = config_from_dict(information["config"], str(file))
    task = task_of(information["task"])
    dataset = open_dataset(config, task)
    source = dataset.packed.table.source
    if _identity(source) != _identity(information["source"]) or dataset.split.name != information["split"]:
        raise CheckpointError(
            f"{file}: expected the data and the split of the run, {information['source']}, split "
            f"{information['split']}; found {source}, split {dataset.split.name}"
        )
    information["range"] = data.range_of(dataset, task).to_dict()
    checkpoints.save(output or file, checkpoint)
    return output or file


def _identity(source: str) -> list[str]:
    """The checksums of what was read, or the whole line where it has none: its other words may change."""
    return re.findall(r"\b[0-9a-f]{64}\b", source) or [source]


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = CommandLine(description=__doc__)
    try:
        parser.add_argument("--ckpt", required=True, type=Path, metavar="RUN", help="a checkpoint, or a run folder")
        parser.add_argument("--output", type=Path, metavar="FILE", help="instead of the same file")
        options = parser.parse_args(arguments)
        print(f"wrote {add_range(options.ckpt, options.output)}")
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What scripts/quickstart.sh does with its options: prints the run folder, then the arguments of train.py, one a line.

The first option may be ``crystals``, for another profile.

No arguments follow where the run in that folder is finished.  A run with other settings than those asked for is neither
taken for this one nor continued as this one.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

from cloud.options import is_yes
from configs.loading import ConfigError, load_config
from configs.schema import Config
from configs.writing import config_to_dict
from data_tools.labels.split_sizes import SIZES
from experiment.command_line import exit_code
from experiment.data import resolve_task
from experiment.training_options import overrides_of, parse_arguments
from training import checkpoint as checkpoints

ROOT = Path(__file__).parents[1]
PROFILE = "configs/schnet/qm9_lite_tuned.yaml"
#: profiles by the first option, beside that without
OTHER_PROFILES = {"crystals": "configs/schnet/crystals.yaml"}
#: keys that change no result; an option that names one is compared all the same
ASIDE = {f"run.{name}" for name in ("mode", "device_target", "device_id", "log_every", "save_minutes", "keep", "plots")}
ADAPTING = {f"data.{name}" for name in SIZES}  # to data that an option names
DATA = {f"data.{name}" for name in ("file", "train_file", "test_file", "split", "split_file")}
SHOWN = 4


def plan(arguments: list[str]) -> tuple[Path, list[str]]:
    """The run folder and the arguments of train.py, none where nothing is to be done.

    Raises:
        ConfigError: a wrong option, one that the script cannot take, or a run with other settings in the folder.
        DataError: an unknown target.
    """
    topic = arguments[0] if arguments and arguments[0] in OTHER_PROFILES else ""
    arguments = arguments[1:] if topic else arguments
    profile = OTHER_PROFILES.get(topic, PROFILE)
    options = parse_arguments(arguments)
    for name in ("config", "resume"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name}: this script has its own configuration and folder; for others call train.py")
    given = overrides_of(options)
    wished = load_config(ROOT / profile, given)
    target, usual = (resolve_task(config).target.name for config in (wished, load_config(ROOT / profile)))
    parts = ["quickstart", *([topic] if topic else []), *([target] if target != usual else [])]
    folder = Path(wished.run.output or f"runs/{'_'.join(parts)}")
    finished = (folder / "metrics.json").exists()
    begun = any(folder.glob(f"{Path(checkpoints.LAST).stem}*.safetensors")) and (folder / "config.yaml").exists()
    if options.dry_run or is_yes(options.overwrite, "--overwrite") or not (finished or begun):
        return folder, ["--config", profile, *arguments, "--output", str(folder)]
    asked = {key for key, _ in given}
    other = differences(load_config(folder / "config.yaml"), wished, asked)
    if begun and not finished:  # what options change is for train.py to accept or to refuse
        other = [words for words in other if words.split()[0] not in asked]
    if other:
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        state = "a finished run" if finished else "an unfinished run"
        raise ConfigError(
            f"{folder} holds {state} with other settings than these, which were not applied: "
            f"{', '.join(other[:SHOWN])}{more}; give --output FOLDER for a new run, or --overwrite to replace this one"
        )
    return folder, [] if finished else ["--resume", str(folder), *without_output(arguments)]


def differences(there: Config, wished: Config, asked: set[str]) -> list[str]:
    """The settings of a run that are not those asked for, in words that begin with the key."""
    before, now = config_to_dict(there), config_to_dict(wished)
    aside = (ASIDE | ADAPTING if asked & DATA else ASIDE) - asked
    found = []
    for section, values in now.items():
        for name, value in values.items():
            key, old = f"{section}.{name}", before[section].get(name)
            if old != value and key != "run.output" and key not in aside:
                found.append(f"{key} {old!r} instead of {value!r}")
    return found


def without_output(arguments: list[str]) -> list[str]:
    """Arguments without ``--output``, which a run that continues has."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        if not skip and word != "--output" and not word.startswith("--output="):
            kept.append(word)
        skip = word == "--output"
    return kept


def main(arguments: list[str]) -> int:
    """Run the program; returns the exit code."""
    try:
        folder, command = plan(arguments)
    except Exception as error:
        return exit_code(error)
    print(folder, *command, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Write the weights that a run of DimeNet++ starts from as a state dict of torch_geometric's DimeNetPlusPlus.

    python scripts/weights/export_initial_weights.py --config configs/dimenetpp/qm9_lite.yaml --output initial.npz

They are those of train.py with the same configuration and options: by its seed, or of `training.pretrained`.  The file
holds `sd/<key>` arrays, for `scripts/peers/peer_dimenetpp.py train --initial_weights`; every weight is copied as it is,
those of elements as far as PyG's table goes, and `scripts/convert_weights.py` leads back.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import numpy as np

from configs.loading import ConfigError, load_config, override_of
from experiment.command_line import CommandLine, exit_code
from experiment.data import resolve_task
from experiment.model import build_single
from experiment.resolve import with_names
from scripts.weights.weight_maps import SOURCES
from scripts.weights.weight_source import State
from training import checkpoint as checkpoints
from training.device import set_up
from training.files import replacing
from training.weights import assign, parameters_of

SOURCE = SOURCES["pyg-dimenetpp"]
ROWS = 95  # of PyG's table of elements


def initial_weights(path: str, overrides: Iterable[tuple[str, str]]) -> State:
    """PyG's state dict of the weights that a run starts from.

    Args:
        path: YAML file of the run.
        overrides: (section.key, text) pairs that change it.

    Raises:
        ConfigError: a mistake in it, or another model.
    """
    config = load_config(path, overrides)
    if config.model.name != SOURCE.model:
        raise ConfigError(f"{path}: model.name {config.model.name}: expected {SOURCE.model}")
    run, pretrained = config.run, config.training.pretrained
    task = resolve_task(config)
    set_up(run.mode, run.device_target, run.device_id, run.seed)
    model = build_single(with_names(config, task), task)
    if pretrained:
        assign(model, checkpoints.load(pretrained).weights, pretrained)
    ours = parameters_of(model)
    counts = {name: getattr(config.model, name) for name in SOURCE.repeated}
    state = {theirs: ours[name] for name, theirs in SOURCE.names(counts).items()}
    return {**state, SOURCE.elements: state[SOURCE.elements][:ROWS]}


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    parser = CommandLine(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the run")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="as for train.py")
    parser.add_argument("--output", required=True, type=Path, help=".npz to write")
    try:
        options = parser.parse_args(arguments)
        state = initial_weights(options.config, map(override_of, options.set))
        with replacing(options.output) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{f"sd/{key}": value for key, value in state.items()})
    except Exception as error:  # exit_code raises again what is not a mistake of the user
        return exit_code(error)
    print(f"{options.output}: {sum(value.size for value in state.values()):,} weights under {len(state)} keys")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

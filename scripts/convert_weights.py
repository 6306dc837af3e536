"""Turn the weights of a PyTorch model into a checkpoint of this project, and check that nothing changed on the way.

    python scripts/convert_weights.py --source pyg-schnet --weights model.npz --config configs/schnet/qm9_lite.yaml \
        --set target.readout=sum --check parity.npz --output converted.safetensors

WEIGHTS is a .pt / .pth state dict (needs torch), an .npz with `sd/<key>` arrays, or .safetensors with plain keys.
PyG keeps mean and std outside its state dict: give them with --mean and --std.

Exit code 0: written (and equal within tolerance); 1: the check differs beyond tolerance, nothing is written; 2: a
mistake in the arguments or files, in one line on stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from experiment.startup import begin

if __name__ == "__main__":
    begin()

import mindspore as ms
import numpy as np
from mindspore import nn

from configs.loading import ConfigError, load_config, override_of
from configs.schema import Config
from configs.writing import config_to_dict
from data_tools.dataset import AUTO, Task
from data_tools.labels.statistics import Normalizer
from experiment.command_line import CommandLine, exit_code
from experiment.data import resolve_task
from experiment.model import build
from experiment.resolve import with_names
from models import NEEDS_TRIPLETS
from scripts.weights.parity_file import Golden
from scripts.weights.weight_check import BITS, Difference, compare, evaluate, not_compared, table
from scripts.weights.weight_files import read_weights
from scripts.weights.weight_maps import SOURCES, check_keys, convert, elements_of
from scripts.weights.weight_source import Source, State, WeightError
from training.checkpoint import Checkpoint, save
from training.device import MODES, versions
from training.weights import assign, kept_parameters

DIFFERS = 1


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = CommandLine(description=__doc__)
    parser.add_argument("--source", required=True, choices=tuple(SOURCES), help="where the weights come from")
    parser.add_argument("--weights", required=True, type=Path, help=".pt, .pth, .npz or .safetensors")
    parser.add_argument("--config", required=True, type=Path, help="YAML configuration of the model to build")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the configuration; repeatable"
    )
    parser.add_argument("--mean", type=float, help="PyG's mean, added to every atom's value")
    parser.add_argument("--std", type=float, help="PyG's std, which multiplies every atom's value")
    parser.add_argument("--check", type=Path, metavar="GOLDEN", help="parity file (.npz) to compare with")
    parser.add_argument(
        "--mode", choices=(*MODES, "both"), default="both", help="MindSpore's mode in the check; default: both"
    )
    parser.add_argument("--output", type=Path, help="checkpoint to write (.safetensors); optional with --check")
    parsed = parser.parse_args(arguments)
    if parsed.output is None and parsed.check is None:
        parser.error("give --output CHECKPOINT, --check GOLDEN, or both")
    return parsed


def check_config(config: Config, source: Source, state: State) -> None:
    """Refuse a configuration that contradicts the weights, with every change that would make it fit.

    Raises:
        ConfigError: one line with all ``--set`` options.
    """
    if config.model.name != source.model:
        raise ConfigError(f"these weights are those of the model {source.model!r}; use --set model.name={source.model}")
    counts = {name: count for name, count in source.counts(state).items() if name in source.repeated}
    sizes, names = source.sizes(state), config.target.names
    if names and len(names) != sizes.get("outputs", 1):
        raise ConfigError(
            f"target.names {', '.join(names)}: expected a name for each output of the weights, of which there are "
            f"{sizes.get('outputs', 1)}; correct them"
        )
    changes = [
        f"--set model.{key}={value}"
        for key, value in (sizes | counts).items()
        if not _same(getattr(config.model, key), value) and not (key == "outputs" and names)
    ]
    for task in _asked(config).every:
        allowed = [choice for choice in source.readouts(state) if choice in task.target.readouts]
        if task.readout not in allowed:
            # of all targets only mu is a dipole, and every target has the readout sum
            change = f"target.readout={allowed[0]}" if allowed else "target.name=mu --set target.readout=dipole"
            changes.append(f"--set {change} (target {task.target.name} with readout {task.readout} now)")
    if changes:
        raise ConfigError(f"the configuration contradicts the weights; use {' '.join(changes)}")


def _same(configured: Any, value: Any) -> bool:
    if isinstance(value, float):
        return abs(configured - value) <= 1e-6 * abs(value)  # a cutoff in the weights is a float32 number
    return configured == value


def normalizer_of(source: Source, state: State, config: Config, mean: float | None, std: float | None) -> Normalizer:
    """What the original does to each atom's value before the readout, as the law of our normaliser.

    Raises:
        WeightError: only one of mean and std, or either for a readout that ignores them.
    """
    task = _asked(config)
    readout = task.readout
    if (mean is None) != (std is None):
        raise WeightError("--mean and --std belong together: the original uses both or neither")
    if mean is not None and readout not in ("sum", "mean"):
        raise WeightError(f"--mean and --std have no meaning for readout {readout!r}, where the original ignores them")
    references = source.references(state)
    law = Normalizer(
        scale=1.0 if std is None else std,
        shift=0.0 if mean is None else mean,
        per_atom=readout == "sum",
        average=readout == "mean",
        references=np.zeros(119) if references is None else references,
    )
    return dataclasses.replace(law, others=(law,) * len(task.others))


def task_of(config: Config, normalizer: Normalizer) -> Task:
    """The configuration's task; a model that adds the energies of free atoms predicts total energies."""
    task = _asked(config)
    adds_atoms = bool(np.nan_to_num(normalizer.references).any())
    if adds_atoms and config.target.reference == AUTO and "total" in task.target.references:
        return _asked(config, reference="total")
    return task


def _asked(config: Config, reference: str = "") -> Task:
    """The task of a configuration, but for the standardisation: that of the original is in the normaliser."""
    reference = reference or config.target.reference
    target = dataclasses.replace(config.target, standardisation=AUTO, reference=reference)
    return resolve_task(dataclasses.replace(config, target=target))


def converted_model(config: Config, task: Task, parameters: State, source: Path) -> nn.Cell:
    """The configured model with the converted parameters.

    Raises:
        ConfigError: the constructor refuses a hyperparameter.
        CheckpointError: an array has the wrong shape.
    """
    model = build(with_names(config, task), task)
    # buffers that an origin does not store, such as atomic masses, keep our values
    own = {name: item.asnumpy() for name, item in kept_parameters(model).items() if not item.requires_grad}
    assign(model, {**own, **parameters}, str(source))
    model.set_train(False)
    return model


def information_of(
    config: Config, task: Task, normalizer: Normalizer, elements: list[int], args: argparse.Namespace
) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    return {
        "config": config_to_dict(with_names(config, task)),
        "task": task.to_dict(),
        "normalizer": normalizer.to_dict(),
        "elements": elements,
        "versions": versions(),
        "converted_from": {
            "source": args.source,
            "file": args.weights.name,
            "sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        },
        "progress": {"epoch": 0, "step": 0},
    }


def check(
    path: Path, config: Config, source: Source, parameters: State, normalizer: Normalizer, modes: tuple[str, ...]
) -> list[Difference]:
    """Compare the converted model with a parity file, in float64 and float32 and in each mode."""
    golden = Golden(path, config.model.cutoff, config.model.name in NEEDS_TRIPLETS)
    counts = source.counts_of(config.model)
    cells = {cell for cell, _ in source.observed(counts).values()}
    rows, before = [], ms.get_context("mode")
    try:
        for bits, dtype in BITS.items():
            at_precision = dataclasses.replace(config, run=dataclasses.replace(config.run, dtype=f"float{bits}"))
            model = converted_model(at_precision, task_of(config, normalizer), parameters, path)
            for mode in modes:
                ms.set_context(mode=MODES[mode])
                found = evaluate(model, golden, normalizer, cells, dtype)
                rows += compare(found, golden, source, counts, mode, bits)
    finally:
        ms.set_context(mode=before)
    return rows


def run(args: argparse.Namespace) -> int:
    """Read, convert, check, write; returns the exit code."""
    source = SOURCES[args.source]
    config = load_config(args.config, map(override_of, args.set))
    state = check_keys(args.source, read_weights(args.weights), args.weights)
    try:
        check_config(config, source, state)
    except WeightError as error:
        raise WeightError(f"{args.weights}: {error}") from None
    outputs = getattr(config.model, "outputs", 1)
    if args.output and outputs > 1 and not config.target.names:
        raise ConfigError(
            f"{args.weights}: {outputs} outputs, and a checkpoint says what each of them is; add "
            f"--set target.names={','.join(['NAME'] * outputs)}, or leave out --output"
        )
    parameters = convert(args.source, state)
    normalizer = normalizer_of(source, state, config, args.mean, args.std)
    task = task_of(config, normalizer)
    model = converted_model(config, task, parameters, args.weights)
    count = sum(parameter.size for parameter in model.trainable_params())
    said = "" if len(source.readouts(state)) == 1 else " (from the configuration: the weights do not say)"
    print(f"{args.weights}: {args.source}, {count:,} parameters, readout {task.readout}{said}")
    if args.check:
        modes = tuple(MODES) if args.mode == "both" else (args.mode,)
        rows = check(args.check, config, source, parameters, normalizer, modes)
        print(f"\n{args.check}, {' and '.join(modes)}: largest relative differences\n{table(rows)}")
        if missed := not_compared(args.check, rows):
            print(f"not compared: {', '.join(missed)}")
        beyond = sum(not row.accepted for row in rows)
        if beyond:
            print(f"{beyond} of {len(rows)} differences are beyond tolerance; nothing is written")
            return DIFFERS
        print(f"all {len(rows)} differences are within tolerance")
    if args.output:
        information = information_of(config, task, normalizer, elements_of(args.source, state), args)
        save(args.output, Checkpoint(parameters, information=information))
        print(f"wrote {args.output}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    try:
        return run(parse_arguments(arguments))
    except Exception as error:  # exit_code raises again what is not a mistake of the user
        return exit_code(error)


if __name__ == "__main__":
    raise SystemExit(main())

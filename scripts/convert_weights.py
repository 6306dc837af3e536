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
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mindspore as ms
import numpy as np
from mindspore import nn

from configs.loading import ConfigError, config_to_dict, load_config
from configs.schema import Config
from data_tools.graph import DataError
from data_tools.statistics import Normalizer
from data_tools.targets import Target, get_target
from models import build_model
from scripts.weight_check import BITS, MODES, Difference, Golden, compare, evaluate, table
from scripts.weight_files import read_weights
from scripts.weight_maps import SOURCES, Source, State, WeightError, check_keys, convert
from training.checkpoint import Checkpoint, CheckpointError, assign, save

DIFFERS, BAD_INPUT = 1, 2
ELEMENTS = list(range(1, 100))  # the rows of both originals' embeddings; which of them were trained cannot be seen
MISTAKES = (ConfigError, WeightError, CheckpointError, DataError)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--source", required=True, choices=tuple(SOURCES), help="where the weights come from")
    parser.add_argument("--weights", required=True, type=Path, help=".pt, .pth, .npz or .safetensors")
    parser.add_argument("--config", required=True, type=Path, help="YAML configuration of the model to build")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the configuration; repeatable"
    )
    parser.add_argument("--mean", type=float, help="PyG's mean, added to every atom's value")
    parser.add_argument("--std", type=float, help="PyG's std, which multiplies every atom's value")
    parser.add_argument("--check", type=Path, metavar="GOLDEN", help="parity file (.npz) to compare with")
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both", help="MindSpore's mode in the check")
    parser.add_argument("--output", type=Path, help="checkpoint to write (.safetensors); optional with --check")
    parsed = parser.parse_args(arguments)
    if parsed.output is None and parsed.check is None:
        parser.error("give --output CHECKPOINT, --check GOLDEN, or both")
    return parsed


def readout_of(config: Config) -> str:
    """The readout that a configuration means: its own or, for ``auto``, its target's."""
    own = config.target.readout
    return get_target(config.target.name).readouts[0] if own == "auto" else own


def check_config(config: Config, source: Source, state: State) -> None:
    """Refuse a configuration that contradicts the weights, with every change that would make it fit.

    Raises:
        ConfigError: one line with all ``--set`` options.
    """
    if config.model.name != source.model:
        raise ConfigError(f"these weights are those of the model {source.model!r}; use --set model.name={source.model}")
    changes = [
        f"--set model.{key}={value:g}" if isinstance(value, float) else f"--set model.{key}={value}"
        for key, value in source.sizes(state, source.blocks(state)).items()
        if not _same(getattr(config.model, key), value)
    ]
    target, readout = get_target(config.target.name), readout_of(config)
    allowed = [choice for choice in source.readouts(state) if choice in target.readouts]
    if readout not in allowed:
        # of all targets only mu is a dipole, and every target has the readout sum
        change = f"--set target.readout={allowed[0]}" if allowed else "--set target.name=mu --set target.readout=dipole"
        changes.append(f"{change} (target {target.name} with readout {readout} now)")
    if changes:
        raise ConfigError(f"the configuration contradicts the weights; use {' '.join(changes)}")


def _same(configured: Any, value: Any) -> bool:
    if isinstance(value, float):
        return abs(configured - value) <= 1e-6 * abs(value)  # a cutoff in the weights is a float32 number
    return configured == value


def normalizer_of(source: Source, state: State, readout: str, mean: float | None, std: float | None) -> Normalizer:
    """What the original does to each atom's value before the readout, as the law of our normaliser.

    Raises:
        WeightError: only one of mean and std, or either for a readout that ignores them.
    """
    if (mean is None) != (std is None):
        raise WeightError("--mean and --std belong together: the original uses both or neither")
    if mean is not None and readout not in ("sum", "mean"):
        raise WeightError(f"--mean and --std have no meaning for readout {readout!r}, where the original ignores them")
    references = source.references(state)
    return Normalizer(
        scale=1.0 if std is None else std,
        shift=0.0 if mean is None else mean,
        per_atom=readout == "sum",
        average=readout == "mean",
        references=np.zeros(119) if references is None else references,
    )


def build(config: Config, dtype: str, parameters: State, source: str) -> nn.Cell:
    """The configured model with the converted parameters.

    Raises:
        ConfigError: the constructor refuses a hyperparameter.
        CheckpointError: an array has the wrong shape.
    """
    hyperparameters = {key: value for key, value in config_to_dict(config)["model"].items() if key != "name"}
    try:
        model = build_model(config.model.name, dtype=dtype, readout=readout_of(config), **hyperparameters)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    # buffers that an origin does not store, such as atomic masses, keep our values
    own = {item.name: item.asnumpy() for item in model.get_parameters() if not item.requires_grad}
    assign(model, {**own, **parameters}, source)
    model.set_train(False)
    return model


def information_of(config: Config, normalizer: Normalizer, args: argparse.Namespace) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    target = get_target(config.target.name)
    return {
        "config": config_to_dict(config),
        "normalizer": normalizer.to_dict(),
        "target": {
            "name": target.name,
            "unit": target.unit,
            "reference": _reference(config, target, normalizer),
            "readout": readout_of(config),
        },
        "elements": ELEMENTS,
        "versions": {name: version(name) for name in ("mindspore", "numpy")},
        "converted_from": {
            "source": args.source,
            "file": args.weights.name,
            "sha256": hashlib.sha256(args.weights.read_bytes()).hexdigest(),
        },
        "progress": {"epoch": 0, "step": 0},
    }


def _reference(config: Config, target: Target, normalizer: Normalizer) -> str:
    """The definition of the label; a model that adds energies of free atoms predicts total energies."""
    if config.target.reference != "auto":
        return config.target.reference
    adds_atoms = bool(np.nan_to_num(normalizer.references).any())
    return "total" if adds_atoms and "total" in target.references else target.references[0]


def check(
    path: Path, config: Config, source: Source, parameters: State, normalizer: Normalizer, modes: tuple[str, ...]
) -> list[Difference]:
    """Compare the converted model with a parity file, in float64 and float32 and in each mode."""
    golden = Golden(path, config.model.cutoff)
    rows, before = [], ms.get_context("mode")
    try:
        for bits, dtype in BITS.items():
            model = build(config, f"float{bits}", parameters, str(path))
            for mode in modes:
                ms.set_context(mode=MODES[mode])
                found = evaluate(model, golden, normalizer, source, dtype)
                rows += compare(found, golden, source, config.model.blocks, mode, bits)
    finally:
        ms.set_context(mode=before)
    return rows


def run(args: argparse.Namespace) -> int:
    """Read, convert, check, write; returns the exit code.

    Raises:
        ValueError: a mistake in the arguments or files, of any of the classes in ``MISTAKES``.
    """
    source = SOURCES[args.source]
    config = load_config(args.config, [_override(text) for text in args.set])
    try:
        state = check_keys(args.source, read_weights(args.weights))
        check_config(config, source, state)
        parameters = convert(args.source, state)
    except (WeightError, ConfigError) as error:
        raise type(error)(str(error) if str(args.weights) in str(error) else f"{args.weights}: {error}") from None
    readout = readout_of(config)
    normalizer = normalizer_of(source, state, readout, args.mean, args.std)
    model = build(config, config.run.dtype, parameters, str(args.weights))
    count = sum(int(np.prod(parameter.shape)) for parameter in model.trainable_params())
    said = "" if len(source.readouts(state)) == 1 else " (from the configuration: the weights do not say)"
    print(f"{args.weights}: {args.source}, {count:,} parameters, readout {readout}{said}")
    if args.check:
        modes = tuple(MODES) if args.mode == "both" else (args.mode,)
        rows = check(args.check, config, source, parameters, normalizer, modes)
        print(f"\n{args.check}, {' and '.join(modes)}: largest relative differences\n{table(rows)}")
        beyond = [row for row in rows if not row.accepted]
        if beyond:
            print(f"\n{len(beyond)} of {len(rows)} differences are beyond tolerance; nothing is written")
            return DIFFERS
        print(f"all {len(rows)} differences are within tolerance")
    if args.output:
        save(args.output, Checkpoint(parameters, information=information_of(config, normalizer, args)))
        print(f"wrote {args.output}")
    return 0


def _override(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected section.key=value, for example model.cutoff=10")
    return key, value


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    args = parse_arguments(arguments)
    try:
        return run(args)
    except (*MISTAKES, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    raise SystemExit(main())

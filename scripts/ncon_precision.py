"""What float16 does in the products of a SEGNN: ``ncon_dtype: float16`` beside float32 and float64.

    python scripts/ncon_precision.py --ckpt runs/RUN --output results/segnn/ncon_float16.md
    python scripts/ncon_precision.py --config configs/segnn/qm9_mini.yaml

Every product of every layer is computed in float16 by the model's own cells, from the activations of the float64
model, and each path l1 x l2 -> l3 alone; overflow and underflow are counted, forwards and backwards.  Then follow the
effect on predictions and on their gradients with respect to positions, and the time of a train step.  The structures
are the first of the test split in an order drawn with a fixed seed.  Several runs or configurations make a page with a
part for each.  With --output FILE.md every figure is also written to FILE.json; without it the page goes to standard
output.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from experiment.startup import begin

    begin()

import argparse
import json
from typing import Any

from configs.loading import ConfigError
from experiment.closed_pipes import until_closed
from experiment.command_line import exit_code
from experiment.provenance import command_of
from scripts.benchmarks.timed_steps import answer
from scripts.help_defaults import Defaults
from scripts.ncon_parts.ncon_effect import measure_effect
from scripts.ncon_parts.ncon_gradients import measure_gradients
from scripts.ncon_parts.ncon_page import Report, page, record_of
from scripts.ncon_parts.ncon_products import accumulation, measure_products
from scripts.ncon_parts.ncon_steps import measure_steps, steps_of
from scripts.ncon_parts.ncon_subject import Subject, open_checkpoint, open_configuration
from scripts.ncon_parts.ncon_verdict import recommendation
from training.files import write_text


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options.

    Raises:
        ConfigError: they do not fit together.
    """
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ckpt", nargs="+", default=[], metavar="RUN", help="run folders or checkpoints of segnn")
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="FILE", help="configurations of segnn, with initial weights"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the configurations; repeatable"
    )
    parser.add_argument("--structures", type=int, default=64, metavar="N", help="test structures")
    parser.add_argument("--batch_size", type=int, default=32, help="of gradients and of timed steps")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of timed steps of each precision; 0: none")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a block")
    parser.add_argument("--output", type=Path, help="Markdown file of the page, beside which a JSON file is written")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)  # precision and path: only run steps, on request
    options = parser.parse_args(arguments)
    if not options.ckpt and not options.config:
        raise ConfigError("expected --ckpt RUN or --config FILE; --help lists the options")
    for name, least in (("structures", 1), ("batch_size", 1), ("rounds", 0), ("steps", 1)):
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} {getattr(options, name)}: expected at least {least}")
    for text in options.set:
        if "=" not in text:
            raise ConfigError(f"--set {text}: expected section.key=value, for example --set model.blocks=2")
    if options.output and options.output.suffix != ".md":
        raise ConfigError(f"--output {options.output}: expected the name of a Markdown file, *.md")
    return options


def sources_of(options: argparse.Namespace) -> list[list[str]]:
    """Of each subject, the options that name it."""
    changes = [word for text in options.set for word in ("--set", text)]
    return [["--ckpt", path] for path in options.ckpt] + [["--config", file, *changes] for file in options.config]


def open_subject(options: argparse.Namespace, source: list[str]) -> Subject:
    """The subject that some options name."""
    if source[0] == "--ckpt":
        return open_checkpoint(source[1], options.structures)
    changes = [(key, value) for key, _, value in (text.partition("=") for text in options.set)]
    return open_configuration(source[1], changes, options.structures)


def measure(options: argparse.Namespace, source: list[str], subject: Subject) -> Report:
    """All figures of a subject."""
    say(f"{subject.about}: products")
    products = measure_products(subject, subject.batch(subject.rows))
    say("gradients")
    backward = measure_gradients(subject, options.batch_size)
    say("predictions")
    effect = measure_effect(subject)
    times = []
    if options.rounds:
        say("steps")
        words = [*source, "--batch_size", str(options.batch_size)]
        times = measure_steps(Path(__file__), words, subject.config.run.dtype, options.rounds, options.steps)
    return Report(subject, products, backward, effect, times)


def say(words: str) -> None:
    """A line on standard error: what begins."""
    print(words, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    command = command_of("scripts/ncon_precision.py", sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(arguments)
        if options.serve:
            subject = open_subject(options, sources_of(options)[0])
            ncon_dtype, path = options.serve
            answer(steps_of(subject, ncon_dtype, path, options.batch_size))
            return 0
        opened = [(source, open_subject(options, source)) for source in sources_of(options)]  # mistakes come first
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
        reports = [measure(options, source, subject) for source, subject in opened]
        about: dict[str, Any] = {**command.record(), "accumulation": accumulation(), "batch_size": options.batch_size}
        text = page(reports, about, recommendation(reports))
        if options.output is None:
            print(text)
            return 0
        write_text(options.output, text)
        write_text(options.output.with_suffix(".json"), json.dumps(record_of(reports, about), indent=1) + "\n")
    except (Exception, KeyboardInterrupt) as error:
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))

"""What the pictures of a run share: colours, fonts, units, ticks that do not collide, a footer, and their writing.

Drawn with Matplotlib's Agg canvas, so no display is needed; written under a temporary name, then renamed.
"""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, ScalarFormatter

from training.files import one_line, replacing

log = logging.getLogger("geospore")
# Okabe and Ito's colours: told apart with every common form of colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOUR_MAP = "viridis"
DASHES: list[Any] = [(0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))]
STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.9,
    "legend.frameon": False,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "savefig.dpi": 180,
}
#: names of runs and files may be Chinese or Japanese; Matplotlib's own font lacks those characters
OTHER_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "SimHei", "Microsoft YaHei")
FOOTER_SIZE, FOOTER_SEPARATOR, MARGIN = 8.0, "  ·  ", 0.01
#: how many intervals between ticks are tried, and steps times a power of ten; the first without colliding labels is
#: taken, the last ones with one digit less
STEPS = [1, 2, 5, 10]
TICKS = [*((count, [1, 2, 2.5, 5, 10]) for count in (6, 5, 4, 3)), (3, STEPS), (2, STEPS), (1, STEPS)]
GAP = 0.8  # the least distance between two tick labels on an x axis, in units of their height


@contextmanager
def style() -> Iterator[None]:
    """The look of every picture, for the drawing inside the block."""
    with matplotlib.rc_context({**STYLE, "font.family": _fonts()}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box where no font has it
        yield


@cache
def _fonts() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in OTHER_FONTS if name in installed)]


def new_figure(width: float, height: float, about: Sequence[str], wspace: float = 0.02) -> Figure:
    """A figure in inches whose layout leaves room for everything, the footer ``about`` included."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=wspace))
    if about:
        # No formulas: a dollar sign in the name of a run would begin one.
        text = figure.supxlabel("", x=MARGIN, ha="left", fontsize=FOOTER_SIZE, color=GREY, parse_math=False)
        text.set_text(_in_lines(figure, text, about))
    return figure


def _in_lines(figure: Figure, text: Text, parts: Sequence[str]) -> str:
    """The parts of a footer in as few lines as the width of the figure allows; a part that is too long is shortened."""
    most = (1 - 2 * MARGIN) * figure.bbox.width

    def fits(words: str) -> bool:
        text.set_text(words)
        return text.get_window_extent().width <= most

    lines: list[str] = []
    for part in parts:
        words, kept = one_line(part), len(part)
        while not fits(words) and kept > 8:
            kept -= max(1, kept // 20)
            words = f"{one_line(part)[: kept // 2]}…{one_line(part)[-(kept // 2) :]}"
        if lines and fits(lines[-1] + FOOTER_SEPARATOR + words):
            lines[-1] += FOOTER_SEPARATOR + words
        else:
            lines.append(words)
    return "\n".join(lines)


@dataclass(frozen=True)
class Subject:
    """What the pictures of a run are about; their footers say it, so that each is understood on its own.

    Attributes:
        run: name of the run folder.
        model: name of the model.
        parameters: how many numbers it learns.
        target, unit: what it predicts.
        split: name of the split.
        counts: structures of its sets ``train``, ``valid`` and ``test``.
        best_epoch: of the model whose predictions are shown.
    """

    run: str
    model: str
    parameters: int
    target: str
    unit: str
    split: str
    counts: Mapping[str, int]
    best_epoch: int

    def footer(self, *shown: str) -> list[str]:
        """The parts of a footer; ``shown`` are those that only one picture has."""
        return [
            f"run {self.run}",
            f"model {self.model}, {self.parameters:,} parameters",
            f"target {self.target} ({pretty_unit(self.unit)})",
            *shown,
        ]

    def of_test(self) -> list[str]:
        """The footer of a picture of the test set."""
        return self.footer(
            f"test set of split {self.split}: {how_many(self.counts['test'], 'structures')}",
            f"best model, epoch {self.best_epoch}",
        )

    def of_training(self) -> list[str]:
        """The footer of the course of training."""
        train, valid = (f"{self.counts[name]:,}" for name in ("train", "valid"))
        return self.footer(f"split {self.split}: {train} training and {valid} validation structures")


def how_many(count: int, counted: str) -> str:
    """``1,000 structures``, ``1 structure``; ``counted`` is a plural."""
    return f"{count:,} {counted.removesuffix('s') if count == 1 else counted}"


def pretty_unit(unit: str) -> str:
    """``a0^3`` with its subscript and superscript, ``eV/A`` with the letter of the Angstrom."""
    unit = re.sub(r"a0\^([23])", lambda power: "a₀" + {"2": "²", "3": "³"}[power[1]], unit)
    return re.sub(r"/A\b", "/Å", unit).replace("/Å^2", "/Å²")


def plain(text: str) -> str:
    """A text of a user as Matplotlib draws it as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def show_full_numbers(axis: Axis, values: np.ndarray) -> None:
    """Tick labels of a linear axis are the numbers themselves: no offset and no power of ten stands in a corner.

    Args:
        axis: to label.
        values: the least and the largest of them decide how numbers are written.
    """
    largest, spread = (float(np.abs(values).max()), float(np.ptp(values))) if len(values) else (0.0, 0.0)
    plain = 1e-3 <= largest < 1e7 or largest == 0
    if plain or 0 < spread < 1e-2 * largest:  # the exponential form would need as many digits
        formatter = ScalarFormatter(useOffset=False)
        formatter.set_scientific(False)
        axis.set_major_formatter(formatter)
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: with_minus(f"{value:.3g}")))


def with_minus(text: str) -> str:
    """A number with the sign that Matplotlib writes on axes."""
    return text.replace("-", "−")


def space_ticks(figure: Figure, groups: Sequence[Sequence[Axis]]) -> None:
    """Give linear axes as many ticks as have room beside each other, measured on the laid-out figure.

    Args:
        figure: whole, but for the ticks.
        groups: the axes of one group get the same number of ticks.
    """
    waiting = list(groups)
    for count, steps in TICKS:
        for axis in itertools.chain(*waiting):
            axis.set_major_locator(MaxNLocator(nbins=count, steps=steps))
        figure.draw_without_rendering()
        waiting = [group for group in waiting if any(map(labels_collide, group))]
        if not waiting:
            return
    for axis in itertools.chain(*waiting):  # numbers so long that even two of them collide
        if isinstance(axis, XAxis):
            axis.set_tick_params(rotation=30)


def labels_collide(axis: Axis) -> bool:
    """Whether two tick labels of an axis overlap or nearly touch; the figure has been laid out."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_text()]
    boxes = [tick.label1.get_window_extent() for tick in ticks]
    if isinstance(axis, XAxis):
        spans = sorted((box.x0, box.x1, GAP * box.height) for box in boxes)
    else:
        spans = sorted((box.y0, box.y1, 0.1 * box.height) for box in boxes)
    return any(second[0] - first[1] < first[2] for first, second in itertools.pairwise(spans))


def write(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


@contextmanager
def picture(path: Path) -> Iterator[Path]:
    """Draw a picture, or say why not: the numbers of a run must not be lost for a picture of them."""
    try:
        yield path
    except Exception as error:
        path.unlink(missing_ok=True)  # one of an earlier run would pass for this one
        log.warning("warning: %s is not drawn: %s", path.name, one_line(error)[:300])

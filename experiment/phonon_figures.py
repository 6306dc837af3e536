"""Pictures of phonons: a band structure, of a prediction over its reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from experiment.plot_style import BLUE, GREY, ORANGE, new_figure, style, write
from physics.phonon_spectra import Bands

CLOSE = 0.06  # of the path
GREEK = {"GAMMA": "Γ", "DELTA": "Δ", "LAMBDA": "Λ", "SIGMA": "Σ"}


def plot_bands(
    bands: Bands, path: str | Path, title: str, reference: Bands | None = None, about: Sequence[str] = ()
) -> None:
    """Frequencies along a path through the Brillouin zone; imaginary ones are negative.

    Args:
        bands: what was predicted, or the only one.
        path: PNG to write.
        title: what it shows.
        reference: drawn below it, along the same path.
        about: parts of the footer.
    """
    with style():
        figure = new_figure(7.2, 4.8, about)
        axes = figure.subplots()
        drawn = [("reference", reference, GREY, 2.4), ("predicted", bands, ORANGE, 1.2)]
        if reference is None:
            drawn = [("", bands, BLUE, 1.2)]
        for _, one, colour, width in drawn:
            assert one is not None
            for distances, frequencies in zip(one.distances, one.frequencies, strict=True):
                axes.plot(distances, frequencies, color=colour, linewidth=width)
        places, labels = zip(*bands.ticks, strict=True)
        axes.set_xticks(places, apart(places, [in_greek(label) for label in labels]))
        for place in places:
            axes.axvline(place, color=GREY, linewidth=0.5)
        axes.axhline(0.0, color=GREY, linewidth=0.8, linestyle=(0, (5, 3)))
        axes.set(xlim=(places[0], places[-1]), ylabel="frequency (THz), imaginary: negative")
        axes.set_title(title, loc="left")
        if reference is not None:
            handles = [Line2D([], [], color=colour, linewidth=width) for _, _, colour, width in drawn]
            figure.legend(handles, [name for name, *_ in drawn], loc="outside upper right", ncols=2)
        write(figure, path)


def apart(places: Sequence[float], labels: Sequence[str]) -> list[str]:
    """Labels of which one that is close behind another stands a line lower."""
    near = CLOSE * (places[-1] - places[0])
    found: list[str] = []
    for k, label in enumerate(labels):
        low = k > 0 and places[k] - places[k - 1] < near and not found[-1].startswith("\n")
        found.append(f"\n{label}" if low else label)
    return found


def in_greek(label: str) -> str:
    """``Γ`` for seekpath's ``GAMMA``, ``Σ₀`` for ``SIGMA_0``."""
    subscripts = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    words = []
    for part in label.split("|"):
        name, _, number = part.partition("_")
        words.append(GREEK.get(name, name) + number.translate(subscripts))
    return "|".join(words)


def median_material(errors: np.ndarray) -> int:
    """The place of a material whose error is the median, the lower one of two."""
    return int(np.argsort(errors, kind="stable")[(len(errors) - 1) // 2])

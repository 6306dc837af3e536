"""A picture of a structure for each number of its atoms: in the plane where its bonds are known, else in space."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import imread

from data_tools.formats.molecule_drawing import draw_molecule, drawn_atoms
from data_tools.formats.smiles_records import Record
from data_tools.labels.targets import Target
from data_tools.tables import ELEMENTS, name_of_row
from experiment.atoms import ATTENTION, CONTRIBUTION, LEARNED, WEIGHT, AtomTable
from experiment.plot_style import GREY, new_figure, pretty_unit, style, write
from models.element_descriptions import COVALENT_RADII

SIGNED, POSITIVE = "PuOr", "YlOrBr"  # orange and purple are told apart with every common form of colour blindness
WIDTH, HEIGHT = 4.4, 3.4  # inches of a panel
PIXELS = (900, 640)  # of a drawing
PALE = 0.45  # how much white is in the colours, on which letters and bonds are read
BOND = 1.25  # in space: a line between atoms that are closer than this many sums of their covalent radii
MOST_LETTERS = 60  # atoms whose elements are written


def plot_atoms(path: Path, atoms: AtomTable, row: int, target: Target, record: Record | None) -> None:
    """Draw one structure, a panel for each column of its atoms.

    Args:
        path: PNG to write.
        atoms: of all structures.
        row: which of them.
        target: of the model.
        record: SMILES with its bonds; None: the atoms are drawn in space.
    """
    start = int(atoms.table.n_atoms[:row].sum())
    here = slice(start, start + int(atoms.table.n_atoms[row]))
    columns = {name: values[here] for name, values in atoms.columns.items() if np.isfinite(values[here]).all()}
    if LEARNED in columns:  # beside what composition alone gives nothing else would be seen
        columns.pop(CONTRIBUTION, None)
    unit, value = pretty_unit(target.unit), atoms.predictions[row]
    said = f"{target.name} predicted: {value:.5g} {unit}" if np.isfinite(value) else f"no prediction of {target.name}"
    about = [name_of_row(atoms.table, row), said, *(["hydrogens count with their neighbours"] if record else [])]
    with style():
        figure = new_figure(WIDTH * len(columns), HEIGHT, about)
        for position, (name, values) in enumerate(columns.items(), 1):
            three = None if record else "3d"
            axes = figure.add_subplot(1, len(columns), position, projection=three)
            words = name.replace("_", " ").replace(" x ", " × ")
            axes.set_title(words, loc="left")
            bar_label = {ATTENTION: "mean over heads and blocks", WEIGHT: "share of the atom"}.get(name, unit)
            if record:
                owner = drawn_atoms(record)
                _draw_plane(figure, axes, np.bincount(owner, weights=values), record, bar_label)
            else:
                _draw_space(figure, axes, values, atoms.table.numbers[here], atoms.table.positions[here], bar_label)
        write(figure, path)


def _colours(values: np.ndarray) -> tuple[np.ndarray, matplotlib.cm.ScalarMappable]:
    """(K, 4) colours, 0 in the middle where there are both signs or negative ones, and what a colour bar is made of."""
    largest = float(np.abs(values).max()) or 1.0
    positive = values.min() >= 0
    limits = Normalize(0.0 if positive else -largest, largest)
    strong = matplotlib.colormaps[POSITIVE if positive else SIGNED](np.linspace(0, 1, 256))
    scale = matplotlib.cm.ScalarMappable(limits, ListedColormap(PALE + (1 - PALE) * strong))
    return scale.to_rgba(values), scale


def _draw_plane(figure: Figure, axes: Axes, values: np.ndarray, record: Record, label: str) -> None:
    colours, scale = _colours(values)
    notes = [f"{value:.2g}" for value in values]
    axes.imshow(imread(io.BytesIO(draw_molecule(record, colours[:, :3], notes, *PIXELS)), format="png"))
    axes.axis("off")
    figure.colorbar(scale, ax=axes, shrink=0.7, label=label)


def _draw_space(
    figure: Figure, axes: Any, values: np.ndarray, numbers: np.ndarray, positions: np.ndarray, label: str
) -> None:
    colours, scale = _colours(values)
    radii = COVALENT_RADII[numbers]
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    for first, second in np.argwhere(np.triu(distances < BOND * (radii[:, None] + radii), 1)):
        axes.plot(*positions[[first, second]].T, color=GREY, linewidth=1.2)
    axes.scatter(*positions.T, c=colours, s=330 * radii, edgecolors=GREY, linewidths=0.6, depthshade=False)
    if len(numbers) <= MOST_LETTERS:
        for number, place in zip(numbers, positions, strict=True):
            axes.text(*place, ELEMENTS[number - 1], ha="center", va="center", fontsize=7)
    axes.set_axis_off()
    reach = np.ptp(positions, axis=0).max() / 2 + 0.5
    for limit, middle in zip("xyz", (positions.max(axis=0) + positions.min(axis=0)) / 2, strict=True):
        getattr(axes, f"set_{limit}lim")(middle - reach, middle + reach)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    figure.colorbar(scale, ax=axes, shrink=0.7, label=label)

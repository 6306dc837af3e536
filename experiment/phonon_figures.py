"""Pictures of the phonons of one crystal: bands, densities of states, thermal properties, decay of force constants.

Each takes ``about``, the parts of its footer, and overlays a reference where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiment.plot_style import BLUE, DASHES, GREEN, GREY, ORANGE, new_figure, style, write
from physics.checks import Distances
from physics.phonon_spectra import Bands, DensityOfStates
from physics.thermal import Thermal

PREDICTED: dict[str, Any] = {"color": BLUE, "linewidth": 1.4}
REFERENCE: dict[str, Any] = {"color": ORANGE, "linewidth": 1.2, "linestyle": DASHES[0]}
ELEMENT_COLOURS = (GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#999933", "#882255")
CLOSE = 0.06  # of the path: labels that are nearer would cover each other
NOTHING = 1e-9  # eV/Angstrom^2: smaller norms are those of rounding and have no place on a logarithmic axis


def plot_bands(path: Path, bands: Bands, reference: Bands | None, about: Sequence[str] = (), title: str = "") -> None:
    """Frequencies along the path with the labels of its points; below 0 they are imaginary.

    Args:
        path: PNG to write.
        bands: to be drawn.
        reference: dashed, each segment as wide as that of ``bands``, where its path has the same points; None: there
            is none.
        about: parts of the footer.
        title: what it shows, where the file alone does not tell.
    """
    with style():
        figure = new_figure(8.4, 5.0, about)
        axes = figure.subplots()
        for whose, drawn, look in (("these", bands, PREDICTED), ("reference", reference, REFERENCE)):
            if drawn is None or drawn.labels != bands.labels:
                continue
            for number, (distances, frequencies) in enumerate(zip(bands.distances, drawn.frequencies, strict=True)):
                lines = axes.plot(np.linspace(distances[0], distances[-1], len(frequencies)), frequencies, **look)
                if number == 0:
                    lines[0].set_label(f"{whose} force constants")
        ticks = [(place, point_name(label)) for place, label in bands.ticks]
        for place, _ in ticks:
            axes.axvline(place, color=GREY, linewidth=0.6)
        places, names = zip(*ticks, strict=True)
        axes.set_xticks(places, apart(places, names))
        axes.set_xlim(ticks[0][0], ticks[-1][0])
        axes.axhline(0.0, color=GREY, linewidth=0.8)
        axes.set_ylabel("frequency (THz), imaginary below 0")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        if reference is not None:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, borderaxespad=0.2)
        write(figure, path)


def plot_densities(
    path: Path,
    density: DensityOfStates,
    reference: DensityOfStates | None,
    elements: Mapping[str, Sequence[int]],
    about: Sequence[str] = (),
) -> None:
    """Densities of states, total and by element.

    Args:
        path: PNG to write.
        density: to be drawn.
        reference: dashed, total only; None: there is none.
        elements: symbol to the atoms of the primitive cell that it has.
        about: parts of the footer.
    """
    with style():
        figure = new_figure(7.2, 4.6, about)
        axes = figure.subplots()
        axes.plot(density.frequencies, density.total, label="total", **PREDICTED)
        if reference is not None:
            axes.plot(reference.frequencies, reference.total, label="total of the reference", **REFERENCE)
        if density.of_atoms is not None:
            for number, (symbol, atoms) in enumerate(elements.items()):
                of_element = density.of_atoms[list(atoms)].sum(0)
                colour = ELEMENT_COLOURS[number % len(ELEMENT_COLOURS)]
                axes.fill_between(density.frequencies, of_element, color=colour, alpha=0.25, linewidth=0)
                axes.plot(density.frequencies, of_element, color=colour, linewidth=1.0, label=symbol)
        axes.axvline(0.0, color=GREY, linewidth=0.8)
        axes.set(xlabel="frequency (THz), imaginary below 0", ylabel="states per THz and primitive cell")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9)
        write(figure, path)


def plot_thermal(path: Path, thermal: Thermal, reference: Thermal | None, about: Sequence[str] = ()) -> None:
    """Free energy, entropy and heat capacity of an atom by temperature.

    Args:
        path: PNG to write.
        thermal: to be drawn.
        reference: at the same temperatures, dashed; None: there is none.
        about: parts of the footer.
    """
    quantities = (
        ("free energy (kJ/mol)", "free_energy_per_atom"),
        ("entropy (J/K/mol)", "entropy_per_atom"),
        ("heat capacity (J/K/mol)", "heat_capacity_per_atom"),
    )
    with style():
        figure = new_figure(10.2, 3.9, about, wspace=0.05)
        for axes, (label, name) in zip(figure.subplots(1, 3), quantities, strict=True):
            axes.plot(thermal.temperatures, getattr(thermal, name), label="these force constants", **PREDICTED)
            if reference is not None:
                axes.plot(reference.temperatures, getattr(reference, name), label="reference", **REFERENCE)
            axes.set(xlabel="temperature (K)", ylabel=f"{label}, per atom")
        if reference is not None:
            axes.legend(fontsize=9)
        write(figure, path)


def plot_decay(
    path: Path,
    pairs: tuple[np.ndarray, np.ndarray],
    reference: tuple[np.ndarray, np.ndarray] | None,
    rows: Sequence[Distances],
    radius: float,
    about: Sequence[str] = (),
) -> None:
    """The norms of force constants of two atoms by their distance.

    Args:
        path: PNG to write.
        pairs: distances in Angstrom and norms in eV/Angstrom^2, as ``physics.checks.pair_norms`` gives them.
        reference: likewise; None: there is none.
        rows: the table of distances, whose means are drawn.
        radius: up to which the supercell tells images apart, Angstrom.
        about: parts of the footer.
    """
    with style():
        figure = new_figure(7.2, 4.6, about)
        axes = figure.subplots()
        for label, points, colour in (("reference", reference, ORANGE), ("pairs of atoms", pairs, BLUE)):
            if points is not None:
                shown = points[1] > NOTHING
                axes.scatter(
                    points[0][shown], points[1][shown], s=14, color=colour, alpha=0.5, linewidths=0, label=label
                )
        drawn = [row for row in rows if row.mean > NOTHING]
        starts, ends, means = ([getattr(row, name) for row in drawn] for name in ("start", "end", "mean"))
        axes.hlines(means, starts, ends, color=GREY, label="mean of each range")
        axes.axvline(radius, color=GREY, linewidth=1.0, linestyle=DASHES[1], label="half the shortest lattice vector")
        axes.set(xlabel="distance to the nearest image (Å)", ylabel="|Φ| (eV/Å²)", yscale="log")
        axes.legend(fontsize=9)
        write(figure, path)


def point_name(label: str) -> str:
    """A point of the path as seekpath has it (``GAMMA``, ``SIGMA_0``, ``U|K``), as text."""
    names = {"GAMMA": "Γ", "SIGMA": "Σ", "DELTA": "Δ", "LAMBDA": "Λ"}
    digits = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    parts = (part.partition("_") for part in label.split("|"))
    return "|".join(names.get(name, name) + number.translate(digits) for name, _, number in parts)


def apart(places: Sequence[float], labels: Sequence[str]) -> list[str]:
    """Labels of which one that is close behind another stands a line lower."""
    near = CLOSE * (places[-1] - places[0])
    found: list[str] = []
    for k, label in enumerate(labels):
        low = k > 0 and places[k] - places[k - 1] < near and not found[-1].startswith("\n")
        found.append(f"\n{label}" if low else label)
    return found

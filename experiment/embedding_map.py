"""The map of structure embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from experiment.plot_style import COLOUR_MAP, how_many, new_figure, plain, pretty_unit, show_full_numbers, style, write


def plot_tsne(
    embeddings: np.ndarray,
    values: np.ndarray,
    target_name: str,
    unit: str,
    path: str | Path,
    seed: int = 0,
    max_points: int = 1000,
    about: Sequence[str] = (),
) -> None:
    """Map of structure embeddings in two dimensions (t-SNE from a PCA start), coloured by the target.

    The same seed gives the same picture.  Distances between far groups and the axes themselves mean nothing.

    Args:
        embeddings: (M, F) one row a structure.
        values: (M,) the target, in ``unit``.
        target_name: name of the target, for the colour bar.
        unit: unit of ``values``.
        path: PNG to write.
        seed: of the choice of points and of t-SNE.
        max_points: at most so many structures, chosen at random.
        about: parts of the footer.

    Raises:
        ValueError: fewer than 3 structures, shapes that do not agree, or numbers that are not finite.
    """
    embeddings, values = np.asarray(embeddings, np.float64), np.asarray(values, np.float64)
    if embeddings.ndim != 2 or values.shape != embeddings.shape[:1]:
        raise ValueError(f"embeddings (M, F) and values (M,) expected, got {embeddings.shape}, {values.shape}")
    if len(values) < 3:
        raise ValueError(f"t-SNE needs at least 3 structures, got {len(values)}")
    if not (np.isfinite(embeddings).all() and np.isfinite(values).all()):
        raise ValueError("embeddings or values hold NaN or infinity")
    title = f"Embeddings of {how_many(len(values), 'structures')}"
    if len(values) > max_points:
        title = f"Embeddings of {max_points:,} of {how_many(len(values), 'structures')}, chosen at random"
        chosen = np.random.default_rng(seed).choice(len(values), max_points, replace=False)
        embeddings, values = embeddings[chosen], values[chosen]
    points = _tsne(embeddings, seed)
    with style():
        figure = new_figure(7.0, 5.7, about)
        axes = figure.subplots()
        _draw_map(figure, axes, points, values, plain(f"{target_name}, reference ({pretty_unit(unit)})"))
        axes.set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
        axes.set_title(title, loc="left")
        write(figure, path)


def _draw_map(figure: Figure, axes: Axes, points: np.ndarray, values: np.ndarray, label: str) -> None:
    # A few extreme structures among many would wash out all others: the colours span the middle 98 %.
    many = len(values) >= 100
    low, high = np.percentile(values, (1, 99) if many else (0, 100))
    size = float(np.clip(6000 / len(values), 9, 60))
    dots = axes.scatter(points[:, 0], points[:, 1], c=values, vmin=low, vmax=high, cmap=COLOUR_MAP, s=size, lw=0)
    bar = figure.colorbar(dots, ax=axes, extend="both" if many else "neither", extendfrac=0.03, pad=0.02, aspect=28)
    show_full_numbers(bar.ax.yaxis, np.array([low, high]))
    bar.set_label(label)
    bar.outline.set_visible(False)


def _tsne(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """(M, 2) t-SNE coordinates; the perplexity adapts to few structures, for which 30 neighbours do not exist."""
    if embeddings.shape[1] < 2:
        embeddings = np.pad(embeddings, ((0, 0), (0, 2 - embeddings.shape[1])))
    # A constant embedding has no principal axes, so t-SNE would divide by zero.
    if not np.ptp(embeddings, axis=0).any():
        return np.zeros((len(embeddings), 2))
    from sklearn.manifold import TSNE  # noqa: PLC0415  takes most of a second, which a start need not wait

    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    # One thread: repeatable sums, and no threads that wait for each other where other work shares the cores.
    with threadpool_limits(limits=1):
        return TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(embeddings)

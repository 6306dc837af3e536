"""Pictures say what they show, without collisions; they are written whole or not at all, and repeat with their seed."""

import itertools
import logging
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from data_tools.dataset import Task
from data_tools.graph import Structure
from data_tools.graphs.packed import pack
from data_tools.labels.targets import get_target
from data_tools.tables import table_of_structures
from experiment import embedding_map
from experiment import figures as plots
from experiment.embedding_map import plot_tsne
from experiment.evaluation.energy_forces import EnergyForces
from experiment.evaluation.evaluator import Labelled, Predictions
from experiment.evaluation.scalar import Scalar
from experiment.figures import plot_loss_curve, plot_predictions
from experiment.plot_style import Subject
from training.state import Quantity

RANDOM = np.random.default_rng(0)
BASELINES = {"mean of the training labels": 1.034, "linear in element counts": 0.7821}
MAE = (Quantity("", "mae", "eV"),)
MAE_OF_FORCES = (Quantity("energy ", "mae", "meV", 1000), Quantity("force ", "force_mae", "meV/A", 1000))
WATER = Structure(np.array([8, 1, 1], np.int32), np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]]))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, laid out but not written, by the name of their file."""
    written = {}

    def write(figure, path):
        figure.draw_without_rendering()
        written[path.name] = figure

    monkeypatch.setattr(plots, "write", write)
    monkeypatch.setattr(embedding_map, "write", write)
    return written


def evaluation(labels, forces=None):
    """The evaluation of molecules of water with these labels, without a model."""
    of_atoms = {} if forces is None else {"forces": forces}
    table = table_of_structures(Path("x"), [WATER] * len(labels), "", of_atoms=of_atoms)
    labelled = Labelled(pack(table, 3.0), labels, [1, 8], None)
    target = get_target("gap" if forces is None else "energy")
    return (Scalar if forces is None else EnergyForces)(Task(target, "sum", "none", "none"), labelled, None)


def subject(count=3, target="gap", unit="eV", run="gap_demo", split="random-32-12-12-seed0") -> Subject:
    counts = {"train": 32, "valid": 12, "test": count}
    return Subject(run, "schnet", 13473, target, unit, split, counts, best_epoch=2)


def shown_ticks(axis):
    low, high = sorted(axis.get_view_interval())
    for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
        for label in (tick.label1, tick.label2):
            if low <= tick.get_loc() <= high and label.get_text() and label.get_visible():
                yield label


def texts_of(figure):
    """Everything written in a figure that a reader sees."""
    found = [figure._supxlabel] if figure._supxlabel else []
    for axes in figure.axes:
        found += [axes.title, axes._left_title, axes._right_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        found += axes.get_legend().get_texts() if axes.get_legend() else []
        found += [axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()]
        if axes.xaxis.get_tick_params()["labelbottom"]:
            found += shown_ticks(axes.xaxis)
        found += shown_ticks(axes.yaxis)
    return [text for text in found if text.get_text().strip() and text.get_visible()]


def extent_of(text):
    """The box of a text; an empty second line of a title keeps the place of the line of numbers below it."""
    box = text.get_window_extent()
    if text.get_text().endswith("\n"):
        box.y0 = (box.y0 + box.y1) / 2
    return box


def assert_legible(figure):
    """No text touches another or leaves the picture."""
    frame = figure.bbox
    boxes = [(text, extent_of(text)) for text in texts_of(figure)]
    assert len(boxes) > 6
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1
        assert inside, text.get_text()
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        apart = first.x1 <= second.x0 or second.x1 <= first.x0 or first.y1 <= second.y0 or second.y1 <= first.y0
        if one.get_rotation() == other.get_rotation() == 30:  # parallel lines, whose boxes overlap
            apart = abs(first.x0 - second.x0) * np.sin(np.radians(30)) > one.get_fontsize() * figure.dpi / 72
        assert apart, (one.get_text(), other.get_text())
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            assert axis.get_offset_text().get_text() == ""


def footer(figure) -> str:
    return figure._supxlabel.get_text().replace("\n", "  ·  ")


def pixels(path) -> np.ndarray:
    image = matplotlib.image.imread(path)
    assert image.shape[0] > 500 and image.shape[1] > 500
    assert np.ptp(image[..., :3]) > 0.5, "an empty picture"
    return image


@pytest.mark.parametrize("count", [1, 40, 3000])
def test_predictions_are_drawn_for_few_and_many(tmp_path, count):
    labels = RANDOM.normal(70, 8, count)
    plot_predictions(labels, labels + RANDOM.normal(0, 1, count), "alpha", "a0^3", tmp_path / "predictions.png")
    pixels(tmp_path / "predictions.png")
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]


def test_perfect_and_diverged_predictions_are_drawn(tmp_path):
    labels = np.full(5, 3.0)
    plot_predictions(labels, labels, "gap", "eV", tmp_path / "perfect.png")
    plot_predictions(labels, np.array([1e20, np.nan, np.inf, 0, -1]), "gap", "eV", tmp_path / "diverged.png")
    plot_predictions(labels, np.full(5, np.nan), "gap", "eV", tmp_path / "nan.png")
    for name in ("perfect", "diverged", "nan"):
        pixels(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="expected"):
        plot_predictions(labels, np.zeros((5, 1)), "gap", "eV", tmp_path / "never.png")
    with pytest.raises(ValueError, match="expected"):
        plot_predictions(labels[:0], labels[:0], "gap", "eV", tmp_path / "never.png")
    assert not (tmp_path / "never.png").exists()


def normal(mean, width, count=200, error=0.1):
    labels = RANDOM.normal(mean, width, count)
    return labels, labels + RANDOM.normal(0, error * width, count)


CASES = {
    "gaps": ("gap", "eV", *normal(6.8, 1.2)),
    "energies of ethanol": ("energy", "eV", *normal(-4209.0, 0.3)),
    "total energies that hardly vary": ("U0", "eV", *normal(-11178.25, 0.012)),
    "differences of a millionth": ("U0", "eV", *normal(-11178.25, 1e-6)),
    "polarisabilities": ("alpha", "a0^3", *normal(75, 8)),
    "three": ("r2", "a0^2", *normal(1200, 300, 3)),
    "one": ("gap", "eV", np.array([6.8]), np.array([7.0])),
    "constant labels": ("energy", "eV", np.full(30, -4209.5), RANDOM.normal(-4209.5, 1e-4, 30)),
    "some without a number": ("energy", "eV", np.arange(50) - 4209.0, np.where(np.arange(50) % 3, -4190, np.nan)),
    "none with a number": ("gap", "eV", np.arange(50.0), np.full(50, np.nan)),
    "diverged": ("gap", "eV", RANDOM.normal(3, 1, 40), np.r_[-1e20, RANDOM.normal(3, 1, 39)]),
    "tiny": ("mu", "D", RANDOM.normal(0, 1e-9, 40), RANDOM.normal(0, 1e-9, 40)),
    "many": ("U0", "eV", *normal(-11178, 10, 100_000)),
}


@pytest.mark.parametrize("name", CASES)
def test_predictions_are_legible(name, figures, tmp_path):
    target, unit, labels, predictions = CASES[name]
    about = subject(len(labels), target, unit, run="run$1_with_a_name_of_some_length " * 3).of_test()
    plot_predictions(labels, predictions, target, unit, tmp_path / "predictions.png", about=about)
    figure = figures["predictions.png"]
    assert_legible(figure)
    scatter, histogram = figure.axes[:2]
    pretty = {"a0^3": "a₀³", "a0^2": "a₀²"}.get(unit, unit)
    assert scatter.get_xlabel() == f"{target}, reference ({pretty})"
    assert histogram.get_ylabel() == "structures" and pretty in histogram.get_xlabel()
    counted = f"{len(labels):,} structure" + "s" * (len(labels) != 1)
    assert scatter.get_title("left").startswith(f"{target}: {counted}")
    missing = int((~np.isfinite(predictions)).sum())
    assert (f"{missing} not finite" in histogram.get_title("left")) == bool(missing)
    for axis in (scatter.xaxis, scatter.yaxis):  # the numbers themselves, at least two of them
        values = [float(text.get_text().replace("−", "-")) for text in shown_ticks(axis)]
        low, high = axis.get_view_interval()
        assert len(values) >= 2 and low <= min(values) < max(values) <= high
    undefined = name in ("one", "constant labels") or missing > 0
    assert scatter.texts[0].get_text().endswith("R² undefined") == undefined


def test_a_picture_of_forces_counts_components(figures, tmp_path):
    forces = RANDOM.normal(size=(900, 3))
    forces[:5] = np.nan
    found = Predictions(np.zeros(300), np.zeros((300, 4)), forces + 0.01)
    evaluation(np.zeros(300), forces).draw(tmp_path, subject(100, "energy"), np.arange(300), found)
    figure = figures["forces.png"]
    scatter, histogram, bar = figure.axes
    assert scatter.get_title("left").strip() == "2,685 force components"
    assert histogram.get_ylabel() == "force components" and bar.get_ylabel() == "force components per cell"
    assert scatter.get_ylabel() == "force component, predicted (eV/Å)"
    assert_legible(figure)


def test_every_picture_says_what_it_shows(figures, tmp_path):
    labels = RANDOM.normal(size=12)
    history = history_of(3)
    found = Predictions(labels, RANDOM.normal(size=(12, 4)), RANDOM.normal(size=(36, 3)))
    evaluation(labels, RANDOM.normal(size=(36, 3))).draw(tmp_path, subject(12), np.arange(12), found)
    about = subject(12).of_training()
    plot_loss_curve(history, MAE, tmp_path / "loss_curve.png", 2, {"mae": BASELINES}, about)
    assert figures.keys() == {"predictions.png", "tsne.png", "loss_curve.png", "forces.png"}
    for name, figure in figures.items():
        words = footer(figure)
        for part in ("run gap_demo", "model schnet, 13,473 parameters", "target gap (eV)", "random-32-12-12-seed0"):
            assert part in words, name
        of_test = "test set of split random-32-12-12-seed0: 12 structures  ·  best model, epoch 2"
        of_training = "split random-32-12-12-seed0: 32 training and 12 validation structures"
        assert words.endswith(of_training if name == "loss_curve.png" else of_test)
        assert_legible(figure)


@pytest.mark.parametrize("run", ["x" * 300, "$\\frac{$, a run", "试验", "line\nbreak"])
def test_any_name_of_a_run_fits_into_the_footer(run, figures, tmp_path, recwarn):
    about = subject(run=run).of_training()
    plot_loss_curve(history_of(3), MAE, tmp_path / "loss_curve.png", 2, {"mae": BASELINES}, about)
    assert_legible(figures["loss_curve.png"])
    assert run[:2] in footer(figures["loss_curve.png"]) and not recwarn.list


def history_of(epochs, forces=False):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "train_loss": 2 / epoch, "train_mae": 0.9 / epoch, "valid_mae": 0.5 / epoch, "lr": 1e-3}
        if forces:
            row |= {"train_force_mae": 0.7 / epoch, "valid_force_mae": 0.6 / epoch}
        rows.append(row)
    return rows


def lines_of(axes):
    return {line.get_label(): line for line in axes.lines}


def test_the_loss_curve_has_train_and_validation_and_their_baselines(figures, tmp_path):
    rows = history_of(7)
    plot_loss_curve(rows, [Quantity("", "mae", "a0^3")], tmp_path / "curve.png", 6, {"mae": BASELINES})
    loss, mae, rate = figures["curve.png"].axes
    assert [axes.get_ylabel() for axes in (loss, mae, rate)] == ["training loss", "MAE (a₀³)", "learning rate"]
    lines = lines_of(mae)
    assert list(lines) == [
        "train (during the epoch)", "validation", "best model: 0.08333 a₀³ (epoch 6)",
        "validation, mean of the training labels: 1.034 a₀³", "validation, linear in element counts: 0.7821 a₀³",
    ]  # fmt: skip
    assert [text.get_text() for text in mae.get_legend().get_texts()] == list(lines)
    for name, key in (("train (during the epoch)", "train_mae"), ("validation", "valid_mae")):
        np.testing.assert_allclose(lines[name].get_ydata(), [row[key] for row in rows])
    np.testing.assert_allclose(lines["validation, mean of the training labels: 1.034 a₀³"].get_ydata(), 1.034)
    assert_legible(figures["curve.png"])


def test_the_loss_curve_of_forces(figures, tmp_path):
    rows = history_of(40, forces=True)
    baselines = {"mae": BASELINES, "force_mae": {"zero forces": 0.85}}
    plot_loss_curve(rows, MAE_OF_FORCES, tmp_path / "curve.png", 33, baselines, subject().of_training())
    labels = [axes.get_ylabel() for axes in figures["curve.png"].axes]
    assert labels == ["training loss", "energy MAE (meV)", "force MAE (meV/Å)", "learning rate"]
    energy, force = (lines_of(axes) for axes in figures["curve.png"].axes[1:3])
    assert "validation, linear in element counts: 782.1 meV" in energy
    assert {"validation, zero forces: 850 meV/Å", "best model: 18.18 meV/Å (epoch 33)"} <= force.keys()
    np.testing.assert_allclose(force["validation"].get_ydata(), [1000 * row["valid_force_mae"] for row in rows])
    np.testing.assert_allclose(
        force["train (during the epoch)"].get_ydata(), [1000 * row["train_force_mae"] for row in rows]
    )
    assert_legible(figures["curve.png"])


def test_the_loss_curve_takes_the_text_of_a_csv_and_epochs_without_validation(tmp_path):
    rows = [
        {"epoch": str(e), "train_loss": str(2 / e), "train_mae": "1", "valid_mae": str(1 / e) if e % 2 else "",
         "lr": "1e-3"}
        for e in range(1, 8)
    ]  # fmt: skip
    baselines = {"mae": {"mean": 1.03, "linear fit on element counts": 0.78}}
    plot_loss_curve(rows, MAE, tmp_path / "curve.png", 7, baselines)
    plot_loss_curve(rows[:1], MAE, tmp_path / "one.png", 1)
    plot_loss_curve(rows[1:2], MAE, tmp_path / "unvalidated.png", 2, {"mae": {"mean": 1.0}})
    for name in ("curve", "one", "unvalidated"):
        pixels(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="no epochs"):
        plot_loss_curve([], MAE, tmp_path / "never.png", 1)


def test_a_picture_that_cannot_be_drawn_is_one_line_and_leaves_no_old_one(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(logging.getLogger("geospore"), "warning", lambda words, *values: lines.append(words % values))
    (tmp_path / "tsne.png").write_bytes(b"of an earlier run")
    found = Predictions(np.full(4, np.nan), np.full((4, 3), np.nan), np.zeros((0, 3)))
    evaluation(np.arange(4.0)).draw(tmp_path, subject(4), np.arange(4), found)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.png"]
    assert lines == ["warning: tsne.png is not drawn: embeddings or values hold NaN or infinity"]


@pytest.mark.parametrize(("count", "features"), [(3, 8), (4, 1)])
def test_tsne_works_for_few_structures(tmp_path, count, features):
    plot_tsne(RANDOM.normal(size=(count, features)), np.arange(count), "gap", "eV", tmp_path / "tsne.png")
    pixels(tmp_path / "tsne.png")


def test_tsne_repeats_and_limits_its_points(tmp_path):
    embeddings, values = RANDOM.normal(size=(90, 8)), RANDOM.normal(size=90)
    for name in ("one", "two"):
        plot_tsne(embeddings, values, "gap", "eV", tmp_path / f"{name}.png", seed=1, max_points=30)
    np.testing.assert_array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "two.png"))
    plot_tsne(embeddings, values, "gap", "eV", tmp_path / "other.png", seed=2, max_points=30)
    assert not np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "other.png"))


def test_tsne_draws_a_collapsed_embedding_and_refuses_what_it_cannot_draw(tmp_path):
    plot_tsne(np.ones((10, 4)), np.arange(10.0), "gap", "eV", tmp_path / "collapsed.png")
    pixels(tmp_path / "collapsed.png")
    for embeddings, match in ((np.zeros((2, 4)), "at least 3"), (np.full((5, 4), np.nan), "NaN")):
        with pytest.raises(ValueError, match=match):
            plot_tsne(embeddings, np.zeros(len(embeddings)), "gap", "eV", tmp_path / "never.png")


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "taken.png").mkdir()  # the picture is drawn, then cannot be renamed
    with pytest.raises(OSError, match=r"taken\.png"):
        plot_predictions(np.arange(3.0), np.arange(3.0), "gap", "eV", tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]

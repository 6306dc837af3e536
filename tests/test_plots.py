"""Pictures are written whole or not at all, for real sizes and for the smallest, and repeat with their seed."""

import matplotlib.image
import numpy as np
import pytest

from training.plots import plot_loss_curve, plot_predictions, plot_tsne

RANDOM = np.random.default_rng(0)


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


def test_the_loss_curve_takes_the_text_of_a_csv_and_epochs_without_validation(tmp_path):
    rows = [
        {"epoch": str(e), "train_loss": str(2 / e), "valid_mae": str(1 / e) if e % 2 else "", "lr": "1e-3"}
        for e in range(1, 8)
    ]
    plot_loss_curve(rows, "eV", tmp_path / "curve.png", {"mean": 1.03, "linear fit on element counts": 0.78})
    plot_loss_curve(rows[:1], "eV", tmp_path / "one.png")
    plot_loss_curve(rows[1:2], "eV", tmp_path / "unvalidated.png", {"mean": 1.0})
    for name in ("curve", "one", "unvalidated"):
        pixels(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match="no epochs"):
        plot_loss_curve([], "eV", tmp_path / "never.png")


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

"""scripts/ncon_precision.py: what it counts, and what its page says of a network that overflows in float16."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_runs import REPOSITORY

from scripts import ncon_precision
from scripts.ncon_parts.ncon_effect import CASES, Effect, difference
from scripts.ncon_parts.ncon_gradients import SCALES, Backward
from scripts.ncon_parts.ncon_page import Report, page, record_of
from scripts.ncon_parts.ncon_products import KINDS, measure_products
from scripts.ncon_parts.ncon_ranges import Error, error_of, range_of
from scripts.ncon_parts.ncon_subject import open_configuration
from scripts.ncon_parts.ncon_verdict import overflows, recommendation

MINI = str(REPOSITORY / "configs" / "segnn" / "qm9_mini.yaml")
SIZES = {"features": 6, "blocks": 1, "lmax": 1, "lmax_attributes": 1}


@pytest.fixture(scope="module")
def subject(molecules):
    """A tiny network with its initial weights and four molecules."""
    data = {"file": molecules, "split": "random", "train_size": 32, "valid_size": 12, "test_size": 12}
    changes = [(f"model.{key}", str(value)) for key, value in SIZES.items()]
    return open_configuration(MINI, [*changes, *((f"data.{key}", str(value)) for key, value in data.items())], 4)


@pytest.fixture
def products(subject, same_mode):
    return measure_products(subject, subject.batch(subject.rows))


def scaled(subject, part, factor):
    """The same with the weights of some products multiplied."""
    weights = {name: values * (factor if part in name else 1) for name, values in subject.weights.items()}
    assert any(part in name for name in weights)
    return dataclasses.replace(subject, weights=weights)


def report_of(subject, products):
    """A report whose other figures are those of float64."""
    exact = difference(np.ones(3), np.ones(3))
    ranges = {kind: dict.fromkeys(("result", "between"), range_of([np.ones(3)])) for kind in KINDS}
    backward = Backward(
        4, ranges, {scale: {"message 1": Error(0.0, 0.0)} for scale in SCALES}, dict.fromkeys(SCALES, 0)
    )
    return Report(subject, products, backward, [Effect(*case, 1.0, exact, exact, 1.0) for case in CASES], [])


def test_numbers_are_counted_by_what_float16_makes_of_them():
    found = range_of([np.array([0.0, 1.0, -2e5, 7e4]), np.array([1e-5, 1e-9, -3e-8])])
    assert found == (6, 1e-9, 2e5, 2, 1, 2)  # -3e-8 becomes the smallest number there is
    assert range_of([np.array([1.0, 1e-16])]).values == 1  # a zero that was rounded in float64
    assert range_of([np.array([1.0, 2.0])], [np.array([1.0, np.nan])]).overflow == 1
    assert error_of([np.array([3.0, -3.0])], [np.array([3.0, -3.3])]).largest == pytest.approx(0.1)
    assert error_of([np.ones(2)], [np.array([1.0, np.inf])]).rms == np.inf
    assert (found + range_of([np.array([1e5])])).overflow == 3


def test_products_of_a_benign_network_have_errors_of_float16_and_no_overflow(subject, products):
    assert [one.product.kind for one in products] == list(KINDS)
    for one in products:
        assert 1e-4 < one.error.rms < 1e-2 and one.error.rms <= one.error.largest < 0.1
        assert one.emulated.rms == pytest.approx(one.error.rms, rel=0.2)
        assert all(found.overflow == 0 and found.values for found in one.ranges.values())
        assert all(1e-4 < error.rms < 1e-2 for error, _ in one.paths.values())
    names = {one.product.kind: set(one.paths) for one in products}
    assert names["message 2"] == {"0 x 0 -> 0", "0 x 1 -> 1", "1 x 0 -> 1", "1 x 1 -> 0"}
    assert names["pre-pool 2"] == {"0 x 0 -> 0", "1 x 1 -> 0"} and not names["out of frame"]
    report = report_of(subject, products)
    assert not overflows(report) and "Forwards nothing overflows" in recommendation([report])


def test_an_overflow_is_counted_where_it_happens_and_the_page_advises_against_it(subject, same_mode):
    large = scaled(subject, "message.second.weight", 1e6)
    products = {one.product.kind: one for one in measure_products(large, large.batch(large.rows))}
    assert products["message 1"].ranges["result"].overflow == 0
    message = products["message 2"]
    assert message.ranges["weights"].overflow > 0 and message.ranges["result"].overflow > 0
    assert message.error.rms == np.inf and message.paths["0 x 0 -> 0"][1].overflow > 0
    report = report_of(large, list(products.values()))
    about = {"command": "python x", "commit": None, "started": "now", "accumulation": "float32", "batch_size": 4}
    text = page([report], about, recommendation([report]))
    assert "not finite" in text and "`ncon_dtype: float32` is the choice" in text
    assert "layer 1, message 2, weights" in text
    record = record_of([report], about)["subjects"][0]["products"]
    assert record[1]["kind"] == "message 2" and record[1]["error"]["rms"] is None


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], "expected --ckpt RUN or --config FILE"),
        (["--ckpt", "no/such/run"], "no/such/run"),
        (["--config", "no_such.yaml"], "no_such.yaml: expected a YAML file"),
        (
            ["--config", "configs/schnet/qm9_mini.yaml"],
            "expected the model segnn, the only one with ncon_dtype",
        ),
        (["--config", MINI, "--structures", "0"], "--structures 0: expected at least 1"),
        (["--config", MINI, "--output", f"{MINI}/page.md"], "check the path"),
        (["--config", MINI, "--output", "page.txt"], "expected the name of a Markdown file"),
        (["--config", MINI, "--set", "model.blocks"], "expected section.key=value"),
    ],
)
def test_bad_input_is_one_line(words, expected, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert ncon_precision.main(words) == 2
    error = capsys.readouterr().err
    assert expected in error and error.startswith("error: ") and error.count("\n") == 1

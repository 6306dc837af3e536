"""float16_force_constants.py and beside_nequix.py: what is rounded, and what their pages say."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from configs.loading import ConfigError
from physics.derivatives import Compiled
from scripts.benchmarks import beside_nequix
from scripts.benchmarks.float16_force_constants import EXACT, FORMS, TRUNK, Between, Errors, Rounded, page

X, V = np.array([0.1, -1.2345678, 700.123]), np.array([1.0, 0.3333333, -2.0])


@pytest.mark.parametrize("orders", [0, 2])
def test_second_derivatives_go_through_a_rounding(orders):
    """Of sum y^3 with y the rounded x: 6 y v, exactly, and rounded where derivatives are."""
    rounded = Rounded(orders)

    def slope(x, v):
        return (ms.grad(lambda y: (rounded(y) ** 3).sum())(x) * v).sum()

    found = Compiled(rounded, ms.grad(slope))(Tensor(X), Tensor(V)).asnumpy()
    exact = 6 * X.astype(np.float16).astype(np.float64) * V
    assert np.array_equal(rounded(Tensor(X)).asnumpy(), X.astype(np.float16).astype(np.float64))
    if orders:
        assert np.array_equal(found, found.astype(np.float16)) and found == pytest.approx(exact, rel=2e-3)
        assert np.abs(found / exact - 1).max() > 1e-6
    else:
        assert found == pytest.approx(exact, rel=1e-14)


def test_arguments_and_results_of_a_cell_are_rounded():
    class Sum(nn.Cell):
        def construct(self, x, y):
            return x + y

    found = Between(Sum(), Rounded())(Tensor(X), Tensor(V)).asnumpy()
    expected = (X.astype(np.float16) + V).astype(np.float16)  # V itself is not
    assert np.array_equal(found, expected) and not np.array_equal(found, X + V)


def test_the_page_of_float16():
    crystals = [SimpleNamespace(name="mp-1", n_atoms=64), SimpleNamespace(name="mp-2", n_atoms=48)]
    rows = [Errors(1e-4, 0.0, 0.0, 1e-6, 1e-3, 2e-3), Errors(3e-4, 0.0, 0.0, 1e-6, 1e-3, 5e-3)]
    text = page(crystals, {EXACT: rows, TRUNK: rows}, [0.1, 0.2], SimpleNamespace(text="python x"))
    assert f"| {FORMS[TRUNK]} | 2.0e-04 / 3.0e-04 |" in text and "| 5.0e-03 |" in text
    assert "| mp-2 | 48 | 3.0e-04 |" in text and "DFT is 0.15 (median)" in text


def test_the_section_beside_nequix_and_its_peer(tmp_path):
    metrics = ("mae", "mae_rest", "frobenius", "frequency_mae", "highest_frequency", "free_energy", "entropy")
    errors = {"errors": {key: [0.25, 0.75] for key in metrics}, "stability_right": 1}
    laws = {"largest_sum_eV_per_A2": 1e-5, "largest_exchange_eV_per_A2": 1e-5}
    record = {"parameters": 1000, "minutes": 6.0, "steps": 600, "cpu_seconds_a_material": 2.0, **errors, **laws}
    of_peer = record | {"crystals": 2400, "compilation_cpu_seconds": 30.0, "versions": {"nequix": "0.4.5"}}
    found = beside_nequix.section({"columns": record, "nequix": of_peer}, SimpleNamespace(text="python x"))
    assert found[2].startswith("| equivariant potential, columns | 1,000 | 6.0 | 600 | 0.500 / 0.500 |")
    assert found[3].startswith("| nequix, muon, 0.01 |") and "600 ms a step" in found[5]
    assert "4.0 crystals a step, compiled in 30 CPU s, nequix 0.4.5" in found[5]
    options = SimpleNamespace(data="x", peers="x", output=tmp_path, minutes=1.0, peer_python=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="expected an interpreter"):
        beside_nequix.peer("nequix", options, None)

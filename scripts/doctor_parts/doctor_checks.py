"""What a check of the doctor returns, and the checks of the machine: versions, eager derivatives, float16."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_checks.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.common.api import _pynative_executor

from data_tools.source_files import one_line
from models import cpu_kernels
from physics.derivatives import Compiled
from training.cpu_runtime import cores
from training.device import MODES, versions

OK, WRONG, KNOWN = "ok", "WRONG", "known limitation"
MEASURED_WITH = "2.10.0"  # the version of MindSpore whose behaviour this project was checked against
LARGEST_HALF = 65504.0  # the largest finite number of float16
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"


class Row(NamedTuple):
    """One line of the table: what was checked, what was found, what may be found, and what follows."""

    name: str
    measured: str
    limit: str
    verdict: str


def judged(name: str, measured: str, limit: str, right: bool) -> Row:
    """A row that is either ok or WRONG."""
    return Row(name, measured, limit, OK if right else WRONG)


def below(name: str, measured: float, limit: float) -> Row:
    """A row of one number that must not exceed a limit; NaN never passes."""
    return judged(name, f"{measured:.1e}", f"{limit:.0e}", measured <= limit)


def guarded(name: str, check: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a check; whatever it raises becomes one WRONG row."""
    try:
        return check()
    except Exception as error:
        return [Row(name, reason(error), "no error", WRONG)]


def reason(error: Exception) -> str:
    """An error as one short line; MindSpore's fill a page.

    An exception of Python inside an eager gradient leaves MindSpore recording, and later checks would fail with errors
    that make no sense: the recording is ended here.
    """
    _pynative_executor.clear_res()
    return f"{type(error).__name__}: {one_line(error)}"[:160]


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest expected value; infinite where something is not finite."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(np.float64).tiny))


def machine(device_target: str, device_id: int) -> list[Row]:
    """Versions, device, cores and memory."""
    found = versions()
    same = found["mindspore"] == MEASURED_WITH
    kernels = cpu_kernels.state() if device_target == "CPU" else "not needed on this device"
    python_is_new = sys.version_info >= (3, 10)
    return [
        judged("python", found["python"], "3.10 or later", python_is_new),
        Row("mindspore", found["mindspore"], f"checked with {MEASURED_WITH}", OK if same else KNOWN),
        judged("numpy", found["numpy"], "below 2", int(found["numpy"].split(".")[0]) < 2),
        judged("device", f"{device_target}:{device_id}", "", ms.get_context("device_target") == device_target),
        judged("cores", str(cores()), "", cores() > 0),
        Row("kernels for CPUs", kernels, "", KNOWN if kernels.startswith("none") else OK),
        judged("memory of the host", f"{memory() / 2**30:.1f} GiB", "", memory() > 0),
    ]


def memory() -> int:
    """Bytes of memory that this process may use."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = CONTAINER_MEMORY.read_text(encoding="ascii").strip() if CONTAINER_MEMORY.exists() else ""
    return min(whole, int(text)) if text.isdecimal() else whole


def best_precision() -> str:
    """float64, or float32 where the device has no float64."""
    try:
        values = Tensor(np.array([[1.0, 1e-12]]))
        result = ops.exp(ops.matmul(values, values.T)).asnumpy()
    except (RuntimeError, TypeError, ValueError):
        return "float32"
    return "float64" if result.dtype == np.float64 and abs(result.item() - np.e) < 1e-14 else "float32"


def precision(dtype: str) -> list[Row]:
    """Which precision the checks below use."""
    note = "used by the checks below" if dtype == "float64" else "not on this device: the checks below use float32"
    return [Row("float64", note, "", OK if dtype == "float64" else KNOWN)]


class SquareOfSum(nn.Cell):
    """f(x) = (sum x)^2, whose second derivatives are all 2."""

    def construct(self, x: Tensor) -> Tensor:
        """(K,) to a number."""
        return x.sum() * x.sum()


def nested_gradient() -> tuple[Callable[..., Tensor], Compiled]:
    """d/dx of grad f . v for the square of the sum, eager and compiled; both are 2 sum(v) for every element."""
    function = SquareOfSum()
    slope = ms.grad(function)

    def projected(x, v):
        return (slope(x) * v).sum()

    twice = ms.grad(projected)
    return twice, Compiled(function, twice)


def second_derivatives() -> list[Row]:
    """The function of four lines whose second derivative MindSpore loses where the inner gradient is eager."""
    x, v = np.array([0.3, -1.1, 2.0], np.float32), np.array([1.0, 0.5, -0.25], np.float32)
    expected = np.full(3, 2 * v.sum())

    rows: list[Row] = []
    for mode, words in (("GRAPH", "GRAPH"), ("PYNATIVE", "compiled from PYNATIVE")):
        rows += guarded(f"(sum x)^2, {words}", partial(compiled_row, f"(sum x)^2, {words}", mode, x, v, expected))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    return [*rows, eager_row("(sum x)^2, eager PYNATIVE", lambda: nested_gradient()[0](Tensor(x), Tensor(v)), expected)]


def compiled_row(name: str, mode: str, x: np.ndarray, v: np.ndarray, expected: np.ndarray) -> list[Row]:
    """The compiled derivative in one mode."""
    ms.set_context(mode=MODES[mode])
    found = nested_gradient()[1](Tensor(x), Tensor(v)).asnumpy()
    return [below(name, largest_difference(found, expected), 1e-6)]


def eager_row(name: str, run: Callable[[], Tensor], expected: np.ndarray) -> Row:
    """Nested gradients in eager mode: the suite never uses them; said because a user may try them."""
    try:
        difference = largest_difference(run().asnumpy(), expected)
    except Exception as error:
        return Row(name, reason(error), "never used", KNOWN)
    if difference <= 1e-6:
        return Row(name, f"{difference:.1e}: right here", "never used", OK)
    return Row(name, f"{difference:.1e}: wrong here, as known", "never used", KNOWN)


def half_precision() -> list[Row]:
    """How float16 overflows and sums: what to know before choosing it."""
    return [
        *guarded("float16, 65504 * 2", half_overflow),
        *guarded("float16, sum of 4096 ones", half_sum),
        *guarded("float16, sum of 65520 twos", half_long_sum),
    ]


def half_overflow() -> list[Row]:
    """Whether a product beyond the largest number becomes infinite, and isfinite says so."""
    product = Tensor(np.full(4, LARGEST_HALF, np.float16)) * Tensor(np.full(4, 2, np.float16))
    noticed = not bool(ops.isfinite(product).asnumpy().any())
    words = "isfinite notices" if noticed else "isfinite notices nothing"
    return [Row("float16, 65504 * 2", f"{product.asnumpy()[0]}: {words}", "inf", OK if noticed else KNOWN)]


def half_sum() -> list[Row]:
    """2048 + 1 is 2048 in float16: a sum one by one stops there."""
    total = float(Tensor(np.ones(4096, np.float16)).sum().asnumpy())
    return [Row("float16, sum of 4096 ones", f"{total:g}", "4096", OK if total == 4096 else KNOWN)]


def half_long_sum() -> list[Row]:
    """A sum beyond the largest number must be infinite, not a number that looks harmless."""
    total = Tensor(np.full(65520, 2, np.float16)).sum()
    noticed = not bool(ops.isfinite(total).asnumpy())
    return [Row("float16, sum of 65520 twos", f"{float(total.asnumpy()):g}", "inf", OK if noticed else KNOWN)]

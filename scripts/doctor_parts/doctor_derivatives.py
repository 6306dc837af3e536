"""Values and derivatives of order 1, 2 and 3 of the operators, against NumPy.

For each operator y = f(x) the function of one variable

    phi(t) = sum w (y + y^3),   y = f(x + t v),   with fixed random x, v and w

is differentiated three times, reverse mode over reverse mode as in ``physics.derivatives``.  The reference is phi by
NumPy on 11 points beside t = 0, whose polynomial has all three derivatives.  All operators are parts of one graph;
where it does not compile, halves of it are tried until the operators that break it stand alone.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_derivatives.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from physics.derivatives import Compiled
from scripts.doctor_parts.doctor_checks import OK, WRONG, Row, judged, largest_difference, reason
from scripts.doctor_parts.doctor_operators import Operator
from training.device import MODES

#: precision to the largest relative error of values, and of derivatives
LIMITS = {"float64": (1e-12, 1e-7), "float32": (1e-5, 1e-3)}
ORDERS = 4  # values and three derivatives
POINTS, SPACING = 11, 0.01  # of the polynomial
HEADER = f"{'GRAPH: 0':>9}{1:>7}{2:>7}{3:>7}   PYNATIVE: 0{1:>7}   compiled: 2{3:>7}"

Errors = dict[str, list[float] | str]  # operator to its error of each order, or to why it has none


class Derivatives(Compiled):
    """Values and derivatives of the phi of several operators, in one graph.

    It takes x of every operator, then v of every operator, then w, and returns the values y of every operator, then
    d phi / dx, then for each higher order the gradient of the gradient along v.

    Args:
        chosen: K operators, at least two: MindSpore returns the gradient of one input without a tuple around it.
        orders: the highest derivative.
    """

    def __init__(self, chosen: Sequence[Operator], orders: int):
        count, functions = len(chosen), tuple(operator.apply for operator in chosen)
        inputs = tuple(range(count))

        def phi(*arguments):
            total: Any = 0
            values: tuple = ()
            for i in inputs:
                y = functions[i](arguments[i])
                total = total + (arguments[2 * count + i] * (y + y * y * y)).sum()
                values = (*values, y)
            return total, (values,)

        def derived(function):
            """The function's own results and its gradients, along v and as they are."""
            derive = ms.value_and_grad(function, inputs, None, has_aux=True)

            def derivative(*arguments):
                (_, lower), gradients = derive(*arguments)
                total: Any = 0
                for i in inputs:
                    total = total + (gradients[i] * arguments[count + i]).sum()
                return total, (*lower, gradients)

            return derivative

        function = phi
        for _ in range(orders):
            function = derived(function)
        self.first_order = derived(phi)
        super().__init__(nn.CellList([one for one in functions if isinstance(one, nn.Cell)]), function)


class Place(NamedTuple):
    """Where an operator is differentiated: x, the direction v, the weights w, and phi and its derivatives there."""

    x: np.ndarray
    v: np.ndarray
    w: np.ndarray
    value: np.ndarray
    derivatives: list[float]


def place_of(operator: Operator, dtype: str) -> Place:
    """Fixed random numbers that the precision holds exactly, and the reference."""
    random = np.random.default_rng(11)

    def rounded(values: np.ndarray) -> np.ndarray:
        return values.astype(dtype).astype(np.float64)

    x = rounded(operator.at)
    v = rounded(random.uniform(0.5, 1.5, x.shape) * random.choice((-1.0, 1.0), x.shape) * (x != 0))
    value = operator.formula(x)
    w = rounded(random.normal(size=value.shape))

    def phi(t: float) -> float:
        y = operator.formula(x + t * v)
        return float((w * (y + y**3)).sum())

    steps = np.arange(POINTS) - POINTS // 2
    coefficients = np.linalg.solve(
        np.vander(steps.astype(np.float64), increasing=True), [phi(SPACING * step) for step in steps]
    )
    derivatives = [math.factorial(k) * coefficients[k] / SPACING**k for k in range(1, ORDERS)]
    return Place(x, v, w, value, derivatives)


def errors_of(chosen: Sequence[Operator], dtype: str, eager: bool = False) -> Errors:
    """Relative errors of each operator; those that break the graph are found by halving.

    Args:
        chosen: the operators.
        dtype: precision.
        eager: not compiled, and then only value and first derivative.
    """
    found: Errors = {}
    for orders in sorted({operator.orders for operator in chosen}):
        found |= _errors_of([operator for operator in chosen if operator.orders == orders], orders, dtype, eager)
    return found


def _errors_of(chosen: list[Operator], orders: int, dtype: str, eager: bool) -> Errors:
    """The same of operators that are differentiated equally often."""
    pair = chosen if len(chosen) > 1 else chosen * 2
    places = [place_of(operator, dtype) for operator in pair]
    tensors = [Tensor(getattr(place, part).astype(dtype)) for part in "xvw" for place in places]
    try:
        derivatives = Derivatives(pair, orders)
        _, (values, *gradients) = (derivatives.first_order if eager else derivatives)(*tensors)
        arrays = [[tensor.asnumpy().astype(np.float64) for tensor in order] for order in (values, *gradients)]
    except Exception as error:
        if len(chosen) == 1:
            return {chosen[0].name: reason(error)}
        half = len(chosen) // 2
        return {
            **_errors_of(chosen[:half], orders, dtype, eager),
            **_errors_of(chosen[half:], orders, dtype, eager),
        }
    return {
        operator.name: relative_errors(place, [order[i] for order in arrays])
        for i, (operator, place) in enumerate(zip(chosen, places, strict=False))
    }


def relative_errors(place: Place, found: list[np.ndarray]) -> list[float]:
    """Of the values, and of each derivative along v; relative to the first derivative where one is smaller than it.

    Args:
        place: the reference.
        found: values, then gradients.
    """
    errors = [largest_difference(found[0], place.value)]
    for gradient, expected in zip(found[1:], place.derivatives, strict=False):
        difference = abs(float((gradient * place.v).sum()) - expected)
        errors.append(difference / max(abs(expected), abs(place.derivatives[0])))
    return errors


def check_operators(chosen: Sequence[Operator], dtype: str) -> list[Row]:
    """One row for each operator: four orders in GRAPH mode, two eager, and two compiled from PYNATIVE mode."""
    ms.set_context(mode=MODES["GRAPH"])
    graph = errors_of(chosen, dtype)
    ms.set_context(mode=MODES["PYNATIVE"])
    eager, compiled = errors_of(chosen, dtype, eager=True), errors_of(chosen, dtype)
    return [row_of(one.name, graph[one.name], eager[one.name], compiled[one.name], dtype) for one in chosen]


def row_of(
    name: str, graph: list[float] | str, eager: list[float] | str, compiled: list[float] | str, dtype: str
) -> Row:
    """The row of one operator."""
    of_values, of_derivatives = LIMITS[dtype]
    right, words = True, []
    for errors, shown in ((graph, range(ORDERS)), (eager, range(2)), (compiled, range(2, ORDERS))):
        if isinstance(errors, str):
            right = False
            words.append(errors)
            continue
        right = right and errors[0] <= of_values and all(error <= of_derivatives for error in errors[1:])
        words.append("  ".join(f"{errors[k]:5.0e}" if k < len(errors) else f"{'-':>5}" for k in shown))
    return Row(name, "     ".join(words), f"{of_values:.0e} {of_derivatives:.0e}", OK if right else WRONG)


def check_single_precision(chosen: Sequence[Operator]) -> list[Row]:
    """Values and first derivatives in float32, which training uses: the largest error of all operators."""
    ms.set_context(mode=MODES["PYNATIVE"])
    found = errors_of(chosen, "float32", eager=True)
    broken = [f"{name}: {errors}" for name, errors in found.items() if isinstance(errors, str)]
    if broken:
        return [Row("float32", "; ".join(broken), "no error", WRONG)]
    rows = []
    for order, (words, limit) in enumerate(zip(("values", "first derivatives"), LIMITS["float32"], strict=True)):
        worst = max(found, key=lambda name: found[name][order])
        error = float(found[worst][order])
        rows.append(judged(f"float32, {words}", f"{error:.1e}, of {worst}", f"{limit:.0e}", error <= limit))
    return rows

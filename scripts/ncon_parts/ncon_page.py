"""The page of scripts/ncon_precision.py: tables, and the record of every figure."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_page.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.ncon_parts.ncon_effect import Difference, Effect
from scripts.ncon_parts.ncon_gradients import Backward
from scripts.ncon_parts.ncon_products import KINDS, PRE_POOL, UPDATES, Measured
from scripts.ncon_parts.ncon_ranges import NOTHING, Error, Range
from scripts.ncon_parts.ncon_steps import StepTime
from scripts.ncon_parts.ncon_subject import Subject
from training.cpu_runtime import cores
from training.device import versions

INTRODUCTION = """# float16 in the products of SEGNN

`ncon_dtype: float16` rounds the operands of the products with attributes, and what they give, to float16; all else
keeps the precision of the model. A product is what stands between two nonlinearities. Messages are computed in the
frame of each edge (`models/e3/edge_frame.py`): `message 1` turns the features of both ends into it and mixes their
channels, `message 2` mixes again, `out of frame` turns back; the updates and the layers before pooling couple with the
attributes of a node and mix. The embedding multiplies in the precision of the model and has no such product.
"""
PRODUCTS = """### Products

The model's own cells with float16, on MindSpore's operators as on Ascend, from the activations of the float64 model.
Errors of a result beside float64: root of the mean square / largest, both over the root of the mean square of the
result.
"""
RANGES = """Numbers that are not 0 in float64, of all layers, and how many of them in float16 overflow (above 65504),
become 0 (below 3e-8) or are subnormal (below 6.1e-5, less than 11 bits). `between` is what passes from the coupling to
the mixing.
"""
PATHS = """### Paths

What one path l1 x l2 -> l3 adds to a product, computed alone (the weights of the others are 0; in a frame it is a block
of W_m): median / largest over the layers of the relative root of the mean square of its error; counts are of them all.
"""
BACKWARD = """### Backwards

Gradients of the loss of the configuration for {structures} training structures, in the float64 model, with respect to
the results of products, to what goes into their mixing and to their weights; counts of what becomes of them in float16
without a loss scale, in the first, the middle and the last layer.
"""


class Report(NamedTuple):
    """All figures of one subject."""

    subject: Subject
    products: list[Measured]
    backward: Backward
    effect: list[Effect]
    times: list[StepTime]


def page(reports: Sequence[Report], about: Mapping[str, Any], recommendation: str) -> str:
    """The page.

    Args:
        reports: of each subject.
        about: the command, the commit, and how the device adds.
        recommendation: the last paragraphs.
    """
    programs = ", ".join(f"{name} {value}" for name, value in versions().items())
    lines = [
        INTRODUCTION,
        "```bash", about["command"], "```", "",
        f"Commit {about['commit'] or 'unknown'}, started {about['started']}; {programs}; CPU, {cores()} cores.",
        f"Sums of this device's float16 products: {about['accumulation']} (sums of 4096 ones, and of numbers whose "
        "partial sums overflow). The figures of every layer and path stand in the JSON file beside this page.", "",
    ]  # fmt: skip
    for report in reports:
        lines += [f"## {report.subject.about}", "", _subject(report.subject), "", PRODUCTS, *_errors(report.products)]
        lines += ["", RANGES, *_ranges(report.products), "", PATHS, *_paths(report.products), ""]
        lines += [BACKWARD.format(structures=report.backward.structures), *_backward(report.backward), ""]
        lines += _effect(report)
        lines += _times(report.times, about["batch_size"])
    return "\n".join([*lines, "## Recommendation for Ascend", "", recommendation, ""])


def record_of(reports: Sequence[Report], about: Mapping[str, Any]) -> dict[str, Any]:
    """Every figure, for JSON."""
    return {
        **about, "versions": versions(), "cores": cores(),
        "subjects": [
            {
                "about": report.subject.about, "target": report.subject.task.target.name,
                "unit": report.subject.task.target.unit, "structures": len(report.subject.rows),
                "products": [
                    {"layer": one.product.layer, "kind": one.product.kind,
                     **{key: _plain(value) for key, value in one._asdict().items() if key != "product"}}
                    for one in report.products
                ],
                "backward": _plain(report.backward), "effect": _plain(report.effect), "times": _plain(report.times),
            }
            for report in reports
        ],
    }  # fmt: skip


def total(ranges: Sequence[Range]) -> Range:
    """All of them together."""
    result = NOTHING
    for one in ranges:
        result = result + one
    return result


def _plain(value: Any) -> Any:
    """Named tuples as dictionaries, and what is no number as None."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _subject(subject: Subject) -> str:
    target, model = subject.task.target, subject.model
    return (
        f"Layers: {model.blocks}, features {model.features}, degrees {model.lmax} and {model.lmax_attributes} "
        f"(attributes), cutoff {model.cutoff:g} Angstrom; target {target.name} [{target.unit}]; "
        f"{len(subject.rows)} structures of the {len(subject.dataset.split.test)} test structures of split "
        f"{subject.dataset.split.name}."
    )


def _number(value: float) -> str:
    return f"{value:.1e}" if np.isfinite(value) else "not finite"


def _error(error: Error) -> str:
    return f"{_number(error.rms)} / {_number(error.largest)}"


def _errors(products: Sequence[Measured]) -> list[str]:
    """Layers by rows, products by columns."""
    columns = [kind for kind in KINDS if not kind.startswith(PRE_POOL)]
    shown = {(one.product.layer, one.product.kind.replace(PRE_POOL, "update")): _error(one.error) for one in products}
    rows = [
        [layer, *(shown.get((layer, kind), "-") for kind in columns)]
        for layer in dict.fromkeys(one.product.layer for one in products)
    ]
    head = [kind.replace("update", "update, pre-pool") if kind in UPDATES else kind for kind in columns]
    pairs = [(one.emulated.rms, one.error.rms) for one in products]
    apart = max((abs(wide / half - 1) for wide, half in pairs if half > 0 and np.isfinite(half)), default=0.0)
    words = "the same errors to the last digit" if apart == 0 else f"errors that differ by up to {100 * apart:.2g} %"
    return [
        *_table(["layer", *head], rows), "",
        "Operands rounded to float16, sums in float32 and one rounding of the result, as a cube unit does, give "
        f"{words}.",
    ]  # fmt: skip


def _counts(one: Range) -> list[str]:
    share = [f"{count:,} ({100 * count / one.values:.2g} %)" if count else "0" for count in (one.zero, one.subnormal)]
    smallest = _number(one.smallest) if one.values else "-"
    return [f"{one.values:,}", smallest, _number(one.largest), f"{one.overflow:,}", *share]


COUNTED = ("numbers", "smallest", "largest", "overflow", "to 0", "subnormal")


def _ranges(products: Sequence[Measured]) -> list[str]:
    rows = []
    for kind in KINDS:
        own = [one for one in products if one.product.kind == kind]
        for name in own[0].ranges:
            largest = max(own, key=lambda one: one.ranges[name].largest)
            row = _counts(total([one.ranges[name] for one in own]))
            if len(own) > 1:
                row[2] += f" (layer {largest.product.layer})"
            rows.append([kind, name, *row])
    return _table(["product", "what", *COUNTED], rows)


def _paths(products: Sequence[Measured]) -> list[str]:
    kinds = [kind for kind in KINDS if any(one.paths for one in products if one.product.kind == kind)]
    names = sorted({name for one in products for name in one.paths})
    rows = []
    for name in names:
        cells = []
        for kind in kinds:
            errors = [one.paths[name][0].rms for one in products if one.product.kind == kind and name in one.paths]
            cells.append(f"{_number(float(np.median(errors)))} / {_number(max(errors))}" if errors else "-")
        every = total([one.paths[name][1] for one in products if name in one.paths])
        rows.append([name, *cells, *_counts(every)[2:]])
    return _table(["path", *kinds, *COUNTED[2:]], rows)


def _backward(backward: Backward) -> list[str]:
    rows = [
        [kind, name, *_counts(one)]
        for kind, ranges in backward.ranges.items()
        for name, one in ranges.items()
    ]  # fmt: skip
    scales = list(backward.errors)
    kinds = list(backward.errors[scales[0]])
    errors = [
        [kind, *(_error(backward.errors[scale][kind]) for scale in scales)] for kind in kinds
    ]  # fmt: skip
    lost = ", ".join(f"{backward.lost[scale]:,} with a loss scale of {scale:g}" for scale in scales)
    return [
        *_table(["product", "gradient", *COUNTED], rows), "",
        "Gradients of the weights in a float64 model with float16 products beside float64, all layers: root of the",
        f"mean square / largest error. Not finite are {lost}.", "",
        *_table(["product", *(f"loss scale {scale:g}" for scale in scales)], errors),
    ]  # fmt: skip


def _difference(one: Difference) -> list[str]:
    lost = f" ({one.lost:,} not finite)" if one.lost else ""
    return [f"{_number(one.mean)}{lost}", _number(one.largest), _number(one.relative)]


def _effect(report: Report) -> list[str]:
    target = report.subject.task.target
    unit, words = target.unit, "gradient" if not target.has_forces else "force"
    rows = [
        [*case[:2], f"{case.label_mae:.5g}", *_difference(case.prediction)[:2], *_difference(case.gradient)]
        for case in report.effect
    ]
    return [
        "### Predictions and their gradients with respect to positions", "",
        "Differences to a float64 model with float64 products. The root of the mean square of a component of the "
        f"{words} is {report.effect[0].size:.4g} {unit}/Angstrom.", "",
        *_table(
            ["model", "products", f"MAE against labels [{unit}]", f"mean difference of {target.name} [{unit}]",
             f"largest [{unit}]", f"mean difference of a {words} component [{unit}/A]", f"largest [{unit}/A]",
             "relative"],
            rows,
        ), "",
    ]  # fmt: skip


def _times(times: Sequence[StepTime], batch_size: int) -> list[str]:
    if not times:
        return []
    rows = [
        [
            one.dtype,
            one.ncon_dtype,
            one.path,
            f"{one.median:.1f}",
            f"{one.least:.1f}",
            str(one.steps),
            f"{one.first:.0f}",
        ]
        for one in times
    ]
    return [
        "### Time of a train step", "",
        f"Batches of {batch_size}. These are times of a CPU, which say nothing of Ascend. There are no kernels for "
        "float16.",
        "",
        *_table(["model", "products", "path", "median [ms]", "least [ms]", "steps", "until warm [s]"], rows), "",
    ]  # fmt: skip

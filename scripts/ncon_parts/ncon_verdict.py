"""The recommendation of scripts/ncon_precision.py: sentences that the measured figures choose."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("ncon_verdict.py is a part of ncon_precision.py: see python scripts/ncon_precision.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Sequence

import numpy as np

from scripts.ncon_parts.ncon_effect import Effect
from scripts.ncon_parts.ncon_gradients import SCALES
from scripts.ncon_parts.ncon_page import Report, total
from scripts.ncon_parts.ncon_ranges import LARGEST

#: up to these float16 is called harmless: of the error of the model, of the size of a gradient; of what is small
#: backwards
SHARE_OF_ERROR, SHARE_OF_GRADIENT, SHARE_LOST = 0.05, 0.01, 0.01
BETTER = 0.9  # a loss scale helps if the error of the gradients of weights falls below this part of it
ROOM = 16.0  # between the largest gradient and the limit, for batches that have larger ones


def recommendation(reports: Sequence[Report]) -> str:
    """The paragraphs that end the page."""
    paragraphs = [
        "Float16 is called harmless here where it moves a prediction, on average, by less than "
        f"{100 * SHARE_OF_ERROR:g} % of the model's error against the labels, and a gradient by less than "
        f"{100 * SHARE_OF_GRADIENT:g} % of its size. The products are those of Ascend where its cube unit adds in "
        "float32 and rounds once; nothing here was run on Ascend, and whether float16 saves time has to be measured "
        "there."
    ]
    return "\n\n".join([*paragraphs, *(_of(report) for report in reports)])


def _of(report: Report) -> str:
    """What the figures of one subject say."""
    half = report.effect[-1]
    unfit = half.prediction.lost or half.gradient.lost or overflows(report)
    words = [f"**{report.subject.about}**.", _forward(report), _prediction(report, half), _backward(report)]
    if unfit:
        words.append("`ncon_dtype: float32` is the choice for this model.")
    elif half.prediction.mean < SHARE_OF_ERROR * half.label_mae and half.gradient.relative < SHARE_OF_GRADIENT:
        words.append("`ncon_dtype: float16` can be tried where it is faster; compare the error with float32.")
    elif half.prediction.mean < SHARE_OF_ERROR * half.label_mae:
        words.append("`ncon_dtype: float16` can be tried for predictions, not where forces or gradients are wanted.")
    else:
        words.append("`ncon_dtype: float32` is the choice for this model.")
    return " ".join(words)


def overflows(report: Report) -> list[str]:
    """Where a number of the forward pass overflows: layer, product and what."""
    return [
        f"layer {one.product.layer}, {one.product.kind}, {name} (up to {found.largest:.3g})"
        for one in report.products
        for name, found in one.ranges.items()
        if found.overflow
    ]


def _forward(report: Report) -> str:
    places = overflows(report)
    if places:
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return (
            f"Forwards, numbers overflow in {'; '.join(places[:3])}{more}: a loss scale changes nothing about that; "
            "train with `norm: instance` or `batch`, with a weight decay, or in float32."
        )
    every = total([found for one in report.products for found in one.ranges.values()])
    return (
        f"Forwards nothing overflows: the largest number is {every.largest:.3g}, {LARGEST / every.largest:,.0f} times "
        f"below the limit; {100 * every.zero / every.values:.2g} % of the numbers become 0 and "
        f"{100 * every.subnormal / every.values:.2g} % are subnormal."
    )


def _prediction(report: Report, half: Effect) -> str:
    target = report.subject.task.target
    share, other = 100 * half.prediction.mean / half.label_mae, "forces" if target.has_forces else "gradients"
    untrained = "" if "initial weights" not in report.subject.about else " (of initial weights, which is large)"
    return (
        f"In a {half.dtype} model predictions move by {half.prediction.mean:.2g} {target.unit} on average and "
        f"{half.prediction.largest:.2g} at most, {share:.2g} % of the error{untrained} of {half.label_mae:.3g} "
        f"{target.unit}; {other} by {half.gradient.mean:.2g} {target.unit}/Angstrom, "
        f"{100 * half.gradient.relative:.2g} % of their size."
    )


def _backward(report: Report) -> str:
    backward = report.backward
    passing = total([ranges[name] for ranges in backward.ranges.values() for name in ("result", "between")])
    plain, scaled = (max(one.rms for one in backward.errors[scale].values()) for scale in SCALES)
    words = (
        f"Backwards, at {backward.structures} structures a batch and without a loss scale, the largest gradient is "
        f"{passing.largest:.2g}; {100 * passing.zero / max(passing.values, 1):.2g} % become 0 and "
        f"{100 * passing.subnormal / max(passing.values, 1):.2g} % are subnormal."
    )
    limit = 2.0 ** np.floor(np.log2(LARGEST / ROOM / passing.largest)) if passing.largest else 1.0
    if backward.lost[SCALES[0]] or passing.overflow:
        return f"{words} Some overflow: use `training.loss_scale: dynamic`, or float32."
    compared = (
        f"the gradients of the weights are off by up to {100 * plain:.2g} % without and {100 * scaled:.2g} % with a "
        f"loss scale of {SCALES[1]:g}"
    )
    helps = scaled < BETTER * plain
    words = f"{words} A loss scale {'helps' if helps else 'changes little here'}: {compared}."
    if not helps and passing.zero + passing.subnormal <= SHARE_LOST * passing.values:
        return words
    why = "" if helps else " This CPU keeps subnormal numbers; a device that sets them to 0 would lose these gradients."
    return (
        f"{words}{why} Train with `training.loss_scale: dynamic`: up to a scale of {limit:,.0f} the largest gradient "
        f"here stays {ROOM:g} times below the limit."
    )

"""AdamW with bias correction, gradient clipping, the moving average of weights, and learning-rate schedules.

MindSpore's ``AdamWeightDecay`` operator updates m, v and the weight in one kernel but has no bias correction:

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   p <- p - lr' (m / (sqrt(v) + eps') + wd' p)

With c1 = 1 - b1^t and c2 = 1 - b2^t the update of Loshchilov and Hutter (arXiv 1711.05101, algorithm 2),

    p <- p - lr (m / c1 / (sqrt(v / c2) + eps) + wd p),

is exactly this operator with

    (1)  lr' = lr sqrt(c2) / c1,     (2)  eps' = eps sqrt(c2),     (3)  wd' = wd lr / lr'.

The three numbers are computed in float64 on the host, where the step counter lives.  The operator rounds weights to
float32, so float64 weights are updated by the same law written out.  So is AMSGrad (Reddi et al., ICLR 2018), where the
largest v so far stands in the place of v.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

SCHEDULES = ("constant", "cosine", "one_cycle", "exponential", "step", "plateau")


class AdamW(nn.Cell):
    """One step of AdamW for all weights, with clipping before and the moving average after it.

    The scalars are float32, so an update is good to about 1e-6 relative in either precision.

    Args:
        weights: the parameters to train.
        beta1, beta2: decay of the moments.
        clip_norm: largest norm of the whole gradient; 0 for no clipping.
        ema_decay: decay of the moving average of the weights; 0 for none.
        amsgrad: divide by the root of the largest second moment so far.
    """

    def __init__(
        self,
        weights: ParameterTuple,
        beta1: float,
        beta2: float,
        clip_norm: float = 0.0,
        ema_decay: float = 0.0,
        amsgrad: bool = False,
    ):
        super().__init__()
        self.weights = weights
        self.first = weights.clone(prefix="first", init="zeros")
        self.second = weights.clone(prefix="second", init="zeros")
        self.largest = weights.clone(prefix="largest", init="zeros") if amsgrad else ()
        self.average = weights.clone(prefix="average", init="same") if ema_decay else ()
        self.update = ops.AdamWeightDecay()
        self.fused = not amsgrad and all(weight.dtype == mstype.float32 for weight in weights)
        self.beta1, self.beta2 = Tensor(beta1, mstype.float32), Tensor(beta2, mstype.float32)
        self.clip_norm = float(clip_norm)
        self.sizes = tuple(weight.size for weight in weights)
        self.ends = tuple(itertools.accumulate(self.sizes))
        self.blend = 1.0 - float(ema_decay)

    def construct(self, gradient: Tensor, finite: Tensor, lr: Tensor, epsilon: Tensor, decay: Tensor) -> Tensor:
        """Update every weight, or change nothing at all.

        Args:
            gradient: (K,) of all weights, as ``flatten`` joins them.
            finite: float32 scalar, 1 to update; at 0 both decays are 1 and gradient and rate are 0, which leaves every
                weight, moment and average as it is without a branch in the graph.
            lr, epsilon, decay: float32 scalars of equations (1)-(3).
        """
        # not where(finite > 0, ...), nor a division by a number: of what it broadcasts a CPU keeps two or three indices
        # of 8 bytes for each element, as long as the compiled graph lives; only products have no need of them
        gradient = ops.select(ops.isfinite(gradient), gradient, ops.zeros_like(gradient))
        if self.clip_norm > 0:
            gradient = clip_by_norm(gradient, self.clip_norm)
        gradient = gradient * finite
        lr = lr * finite
        one = ops.ones_like(finite)
        beta1, beta2 = ops.where(finite > 0, self.beta1, one), ops.where(finite > 0, self.beta2, one)
        done = lr
        values: tuple = ()
        for i in range(len(self.weights)):
            part = gradient[self.ends[i] - self.sizes[i] : self.ends[i]].reshape(self.weights[i].shape)
            arguments = (self.weights[i], self.first[i], self.second[i], lr, beta1, beta2, epsilon, decay, part)
            if self.fused:
                value = self.update(*arguments)
            elif self.largest:
                value = written_out(*arguments, self.largest[i])
            else:
                value = written_out(*arguments)
            done, values = ops.depend(done, value), (*values, value)
        if self.blend < 1:
            for i in range(len(self.weights)):
                # not self.weights[i] in float64: read after an assignment, a graph on a CPU rounds it to float32
                weight = ops.depend(self.weights[i], done) if self.fused else values[i]
                average = self.average[i]
                # one rounded number: two that do not add up to 1 would scale the average by up to 1e-4
                ops.assign(average, average + self.blend * finite * (weight - average))
        return done


def written_out(
    weight: Parameter,
    first: Parameter,
    second: Parameter,
    lr: Tensor,
    beta1: Tensor,
    beta2: Tensor,
    epsilon: Tensor,
    decay: Tensor,
    gradient: Tensor,
    largest: Parameter | None = None,
) -> Tensor:
    """The operator's law in the precision of the weight: returns the new weight, which is assigned.

    With ``largest``, AMSGrad: a step that changes nothing leaves v as it is, and so the largest v too.
    """
    m = beta1 * first + (1 - beta1) * gradient
    v = beta2 * second + (1 - beta2) * gradient * gradient
    bound = v if largest is None else ops.maximum(largest, v)
    p = weight - lr * (m / (ops.sqrt(bound) + epsilon) + decay * weight)
    done: tuple = (ops.assign(first, m), ops.assign(second, v), ops.assign(weight, p))
    if largest is not None:
        done = (*done, ops.assign(largest, bound))
    return ops.depend(p, done)


def flatten(gradients: tuple) -> Tensor:
    """The gradients of all weights as one vector (K,), in their order."""
    parts: tuple = ()
    for gradient in gradients:
        parts = (*parts, gradient.reshape(-1))
    return ops.concat(parts, 0)


def clip_by_norm(gradient: Tensor, largest: float) -> Tensor:
    """Scale a gradient (K,) so that its Euclidean norm is at most ``largest``."""
    norm = ops.sqrt((gradient * gradient).sum())
    return gradient * (largest / ops.maximum(norm, ops.full_like(norm, largest)))


def operator_scalars(
    step: int, lr: float, beta1: float, beta2: float, epsilon: float, weight_decay: float
) -> tuple[float, float, float]:
    """lr', eps' and wd' of equations (1)-(3) for the ``step``-th update (1 for the first).

    The operator holds the decays in float32, where 1 - b2 is off by up to 5e-5: the bias to correct is that of the
    rounded decays.
    """
    c1, c2 = 1.0 - float(np.float32(beta1)) ** step, 1.0 - float(np.float32(beta2)) ** step
    root = math.sqrt(c2)
    operator_lr = lr * root / c1
    return operator_lr, epsilon * root, weight_decay * lr / operator_lr if operator_lr else 0.0


def learning_rate(
    name: str,
    step: int,
    total_steps: int,
    lr: float,
    *,
    warmup_steps: int = 0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    decay_rate: float = 0.5,
    decay_steps: int = 10000,
    warmup_fraction: float = 0.3,
    cooldown_steps: int = 0,
    reductions: int = 0,
) -> float:
    """The learning rate of the update with number ``step`` (0 for the first) of ``total_steps``.

    Args:
        name: constant; cosine: lr to min_lr along half a cosine; exponential: decay_rate^(t / decay_steps); step:
            decay_rate^floor(t / decay_steps); plateau: decay_rate^reductions; one_cycle: half a cosine from lr / 25 to
            lr in ``warmup_fraction`` of all steps, then half a cosine to lr / 250,000 (Smith and Topin,
            arXiv 1708.07120, with the constants of torch's OneCycleLR).  t counts from the end of the warm-up.
        step: updates made so far.
        total_steps: updates of the whole run.
        lr: the highest rate.
        warmup_steps, warmup_lr: linear rise before the schedule; ``one_cycle`` has its own.
        min_lr: lower bound after the warm-up.
        decay_rate, decay_steps, warmup_fraction: see ``name``.
        cooldown_steps: the last steps of the run, which are made at ``min_lr``; the schedule ends before them.
        reductions: how often the plateau has lowered the rate so far.

    Raises:
        ValueError: unknown name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}: expected one of {', '.join(SCHEDULES)}")
    total_steps = max(1, total_steps - cooldown_steps)
    if cooldown_steps and step >= total_steps:
        return min_lr
    if name == "one_cycle":
        return max(_one_cycle(step, total_steps, lr, warmup_fraction), min_lr)
    if step < warmup_steps:
        return warmup_lr + (lr - warmup_lr) * (step + 1) / warmup_steps
    past, rest = step - warmup_steps, max(1, total_steps - warmup_steps)
    if name == "cosine":
        return min_lr + (lr - min_lr) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, past / rest)))
    exponent = {
        "constant": 0.0,
        "exponential": past / decay_steps,
        "step": past // decay_steps,
        "plateau": reductions,
    }[name]
    return max(lr * decay_rate**exponent, min_lr)


def _one_cycle(step: int, total_steps: int, lr: float, warmup_fraction: float) -> float:
    start, end = lr / 25.0, lr / 25.0 / 1e4
    peak = warmup_fraction * total_steps - 1
    last = total_steps - 1
    if step <= peak:
        low, high, share = start, lr, step / peak if peak else 1.0  # a rise of one step begins at its top
    else:
        low, high, share = lr, end, (step - peak) / max(1.0, last - peak)
    return high + (low - high) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


def moments_of(optimizer: AdamW) -> dict[str, Parameter]:
    """The optimiser's own state by name, for checkpoints."""
    return {parameter.name: parameter for parameter in (*optimizer.first, *optimizer.second, *optimizer.largest)}


class evaluation_weights:  # noqa: N801  used like a function in a with statement
    """Let the model hold the moving average of its weights, where there is one, for the time of a block."""

    def __init__(self, model: nn.Cell, optimizer: AdamW):
        self.pairs = list(zip(optimizer.weights, optimizer.average, strict=False))

    def __enter__(self) -> None:
        self.kept = [weight.asnumpy().copy() for weight, _ in self.pairs]
        for weight, average in self.pairs:
            weight.set_data(Tensor(average.asnumpy().copy(), weight.dtype))

    def __exit__(self, *_: object) -> None:
        for (weight, _), value in zip(self.pairs, self.kept, strict=True):
            weight.set_data(Tensor(value, weight.dtype))

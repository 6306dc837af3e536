"""AdamW with bias correction, gradient clipping and the moving average of weights.

MindSpore's ``AdamWeightDecay`` operator updates m, v and the weight in one kernel but has no bias correction:

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   p <- p - lr' (m / (sqrt(v) + eps') + wd' p)

With c1 = 1 - b1^t and c2 = 1 - b2^t the update of Loshchilov and Hutter (arXiv 1711.05101, algorithm 2),

    p <- p - lr (m / c1 / (sqrt(v / c2) + eps) + wd p),

is exactly this operator with

    (1)  lr' = lr sqrt(c2) / c1,     (2)  eps' = eps sqrt(c2),     (3)  wd' = wd lr / lr'.

The three numbers are computed in float64 on the host, where the step counter lives.  The operator rounds weights to
float32, so float64 weights are updated by the same law written out.  So is AMSGrad (Reddi et al., ICLR 2018), where the
largest v so far stands in the place of v.

All weights are updated as one vector (K,), see ``flat_weights``, and it and the moments are kept as such: weights that
something else changes while the optimiser lives are given to it by ``take_weights``.

The operator has one decay for all elements.  Where only matrices decay, the decay is taken from the weights before the
operator, which is then given wd' = 0: p <- p - lr' wd' d p, with d = 1 for the elements of matrices, 0 for the others.
Where parts of a network have learning rates of their own, the law is written out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore import dtype as mstype

from training.flat_weights import Flat, by_shape

MOMENTS = ("first", "second", "largest")
DECAY_ON = ("all", "matrices")


class AdamW(nn.Cell):
    """One step of AdamW for all weights, with clipping before and the moving average after it.

    The scalars are float32, so an update is good to about 1e-6 relative in either precision.

    Args:
        weights: the parameters to train, of one precision.
        beta1, beta2: decay of the moments.
        clip_norm: largest norm of the whole gradient; 0 for no clipping.
        ema_decay: decay of the moving average of the weights; 0 for none.
        amsgrad: divide by the root of the largest second moment so far.
        decay_on: one of ``DECAY_ON``; ``matrices`` are all weights of two and more axes.
        rates: factor of the learning rate by the name of a weight; None: 1 for all.

    Attributes:
        weights: the parameters, those of one shape beside each other.
        flat: tensors in that order to one vector (K,).
        current: (K,) all weights.
        first, second: (K,) moments of all weights.
        largest: (K,) largest second moment so far; None without AMSGrad.
        average: (K,) moving average of the weights; None without one.
    """

    def __init__(
        self,
        weights: ParameterTuple,
        beta1: float,
        beta2: float,
        clip_norm: float = 0.0,
        ema_decay: float = 0.0,
        amsgrad: bool = False,
        decay_on: str = "all",
        rates: Mapping[str, float] | None = None,
    ):
        super().__init__()
        if decay_on not in DECAY_ON:
            raise ValueError(f"decay_on {decay_on!r}: expected one of {', '.join(DECAY_ON)}")
        self.weights = by_shape(weights)
        self.flat = Flat(self.weights)
        start = self.flat.joined({weight.name: weight.asnumpy() for weight in weights})
        self.first, self.second = _state("first", 0 * start), _state("second", 0 * start)
        self.largest = _state("largest", 0 * start) if amsgrad else None
        self.average = _state("average", start) if ema_decay else None
        self.single = weights[0].dtype == mstype.float32
        decaying = {weight.name: np.full(weight.shape, weight.ndim > 1, start.dtype) for weight in weights}
        decays = self.flat.joined(decaying)
        #: d of the module; None where every weight decays
        self.decays = _state("decays", decays) if decay_on == "matrices" and not decays.all() else None
        factors = {
            weight.name: np.full(weight.shape, (rates or {}).get(weight.name, 1.0), start.dtype) for weight in weights
        }
        self.rates = None if rates is None else _state("rates", self.flat.joined(factors))
        self.update, self.zeros, self.no_decay = ops.AdamWeightDecay(), ops.ZerosLike(), Tensor(np.float32(0))
        self.current = _state("current", start)
        self.beta1, self.beta2 = Tensor(_single(beta1)), Tensor(_single(beta2))
        self.clip_norm = float(clip_norm)
        self.blend = Tensor(np.float32(1.0 - ema_decay))

    def construct(self, gradient: Tensor, finite: Tensor, lr: Tensor, epsilon: Tensor, decay: Tensor) -> Tensor:
        """Update every weight, or change nothing at all.

        Args:
            gradient: (K,) of all weights, as ``flat`` joins them.
            finite: float32 scalar, 1 to update; at 0 both decays are 1 and gradient and rate are 0, which leaves every
                weight, moment and average as it is without a branch in the graph.
            lr, epsilon, decay: float32 scalars of equations (1)-(3).
        """
        # not where(finite > 0, ...), nor a division by a number: of what it broadcasts a CPU keeps two or three indices
        # of 8 bytes for each element, as long as the compiled graph lives; only products have no need of them
        gradient = ops.select(ops.isfinite(gradient), gradient, self.zeros(gradient))
        if self.clip_norm > 0:
            gradient = clip_by_norm(gradient, self.clip_norm)
        gradient = gradient * finite
        lr = lr * finite
        one = ops.ones_like(finite)
        beta1, beta2 = ops.where(finite > 0, self.beta1, one), ops.where(finite > 0, self.beta2, one)
        if self.single and self.largest is None and self.rates is None:
            current = self.current
            if self.decays is not None:
                decayed = current - lr * decay * (self.decays * current)
                current, decay = ops.depend(current, ops.assign(current, decayed)), self.no_decay
            made = self.update(current, self.first, self.second, lr, beta1, beta2, epsilon, decay, gradient)
            new = ops.depend(self.current, made)
        else:
            new = self.written_out(gradient, lr, beta1, beta2, epsilon * ops.ones_like(gradient), decay)
        done: tuple = self.flat.assign(self.weights, new)
        if self.average is not None:
            # one rounded number: two that do not add up to 1 would scale the average by up to 1e-4
            average = self.average + self.blend * finite * (new - self.average)
            done = (done, ops.assign(self.average, average))
        return ops.depend(lr, done)

    def written_out(
        self, gradient: Tensor, lr: Tensor, beta1: Tensor, beta2: Tensor, epsilon: Tensor, decay: Tensor
    ) -> Tensor:
        """The operator's law in the precision of the weights: returns the new weights (K,), once all is assigned.

        With AMSGrad a step that changes nothing leaves v as it is, and so the largest v too.
        """
        old = self.current
        m = beta1 * self.first + (1 - beta1) * gradient
        v = beta2 * self.second + (1 - beta2) * gradient * gradient
        bound = v if self.largest is None else ops.maximum(self.largest, v)
        decaying = old if self.decays is None else self.decays * old
        change = lr * (m / (ops.sqrt(bound) + epsilon) + decay * decaying)
        new = old - (change if self.rates is None else self.rates * change)
        done: tuple = (ops.assign(self.first, m), ops.assign(self.second, v), ops.assign(self.current, new))
        if self.largest is not None:
            done = (*done, ops.assign(self.largest, bound))
        return ops.depend(new, done)

    def take_weights(self) -> None:
        """Go on from the weights that the model holds now."""
        values = {weight.name: weight.asnumpy() for weight in self.weights}
        self.current.set_data(Tensor(self.flat.joined(values), self.current.dtype))

    def parts(self, vector: Parameter, prefix: str = "") -> dict[str, np.ndarray]:
        """What a vector (K,) holds for each weight, by the weight's name after a prefix; copies."""
        return {prefix + name: part for name, part in self.flat.parts(vector).items()}


def _state(name: str, values: np.ndarray) -> Parameter:
    return Parameter(Tensor(values), name=name, requires_grad=False)


def clip_by_norm(gradient: Tensor, largest: float) -> Tensor:
    """Scale a gradient (K,) so that its Euclidean norm is at most ``largest``."""
    norm = ops.sqrt((gradient * gradient).sum())
    bound = ops.full_like(norm, largest)
    return gradient * (bound / ops.maximum(norm, bound))


def operator_scalars(
    step: int, lr: float, beta1: float, beta2: float, epsilon: float, weight_decay: float
) -> tuple[float, float, float]:
    """lr', eps' and wd' of equations (1)-(3) for the ``step``-th update (1 for the first).

    The operator holds the decays in float32, where 1 - b2 is off by up to 5e-5: the bias to correct is that of the
    rounded decays.
    """
    c1, c2 = 1.0 - float(_single(beta1)) ** step, 1.0 - float(_single(beta2)) ** step
    root = math.sqrt(c2)
    operator_lr = lr * root / c1
    return operator_lr, epsilon * root, weight_decay * lr / operator_lr if operator_lr else 0.0


def _single(decay: float) -> np.float32:
    """A decay as the operator holds it: a number in float32, less than 1."""
    return min(np.float32(decay), np.nextafter(np.float32(1), np.float32(0)))


def moments_of(optimizer: AdamW) -> dict[str, np.ndarray]:
    """The optimiser's own state by the names of checkpoints, ``first.<weight>``, ``second.`` and ``largest.``."""
    return {
        name: part
        for moment in MOMENTS
        if (vector := getattr(optimizer, moment)) is not None
        for name, part in optimizer.parts(vector, f"{moment}.").items()
    }


def average_of(optimizer: AdamW) -> dict[str, np.ndarray]:
    """The moving average by the names of the weights; empty where there is none."""
    return {} if optimizer.average is None else optimizer.parts(optimizer.average)


def set_state(optimizer: AdamW, moments: Mapping[str, np.ndarray], average: Mapping[str, np.ndarray]) -> list[str]:
    """Take moments and average from a checkpoint, and the weights from the model.

    Returns:
        The names that are missing or of another shape; with any of them nothing is changed.
    """
    given = {**moments, **{f"average.{name}": part for name, part in average.items()}}
    shapes = {name: part.shape for name, part in given.items()}
    held = [name for name in (*MOMENTS, "average") if getattr(optimizer, name) is not None]
    expected = {f"{name}.{weight.name}": weight.shape for name in held for weight in optimizer.weights}
    wrong = [name for name, shape in expected.items() if shapes.get(name) != shape]
    for name in held if not wrong else ():
        vector = getattr(optimizer, name)
        parts = {weight.name: given[f"{name}.{weight.name}"] for weight in optimizer.weights}
        vector.set_data(Tensor(optimizer.flat.joined(parts), vector.dtype))
    optimizer.take_weights()
    return wrong


class evaluation_weights:  # noqa: N801  used like a function in a with statement
    """Let the model hold the moving average of its weights, where there is one, for the time of a block."""

    def __init__(self, optimizer: AdamW):
        self.weights = {weight.name: weight for weight in optimizer.weights}
        self.average = average_of(optimizer)

    def __enter__(self) -> None:
        self.kept = {name: self.weights[name].asnumpy().copy() for name in self.average}
        self._hold(self.average)

    def __exit__(self, *_: object) -> None:
        self._hold(self.kept)

    def _hold(self, values: Mapping[str, np.ndarray]) -> None:
        for name, value in values.items():
            self.weights[name].set_data(Tensor(value, self.weights[name].dtype))

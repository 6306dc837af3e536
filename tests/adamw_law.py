"""The law of AdamW in NumPy, and our optimiser on a matrix and a row of weights."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn

from training.optimizer import AdamW, operator_scalars

SETTINGS = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.1}
STEPS = 20


class Step(nn.Cell):
    """Gradients enter as separate tensors, as inside a train step: a tuple would be compiled at every call."""

    def __init__(self, optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, first, second, finite, lr, epsilon, decay):
        return self.optimizer(self.optimizer.flat((first, second)), finite, lr, epsilon, decay)


def start(dtype="float64"):
    """A matrix and a vector of weights of different sizes."""
    random = np.random.default_rng(1)
    return [random.normal(size=(4, 3)).astype(dtype), (1e-2 * random.normal(size=5)).astype(dtype)]


def gradients(steps, dtype="float64"):
    """Gradients of very different sizes, with zeros and with changing signs."""
    random = np.random.default_rng(2)
    for step in range(steps):
        matrix = random.normal(size=(4, 3)) * 10.0 ** random.integers(-6, 2, (4, 3))
        vector = random.normal(size=5) * (step % 3 > 0)
        yield [matrix.astype(dtype), vector.astype(dtype)]


def reference(weights, all_gradients, lr, beta1, beta2, epsilon, weight_decay, decay_on="all"):
    """Algorithm 2 of Loshchilov and Hutter as torch.optim.AdamW writes it, float64; every state after every step.

    With ``matrices`` it is torch's AdamW with two groups of parameters, of which the one of rows has no weight decay.
    """
    weights = [weight.astype(np.float64) for weight in weights]
    first, second = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
    path = [np.zeros_like(w) for w in weights]
    for step, step_gradients in enumerate(all_gradients, 1):
        for k, given in enumerate(step_gradients):
            gradient = given.astype(np.float64)
            old = weights[k]
            first[k] = beta1 * first[k] + (1 - beta1) * gradient
            second[k] = beta2 * second[k] + (1 - beta2) * gradient**2
            corrected = first[k] / (1 - beta1**step)
            root = np.sqrt(second[k]) / np.sqrt(1 - beta2**step) + epsilon
            decay = weight_decay if decay_on == "all" or old.ndim > 1 else 0.0
            weights[k] = old * (1 - lr * decay) - lr * corrected / root
            path[k] += np.abs(weights[k] - old)
        yield [weight.copy() for weight in weights], [length.copy() for length in path]


def make(weights, clip_norm=0.0, ema_decay=0.0, amsgrad=False, decay_on="all", rates=None, **settings):
    """Our optimiser on fresh parameters: the parameters, the optimiser and a function that makes a step."""
    parameters = ParameterTuple([Parameter(Tensor(w), name=f"weight{k}") for k, w in enumerate(weights)])
    settings = {**SETTINGS, **settings}
    optimizer = AdamW(parameters, settings["beta1"], settings["beta2"], clip_norm, ema_decay, amsgrad, decay_on, rates)
    step = Step(optimizer)
    made = 0

    def update(step_gradients, finite=1.0):
        nonlocal made
        made += 1
        scalars = (finite, *operator_scalars(made, **settings))
        step(*map(Tensor, step_gradients), *(Tensor(value, ms.float32) for value in scalars))
        return [parameter.asnumpy().copy() for parameter in parameters]

    return parameters, optimizer, update

"""Dropout whose numbers are a function of (seed, step, process, layer, element), on every device the same.

MindSpore's own generator starts anew in a resumed run, and its documentation says that its seed has no effect on
Ascend.  Here a number is a keyed function of its place: nothing is kept between steps, so that a run that was resumed
repeats the numbers of one that was not.

The element with number c has the words L = floor(c / 4096) and R = c mod 4096 of 12 bits, which six Feistel rounds with
the keys k mix:

    (1)  L, R <- R, (L + k + floor(R^2 / 64)) mod 4096

The middle of a square depends on every bit of R.  L and R are two numbers, each of which takes all values from 0 to
4095 equally often.  All of this is done in float32, where whole numbers below 2^24 are exact and a product with a power
of two is too: the same bits come out of any device, in any order and with any fusion of operators.  In int32 a shift
costs a CPU 25 ns an element, ten times a product of floats (MindSpore 2.10), and an overflow would have to mean the
same everywhere.  The keys come from NumPy's SeedSequence, on the host, once for each step.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

WORD = 4096  # values of a number
ROUNDS = 6
LARGEST = 2**24  # elements, of two numbers each


@ms.constexpr
def _count(size: int) -> Tensor:
    """(size,) float32: 0, 1, 2, ..."""
    if size > LARGEST:
        raise ValueError(f"random numbers of one layer: expected at most {2 * LARGEST}, got {2 * size}")
    return Tensor(np.arange(size, dtype=np.float32))


class RandomWords(nn.Cell):
    """Random whole numbers from 0 to 4095, other ones for each key.

    Attributes:
        key_of_step: (1 + ROUNDS,) float32; ``set_keys`` gives it.
    """

    def __init__(self):
        super().__init__()
        self.key_of_step = Parameter(Tensor(np.zeros(1 + ROUNDS, np.float32)), name="key_of_step", requires_grad=False)
        self.floor, self.split = ops.Floor(), ops.Unstack()
        self.word, self.inverse = Tensor(np.float32(WORD)), Tensor(np.float32(1 / WORD))
        self.middle = Tensor(np.float32(1 / 64))

    def construct(self, like: Tensor) -> Tensor:
        """Any tensor, of which only the shape is used, to as many numbers, float32."""
        count = _count((like.size + 1) // 2)
        keys = self.split(self.key_of_step)
        left = self.floor(count * self.inverse)
        right = self.modulo(count - left * self.word + keys[0])
        for number in range(ROUNDS):
            left, right = right, self.modulo(left + keys[1 + number] + self.floor(right * right * self.middle))
        return ops.concat((left, right), 0)[: like.size].reshape(like.shape)

    def modulo(self, values: Tensor) -> Tensor:
        """Values mod 4096, for whole numbers from 0 to 2^24 - 1."""
        return values - self.word * self.floor(values * self.inverse)


class Dropout(nn.Cell):
    """x with some elements set to 0 and the others divided by the share of those, in training; x in evaluation.

    Each element is kept with the probability 1 - rate.  Every process has numbers of its own, for its own part of a
    batch: another number of processes draws other ones.

    Args:
        rate: probability of 0, rounded to a multiple of 1/4096.
        dtype: of x, float32 for float16 too.
    """

    def __init__(self, rate: float, dtype: mstype.Type = mstype.float32):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"dropout rate {rate}: expected at least 0 and less than 1")
        dropped = min(round(rate * WORD), WORD - 1)
        self.words = RandomWords() if dropped else None
        self.dropped, self.scale = Tensor(np.float32(dropped)), Tensor(WORD / (WORD - dropped), dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Any shape."""
        if self.words is None or not self.training:
            return x
        kept = ops.cast(self.words(x) >= self.dropped, self.scale.dtype)
        return x * ops.cast(ops.stop_gradient(kept * self.scale), x.dtype)


def key_of(seed: int, step: int, rank: int, layer: int) -> np.ndarray:
    """(1 + ROUNDS,) float32: the key of a layer in a step."""
    return (np.random.SeedSequence((seed, step, rank, layer)).generate_state(1 + ROUNDS) % WORD).astype(np.float32)


def random_layers(model: nn.Cell) -> list[RandomWords]:
    """The cells of a model that draw random numbers, in the order of its parts, which numbers them."""
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, RandomWords)]


def set_keys(layers: Sequence[RandomWords], seed: int, step: int, rank: int = 0) -> None:
    """Give the layers of a model the keys of a step; nothing is compiled anew.

    Args:
        layers: of the model, as ``random_layers`` finds them.
        seed: of the run.
        step: number of the step.
        rank: of the process.
    """
    for number, layer in enumerate(layers):
        layer.key_of_step.set_data(Tensor(key_of(seed, step, rank, number)))

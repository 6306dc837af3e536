"""Running statistics: what a layer observes in training steps and uses in evaluation.

A step that is not finite must change nothing, and the forward pass does not know yet whether it is.  It therefore only
notes what it has observed, in a parameter of its own; the train step takes that into the running value together with
the new weights (``training.running_values``), or leaves both alone.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from models.graph_ops import to_type

#: end of the names of parameters that hold something of a single step: no checkpoint needs them
OF_STEP = "_of_step"


class RunningMean(nn.Cell):
    """The running mean m of an observed statistic s, which batch normalisation uses in evaluation.

        m <- m + share (s - m)        once for each training step that changes the weights

    Noting costs a forward pass of its own in each training step.  Several processes observe different parts of a batch;
    the mean of their s is taken.

    Args:
        start: m before the first step; its shape and precision are those of m.
        share: the weight of a step, 0.1 for torch's ``momentum=0.1``.

    Attributes:
        value: m; part of every checkpoint.
        observed_of_step: s of the last pass that noted it.
        noting: whether a pass of training notes s; see ``training.running_values.Observation``.
    """

    def __init__(self, start: np.ndarray, share: float):
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share {share}: expected more than 0 and at most 1")
        self.share, self.noting = share, False
        self.value = Parameter(Tensor(start), name="value", requires_grad=False)
        self.observed_of_step = Parameter(Tensor(start), name="observed_of_step", requires_grad=False)

    def construct(self, statistic: Tensor) -> Tensor:
        """What to normalise with: the statistic itself in training, m in evaluation; of m's shape."""
        if not self.training:
            return to_type(self.value, statistic.dtype)
        if not self.noting:
            return statistic
        return ops.depend(statistic, ops.assign(self.observed_of_step, to_type(statistic, self.value.dtype)))

"""The numbers of a network's parameters and buffers, by name: taken out and put in."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from mindspore import Parameter, Tensor, nn

from models.running import OF_STEP
from training.checkpoint import CheckpointError


def kept_parameters(cell: nn.Cell) -> dict[str, Parameter]:
    """The parameters of a cell that checkpoints hold, by name: all but those that belong to a single step."""
    return {parameter.name: parameter for parameter in cell.get_parameters() if not parameter.name.endswith(OF_STEP)}


def parameters_of(cell: nn.Cell) -> dict[str, np.ndarray]:
    """The numbers of a cell's weights and buffers, by name."""
    return {name: parameter.asnumpy().copy() for name, parameter in kept_parameters(cell).items()}


def assign(
    cell: nn.Cell, values: Mapping[str, np.ndarray], source: str = "checkpoint", untouched: Collection[str] = ()
) -> None:
    """Set every parameter of a cell, but for some that stay as they are.

    Raises:
        CheckpointError: a name is missing or left over, or a shape differs.
    """
    parameters = {name: one for name, one in kept_parameters(cell).items() if name not in untouched}
    if parameters.keys() != values.keys():
        missing, extra = (
            sorted(name[:60] for name in names)
            for names in (parameters.keys() - values.keys(), values.keys() - parameters.keys())
        )
        raise CheckpointError(
            f"{source}: the parameters do not fit the model: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} unknown {extra[:3]}; use the configuration the weights were trained with"
        )
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != values[name].shape:
            raise CheckpointError(
                f"{source}: {name}: expected shape {tuple(parameter.shape)}, got {values[name].shape}; "
                "use the configuration the weights were trained with"
            )
        if not np.isfinite(values[name]).all():
            raise CheckpointError(f"{source}: {name} holds a value that is not finite; use another checkpoint")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(np.asarray(values[name], order="C"), parameter.dtype))

"""The device and the execution mode."""

from __future__ import annotations

import contextlib
import logging

import mindspore as ms

from training.cpu_runtime import planned_launches
from training.distributed import Ranks, join
from training.launch import check_launch, is_launched, local_device

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}


class DeviceError(RuntimeError):
    """A device that cannot be used: one line with what was asked for and what to do."""


def set_up(mode: str, device_target: str, device_id: int, seed: int) -> Ranks:
    """Choose device and mode, meet the other processes of the run, and seed everything random in MindSpore.

    Args:
        mode: GRAPH or PYNATIVE.
        device_target: CPU, GPU or Ascend.
        device_id: number of the device; of a run that msrun has started, each process takes its own.
        seed: of the initial weights.

    Raises:
        DeviceError: the device is not there.
        RankError: the environment speaks of other processes, which are not there.
    """
    check_launch(device_target)
    if is_launched():
        device_id = 0 if device_target == "CPU" else local_device()
    ms.set_context(mode=MODES[mode])
    logging.disable(logging.ERROR)  # MindSpore logs what it looked for in vain; the exception says it once
    try:
        if (device_target, device_id) != (ms.get_context("device_target"), ms.get_context("device_id")):
            ms.set_device(device_target, device_id)  # refused once anything has run, even for the same device
        alone_on_cpu = device_target == "CPU" and not is_launched()  # else several processes share the cores
        with planned_launches() if alone_on_cpu else contextlib.nullcontext():
            ms.ops.ones(1).asnumpy()  # the device is only opened when it is first used
    except (RuntimeError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise DeviceError(
            f"device {device_target}:{device_id} cannot be used ({reason}); "
            "choose another --device_target or --device_id, for example --device_target CPU"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    ranks = join()
    ms.set_seed(seed)
    return ranks


def versions() -> dict[str, str]:
    """Versions that a checkpoint and a log record."""
    import platform  # noqa: PLC0415  the module's own name would hide it

    import numpy as np  # noqa: PLC0415

    return {"python": platform.python_version(), "mindspore": ms.__version__, "numpy": np.__version__}

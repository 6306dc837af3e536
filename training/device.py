"""The device and the execution mode."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Iterator

import mindspore as ms
import numpy as np

from physics.flushed_denormals import Flushed
from training.cpu_runtime import planned_launches
from training.distributed import Ranks, join
from training.launch import check_launch, is_launched, local_device

MODES = {"GRAPH": ms.GRAPH_MODE, "PYNATIVE": ms.PYNATIVE_MODE}
IMPORTED_BY = os.getpid()
opened_by: set[int] = set()  # the process that opened the device here; a copy made by fork has its parent's


class DeviceError(RuntimeError):
    """A device that cannot be used: one line with what was asked for and what to do."""

    exit_code = 2


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Give the global generators of NumPy and Python back as they were: they are the caller's, not ours."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def refuse_fork() -> None:
    """A copy of a process that has used MindSpore lacks its threads, and would wait for them forever.

    Raises:
        DeviceError: this process is such a copy.
    """
    process = os.getpid()
    forked = bool(opened_by) or IMPORTED_BY != process
    if process not in opened_by and forked and ms.hal.is_initialized(ms.get_context("device_target")):
        raise DeviceError(
            "this process was forked from one that has used MindSpore, and MindSpore hangs in a fork; start processes "
            'with the method "spawn" (multiprocessing.get_context("spawn")), or load the model after the fork only'
        )


def set_up(mode: str, device_target: str, device_id: int, seed: int | None) -> Ranks:
    """Choose device and mode, meet the other processes of the run, and seed everything random in MindSpore.

    MindSpore's seed is that of the global generators of NumPy and of Python too.

    Args:
        mode: GRAPH or PYNATIVE.
        device_target: CPU, GPU or Ascend.
        device_id: number of the device; of a run that msrun has started, each process takes its own.
        seed: of the initial weights; None where none are drawn that count.

    Raises:
        DeviceError: the device is not there, or cannot be used in a forked process.
        RankError: the environment speaks of other processes, which are not there.
    """
    refuse_fork()
    check_launch(device_target)
    if is_launched():
        device_id = 0 if device_target == "CPU" else local_device()
    ms.set_context(mode=MODES[mode])
    logging.disable(logging.ERROR)  # MindSpore logs what it looked for in vain; the exception says it once
    try:
        if (device_target, device_id) != (ms.get_context("device_target"), ms.get_context("device_id")):
            ms.set_device(device_target, device_id)  # refused once anything has run, even for the same device
        alone_on_cpu = device_target == "CPU" and not is_launched()  # else several processes share the cores
        with Flushed(), planned_launches() if alone_on_cpu else contextlib.nullcontext():
            ms.ops.ones(1).asnumpy()  # the device is only opened when it is first used
    except (RuntimeError, ValueError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise DeviceError(
            f"device {device_target}:{device_id} cannot be used ({reason}); "
            "choose another --device_target or --device_id, for example --device_target CPU"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    opened_by.add(os.getpid())
    ranks = join()
    if seed is not None:
        ms.set_seed(seed)
    return ranks


def save_graphs(level: int, folder: str) -> None:
    """Have MindSpore write the graphs of what it compiles.

    Args:
        level: 1 to 3, how much of them; see ``mindspore.set_context``.
        folder: where; made where it is missing.

    Raises:
        DeviceError: it cannot be made.
    """
    logging.disable(logging.WARNING)  # set_context advises an environment variable
    try:
        ms.set_context(save_graphs=level, save_graphs_path=folder)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DeviceError(f"--save_graphs_path {folder}: expected a folder that can be written ({reason})") from None
    finally:
        logging.disable(logging.NOTSET)


def versions() -> dict[str, str]:
    """Versions that a checkpoint and a log record."""
    import platform  # noqa: PLC0415  the module's own name would hide it

    return {"python": platform.python_version(), "mindspore": ms.__version__, "numpy": np.__version__}

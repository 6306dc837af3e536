"""Accelerators that the machine shows to a program, though it was told to use the CPU."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("geospore")


class Kind(NamedTuple):
    """How a kind of accelerator shows itself.

    Attributes:
        name: in words.
        target: its ``--device_target``.
        files: what its device files in ``/dev`` are called.
        variables: which name the devices of a container.
        choice: the variable by which a user chooses among them; it can choose none.
        tools: programs that its driver brings.
    """

    name: str
    target: str
    files: str
    variables: tuple[str, ...]
    choice: str
    tools: tuple[str, ...]


NPU = Kind("an NPU", "Ascend", r"davinci\d+", ("ASCEND_VISIBLE_DEVICES",), "ASCEND_RT_VISIBLE_DEVICES", ("npu-smi",))
# nvidia-smi is no sign: images bring it to machines without a GPU
GPU = Kind("an NVIDIA GPU", "GPU", r"nvidia\d+", ("NVIDIA_VISIBLE_DEVICES",), "CUDA_VISIBLE_DEVICES", ())
NONE = {"", "-1", "none", "void", "nodevfiles"}
SHOWN = 40


def unused(device_target: str, environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> list[str]:
    """One line for each kind of accelerator that is visible while a program uses the CPU.

    Args:
        device_target: of the program; for any other than CPU there are no lines.
        environment: variables of the process.
        devices: the folder of device files.
    """
    if device_target != "CPU":
        return []
    return [
        f"{kind.name} is visible ({signs[0]}): --device_target {kind.target} uses it"
        for kind in (NPU, GPU)
        if (signs := _signs(kind, environment, devices))
    ]


def warn_of_unused(device_target: str) -> None:
    """Write these lines to the log, as warnings."""
    for words in unused(device_target):
        log.warning("warning: %s", words)


def _signs(kind: Kind, environment: Mapping[str, str], devices: Path) -> list[str]:
    """What shows devices of a kind, the surest first; nothing where the user has chosen none of them."""
    chosen = environment.get(kind.choice)
    if chosen is not None and _names_none(chosen):
        return []
    files = [str(path) for path in sorted(devices.glob("*")) if re.fullmatch(kind.files, path.name)]
    variables = (*kind.variables, kind.choice)
    given = [f"{name}={environment[name][:SHOWN]}" for name in variables if not _names_none(environment.get(name, ""))]
    tools = [tool for tool in kind.tools if shutil.which(tool, path=environment.get("PATH"))]
    return [*files, *given, *tools]


def _names_none(value: str) -> bool:
    return value.strip().lower() in NONE

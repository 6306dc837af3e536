"""Frames of extended xyz through ASE: what it cannot read is named with its line."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from data_tools.formats.stress_labels import STRESS, VIRIAL
from data_tools.formats.xyz_format import Frame
from data_tools.graph import DataError
from data_tools.source_files import one_line

#: values that stop ASE: lists of several lengths, which it writes itself
JSON = re.compile(r"""(?<!\w)(\w+)="_JSON (?:[^"\\]|\\.)*\"""")
#: keys whose values stop ASE unless they are nine numbers, of which it then takes six
TENSOR = re.compile(rf"(?<!\w)({STRESS}|{VIRIAL})(?=\s*=)")
AS_WRITTEN = "_as_written"  # behind the names of these keys


def read_with_ase(path: Path, frames: list[Frame]) -> list[Any]:
    """The frames as ``ase.Atoms``, one each.

    Raises:
        DataError: with the line that ASE cannot read.
    """
    if not frames:
        return []
    try:
        read = _ase_read(frames)
    except Exception as error:
        raise DataError(_explained(path, frames, error)) from None
    if len(read) != len(frames):
        raise DataError(
            f"{path}: expected {len(frames)} frames of extended xyz, ASE reads {len(read)}; divide the file behind "
            f"line {frames[min(len(read), len(frames) - 1)].line - 1}"
        )
    return read


def _ase_read(frames: list[Frame]) -> list[Any]:
    import ase.io  # noqa: PLC0415  (heavy)

    text = "".join(
        "\n".join((str(len(frame.atoms)), frame.comment, *frame.atoms, *frame.vectors, "")) for frame in frames
    )
    return list(ase.io.read(io.StringIO(text), index=":", format="extxyz", properties_parser=_parse_comment))


def _parse_comment(comment: str) -> dict[str, Any]:
    """Keys and values as ASE parses them, stress and virial as they are written.

    Where it cannot, without lists that it may fail at and that are not asked for.
    """
    from ase.io.extxyz import key_val_str_to_dict  # noqa: PLC0415  (heavy)

    renamed = TENSOR.sub(rf"\1{AS_WRITTEN}", comment)
    for text in (comment, renamed):
        try:
            values = key_val_str_to_dict(text)
            break
        except ValueError:
            continue
    else:
        values = key_val_str_to_dict(JSON.sub(r'\1_not_read="?"', renamed))
    return {name + AS_WRITTEN * (name in (STRESS, VIRIAL)): value for name, value in values.items()}


def _explained(path: Path, frames: list[Frame], error: Exception) -> str:
    """The message for what ASE refuses, with the line of the first frame that it refuses alone."""
    where = ""
    for frame in frames:
        if (reason := _refusal(frame)) is None:
            continue
        alone = (frame._replace(atoms=[line], vectors=[]) for line in frame.atoms)
        refused = [_refusal(one) is not None for one in alone]
        atom = refused.index(True) if True in refused and not all(refused) else None
        line = frame.line + 1 if atom is None else frame.line + 2 + atom
        where, error = f" line {line}", reason
        break
    words = f"{type(error).__name__}: {one_line(error)[:200]}"
    return f"{path}: expected extended xyz, ASE cannot read{where} ({words}); correct it"


def _refusal(frame: Frame) -> Exception | None:
    try:
        _ase_read([frame])
    except Exception as error:
        return error
    return None

"""Geometries that were made from SMILES, kept beside the table that they belong to: making them takes 20 ms each.

``mine.csv.geometries.npz`` beside ``mine.csv``.  A geometry is found by its SMILES, so rows and labels of the table may
change.  A file that is not of this kind is never written over, and where none can be written the geometries are made
anew each time.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import numpy as np

from data_tools.formats.smiles import Made
from data_tools.graph import DataError, Structure
from data_tools.source_files import array_names, one_line, read_arrays

ENDING = ".geometries.npz"
LAYOUT = "geometries_of_smiles_2"  # the name of an array; another number where they are made otherwise
EARLIER = ("geometries_of_smiles_1",)  # some had another configuration than their SMILES: all are made anew
Known = dict[str, Made | str]


def cache_of(table: Path) -> Path:
    """Where the geometries of a table stand."""
    return table.with_name(table.name + ENDING)


def load(path: Path) -> Known | None:
    """SMILES -> what was made of it, or why there is no geometry.

    Returns:
        None where another file stands there, or a damaged one.
    """
    if not path.exists():
        return {}
    try:
        names = array_names(path)
        if LAYOUT not in names:
            return {} if set(EARLIER) & set(names) else None
        arrays = read_arrays(path)
        return _unpacked(arrays)
    except (DataError, LookupError, TypeError, ValueError):
        return None


def _unpacked(arrays: dict[str, np.ndarray]) -> Known:
    """What ``_packed`` has packed.

    Raises:
        KeyError, ValueError: arrays that do not belong together.
    """
    smiles, reasons = (bytes(arrays[name]).decode().split("\n") for name in ("smiles", "reasons"))
    ends = np.cumsum(arrays["n_atoms"])
    if len(smiles) != len(ends) or ends[-1] != len(arrays["Z"]) or arrays["R"].shape != (ends[-1], 3):
        raise ValueError("arrays that do not belong together")
    known: Known = {}
    rows = zip(smiles, reasons, ends, arrays["n_atoms"], arrays["charge"], arrays["radical_electrons"], strict=True)
    for text, reason, end, count, charge, radicals in rows:
        atoms = slice(int(end - count), int(end))
        structure = Structure(arrays["Z"][atoms].astype(np.int32), arrays["R"][atoms].astype(np.float64))
        known[text] = reason or Made(structure, int(charge), int(radicals))
    return known


def _packed(known: Known) -> dict[str, np.ndarray]:
    nothing = Made(Structure(np.zeros(0, np.int32), np.zeros((0, 3))), 0, 0)
    made = [nothing if isinstance(one, str) else one for one in known.values()]
    reasons = [one if isinstance(one, str) else "" for one in known.values()]
    return {
        LAYOUT: np.zeros(0),
        "smiles": np.frombuffer("\n".join(known).encode(), np.uint8),
        "reasons": np.frombuffer("\n".join(reasons).encode(), np.uint8),
        "n_atoms": np.array([len(one.structure.numbers) for one in made], np.int64),
        "Z": np.concatenate([one.structure.numbers for one in made]),
        "R": np.concatenate([one.structure.positions for one in made]),
        "charge": np.array([one.charge for one in made], np.int64),
        "radical_electrons": np.array([one.radical_electrons for one in made], np.int64),
    }


def save(path: Path, known: Known) -> None:
    """Write the file, whole or not at all; a line on standard error where that is not possible."""
    if not known:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **_packed(known))
        temporary.replace(path)
    except (OSError, zipfile.LargeZipFile) as error:
        print(f"warning: {path}: the geometries cannot be kept ({one_line(error)})", file=sys.stderr)
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass

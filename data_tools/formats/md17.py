"""MD17 and rMD17: frames of one molecule with energies and forces, as npz files.

- rMD17: A. S. Christensen, O. A. von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020), arXiv 2007.09593; CC0,
  https://doi.org/10.6084/m9.figshare.12672038.  PBE/def2-SVP labels of 100,000 frames a molecule, made again with tight
  convergence, beside the labels of MD17, which are noisy and not read.
- MD17: S. Chmiela et al., Science Advances 3, e1603015 (2017); http://www.sgdml.org and http://quantum-machine.org/gdml.

| meaning          | shape, unit                 | rMD17             | MD17               |
|------------------|-----------------------------|-------------------|--------------------|
| atomic numbers   | (N,)                        | `nuclear_charges` | `z`                |
| positions        | (M, N, 3) Angstrom          | `coords`          | `R`                |
| energies         | (M,) or (M, 1) kcal/mol     | `energies`        | `E`                |
| forces           | (M, N, 3) kcal/mol/Angstrom | `forces`          | `F`                |
| units, if others | text                        |                   | `r_unit`, `e_unit` |

The frames are those of a trajectory and resemble each other: the authors of rMD17 warn against training on more than
1,000 of them, and publish five pairs of lists of 1,000 frames each (index_train_01.csv, index_test_01.csv and so on).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.formats.label_keys import FORCES, NO_KEYS, absent
from data_tools.formats.npz_format import checked_array
from data_tools.graph import DataError, StructureTable
from data_tools.source_files import array_names, describe_source, read_arrays, shown
from data_tools.tables import check_table
from data_tools.units import ENERGY_UNITS, LENGTH_UNITS, from_frame_units

SAMPLES = Path(__file__).parents[1] / "samples"
SAMPLE_TRAIN = SAMPLES / "rmd17_ethanol_train_01.npz"
SAMPLE_TEST = SAMPLES / "rmd17_ethanol_test_01.npz"


class Layout(NamedTuple):
    """The names of the arrays of a file; ``length_unit`` and ``energy_unit`` are texts that it need not have."""

    numbers: str
    positions: str
    energy: str
    forces: str
    length_unit: str | None = None
    energy_unit: str | None = None


RMD17 = Layout("nuclear_charges", "coords", "energies", "forces")
MD17 = Layout("z", "R", "E", "F", "r_unit", "e_unit")
ENERGY = "energy"
PERIODIC = "lattice"  # of sGDML's own files


def layout_of(names: set[str]) -> Layout | None:
    """Which of the two layouts a file with arrays of these names has; None for neither."""
    return next((layout for layout in (RMD17, MD17) if {layout.numbers, layout.positions} <= names), None)


def read_frames(path: Path, layout: Layout, keys: Mapping[str, str] = NO_KEYS) -> StructureTable:
    """The frames of an npz file in one of the two layouts; ids and names number them from 0.

    ``keys`` may name other arrays for ``energy`` and ``forces``, in the units of the layout.

    Energies or forces that the file lacks are no labels of the table.  Arrays with other names are never opened, and
    named in the table's source.

    Raises:
        DataError: damaged, pickled, shapes that do not belong together, values that are not finite, several molecules
            in one file, a periodic cell, a unit of another name than those of ``data_tools.units``, or ``keys`` names
            another label or an array that is not there.
    """
    names = array_names(path)
    for label, name in keys.items():
        if name not in names:
            raise DataError(absent(path, label, name, sorted(names)))
        if label not in (ENERGY, FORCES):
            raise DataError(f"{path}: data.keys: expected energy or forces of frames, found {label}; leave it out")
    if layout is MD17 and PERIODIC in names:
        raise DataError(f"{path}: expected molecules, found a periodic {PERIODIC}; write the frames as extended xyz")
    layout = layout._replace(energy=keys.get(ENERGY, layout.energy), forces=keys.get(FORCES, layout.forces))
    arrays = read_arrays(path, {name for name in layout if name})
    numbers, positions = _molecule(path, arrays, layout)
    frames, atoms = positions.shape[:2]
    labels = {}
    if layout.energy in arrays:
        columns = arrays[layout.energy]
        shape = (frames, 1) if columns.ndim == 2 else (frames,)
        labels["energy"] = _finite(path, arrays, layout.energy, shape).reshape(frames)
    if layout.forces in arrays:
        labels["forces"] = _finite(path, arrays, layout.forces, (frames, atoms, 3)).reshape(-1, 3)
    length = _unit(path, arrays, layout.length_unit, LENGTH_UNITS, "angstrom")
    energy = _unit(path, arrays, layout.energy_unit, ENERGY_UNITS, "kcal/mol")
    positions, labels = from_frame_units(positions.reshape(-1, 3), labels, length, energy)
    unread = sorted(names - set(arrays))
    table = StructureTable(
        numbers=np.tile(np.clip(numbers, -1, 2**31 - 1).astype(np.int32), frames),  # out of range must stay so
        positions=positions,
        n_atoms=np.full(frames, atoms, np.int64),
        ids=np.arange(frames),
        of_structures={name: values for name, values in labels.items() if name != FORCES},
        of_atoms={name: values for name, values in labels.items() if name == FORCES},
        names=tuple(f"frame {row}" for row in range(frames)),
        source=describe_source(path) + (f"; arrays not read: {', '.join(map(shown, unread))}" if unread else ""),
        unread=tuple(unread),
    )
    return check_table(path, table)


def _molecule(path: Path, arrays: dict[str, np.ndarray], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (N,) and positions (M, N, 3) in the unit of the file, of one molecule."""
    numbers, positions = arrays[layout.numbers], arrays[layout.positions]
    if numbers.ndim == 2:
        raise DataError(
            f"{path}: expected frames of one molecule, {layout.numbers} of shape (atoms,), found {numbers.shape}; "
            "write a file for each molecule, or all of them as extended xyz"
        )
    numbers = checked_array(path, arrays, layout.numbers, "iu", (numbers.size,))
    frames = positions.shape[0] if positions.ndim else 0
    if not frames or not len(numbers):
        raise DataError(f"{path}: expected at least one frame and one atom, found {positions.shape}; fetch it again")
    return numbers, checked_array(path, arrays, layout.positions, "iuf", (frames, len(numbers), 3))


def _finite(path: Path, arrays: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array ``name`` of this shape, every number of it finite; its first axis numbers the frames."""
    values = checked_array(path, arrays, name, "iuf", shape)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if bad.any():
        raise DataError(
            f"{path}: expected finite numbers in {name}, found others in frame {bad.argmax()}; remove that frame"
        )
    return values


def _unit(path: Path, arrays: dict[str, np.ndarray], key: str | None, units: dict[str, float], usual: str) -> str:
    """The name of a unit in small letters: what the file says, or the usual one."""
    if key is None or key not in arrays:
        return usual
    text = arrays[key].item() if arrays[key].size == 1 else arrays[key]
    name = (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).strip().lower()
    if name not in units:
        raise DataError(
            f"{path}: expected {key} to be one of {', '.join(units)}, found '{shown(text)}'; convert the file"
        )
    return name

"""Forces and force constants of phonopy's files: FORCE_SETS, FORCE_CONSTANTS, force_constants.hdf5.

The text files are parsed here and not by phonopy, which makes room for whatever numbers a header claims, looks at no
second index, and does not come back from a file that is cut short.  Values keep the unit of their file.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import h5py
import numpy as np

from data_tools.formats.crystal_source import CrystalFiles
from data_tools.formats.phonopy_cells import LARGEST_SUPERCELL, Setting
from data_tools.formats.phonopy_guard import guarded
from data_tools.formats.phonopy_settings import factor_of_force_constants
from data_tools.graph import DataError
from data_tools.source_files import shown

FORCES = ("force constants", "hdf5", "force sets")  # roles, the preferred one first
NEAR = 1e-4  # Angstrom between a displacement in FORCE_SETS and in the file of displacements
LARGEST_BLOCKS = 2 << 30  # bytes of force constants


class Forces(NamedTuple):
    """What a file says, in its unit.

    Attributes:
        where: the file, for messages.
        atoms: of the supercell; None: the file does not say.
        sets: (K, 3 + n, 3) per displaced supercell the displacement, two unused rows, and forces; or (K, 6) rows of
            displacement and force of every atom.  None: force constants.
        numbers: (K,) the displaced atoms; None: every atom.
        blocks: (p or n, n, 3, 3) force constants.
        rows: (p or n,) the atoms that the first index of ``blocks`` counts; None: the file does not say.
        factor: eV/Angstrom^2 per unit of ``blocks``; None: the unit of the file of cells.
    """

    where: str
    atoms: int | None
    sets: np.ndarray | None = None
    numbers: np.ndarray | None = None
    displacements: np.ndarray | None = None
    blocks: np.ndarray | None = None
    rows: np.ndarray | None = None
    factor: float | None = None


def read_forces(files: CrystalFiles) -> Forces:
    """The forces or force constants beside a file of cells.

    Raises:
        DataError: there are none, or the file is damaged or contradicts itself.
    """
    chosen = [name for role in FORCES for name in files.names_of(role) if name == files.chosen]
    names = chosen or [name for role in FORCES for name in files.names_of(role)]
    if not names:
        raise DataError(
            f"{files.path}: expected forces (FORCE_SETS) or force constants (FORCE_CONSTANTS, force_constants.hdf5, "
            "phonopy_params.yaml), found only cells; put them into the same folder"
        )
    readers = dict(zip(FORCES, (read_force_constants, read_hdf5, read_force_sets), strict=True))
    role = next(role for role in FORCES if names[0] in files.names_of(role))
    return readers[role](files, names[0])


def _table(where: str, text: str) -> tuple[list[list[str]], np.ndarray]:
    """The words of every line that has some, and all of them as numbers."""
    lines = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    try:
        numbers = np.array([word for words in lines for word in words], dtype=np.str_).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{where}: expected numbers, found others ({shown(error)}); write the file again") from None
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: expected finite numbers, found others; calculate the forces again")
    return lines, numbers


def _whole(where: str, value: float, what: str, most: int) -> int:
    if value != round(value) or not 1 <= value <= most:
        raise DataError(f"{where}: expected {what} from 1 to {most}, found {value:g}; write the file again")
    return int(value)


def read_force_sets(files: CrystalFiles, name: str) -> Forces:
    """FORCE_SETS of type 1 (one displaced atom a supercell) or 2 (all atoms displaced).

    Raises:
        DataError: a number of lines that its header does not say, or no numbers.
    """
    where = files.where(name)
    lines, numbers = _table(where, files.text(name))
    if len(lines[0]) == 6:
        if any(len(words) != 6 for words in lines):
            raise DataError(
                f"{where}: expected six numbers in every line as in the first, found others; write it again"
            )
        return Forces(where, None, sets=numbers.reshape(-1, 6))
    if len(lines[0]) != 1 or len(numbers) < 2:
        raise DataError(
            f"{where}: expected FORCE_SETS, a number of atoms or six numbers in the first line, found "
            f"{shown(' '.join(lines[0]))}; write it again"
        )
    atoms = _whole(where, numbers[0], "a number of atoms", LARGEST_SUPERCELL)
    count = _whole(where, numbers[1], "a number of displacements", 10**6)
    one = 4 + 3 * atoms
    if len(numbers) != 2 + count * one:
        raise DataError(
            f"{where}: expected {count} displacements with the forces on {atoms} atoms, as its first lines say, which "
            f"are {2 + count * one} numbers, found {len(numbers)}; the file is cut short or its header is wrong"
        )
    table = numbers[2:].reshape(count, one)
    moved = np.array([_whole(where, value, "a displaced atom", atoms) for value in table[:, 0]]) - 1
    return Forces(where, atoms, table[:, 4:].reshape(count, atoms, 3), moved, table[:, 1:4])


def read_force_constants(files: CrystalFiles, name: str) -> Forces:
    """FORCE_CONSTANTS, full or compact: a header ``p n``, and for each pair its indices and a 3 x 3 block.

    Raises:
        DataError: a number of lines that its header does not say, other indices, or no numbers.
    """
    where = files.where(name)
    lines, numbers = _table(where, files.text(name))
    header = numbers[: len(lines[0])].tolist()
    if len(header) not in (1, 2):
        raise DataError(
            f"{where}: expected FORCE_CONSTANTS with one or two numbers in the first line, found "
            f"{shown(' '.join(lines[0]))}; write it again"
        )
    n = _whole(where, header[-1], "a number of atoms", LARGEST_SUPERCELL)
    p = _whole(where, header[0], "a number of rows", n)
    if len(lines) != 1 + 4 * p * n or len(numbers) != len(header) + 11 * p * n:
        raise DataError(
            f"{where}: expected {p} x {n} blocks of 3 x 3, as its header says, which are {1 + 4 * p * n} lines, found "
            f"{len(lines)} lines with {len(numbers)} numbers; the file is cut short or its header is wrong"
        )
    table = numbers[len(header) :].reshape(p, n, 11)
    first, second = table[:, :, 0], table[:, :, 1]
    rows = first[:, 0] - 1
    if (first != first[:, :1]).any() or (second != np.arange(1, n + 1)).any() or len(set(rows.tolist())) < p:
        raise DataError(f"{where}: expected the pairs of atoms in order, found other indices; write the file again")
    if p == n and (rows != np.arange(n)).any():
        raise DataError(f"{where}: expected the rows of {n} atoms in order, found another; write the file again")
    return Forces(where, n, blocks=table[:, :, 2:].reshape(p, n, 3, 3).copy(), rows=_atoms(where, rows, n))


def _atoms(where: str, rows: np.ndarray, n: int) -> np.ndarray:
    if not ((rows >= 0) & (rows < n) & (rows == np.rint(rows))).all():
        raise DataError(f"{where}: expected atoms of the supercell of {n} in p2s_map, found others; write it again")
    return rows.astype(np.int64)


def read_hdf5(files: CrystalFiles, name: str) -> Forces:
    """force_constants.hdf5, full, or compact with the map ``p2s_map``.

    Raises:
        DataError: no HDF5, no force constants, another shape, or a compact one without its map.
    """
    where = files.where(name)
    content = files.read(name)
    with guarded(where, "HDF5 of phonopy with force constants"), h5py.File(io.BytesIO(content), "r") as file:
        key = next((key for key in ("force_constants", "fc2") if key in file), None)
        if key is None:
            raise DataError(f"{where}: expected force_constants, found {shown(sorted(file))}; give phonopy's own file")
        found = _plain_dataset(where, file, key)
        shape = found.shape
        square = len(shape) == 4 and shape[2:] == (3, 3) and 1 <= shape[0] <= shape[1] <= LARGEST_SUPERCELL
        if not square or found.dtype.kind != "f" or 8 * found.size > LARGEST_BLOCKS:
            raise DataError(
                f"{where}: expected force constants of shape (p, n, 3, 3), found {found.dtype} of shape {shape}; give "
                "phonopy's own file"
            )
        blocks = found[()].astype(np.float64)
        if not np.isfinite(blocks).all():
            raise DataError(f"{where}: expected finite force constants, found others; calculate them again")
        rows = None
        if "p2s_map" in file:
            stated = _plain_dataset(where, file, "p2s_map")
            if stated.shape != shape[:1] or stated.dtype.kind not in "iu":
                raise DataError(f"{where}: expected one atom in p2s_map for each of {shape[0]} rows, found others")
            rows = _atoms(where, stated[()].astype(np.float64), shape[1])
        elif shape[0] < shape[1]:
            raise DataError(
                f"{where}: expected p2s_map beside compact force constants, found none, so whose rows they are is "
                "unknown; write them full, or with phonopy, which adds the map"
            )
        factor = None
        if "physical_unit" in file:
            unit = np.ravel(_plain_dataset(where, file, "physical_unit").asstr()[()])
            factor = factor_of_force_constants(where, str(unit[0]))
    return Forces(where, shape[1], blocks=blocks, rows=rows, factor=factor)


def _plain_dataset(where: str, file: h5py.File, key: str) -> h5py.Dataset:
    """A dataset whose values stand in the file itself, and are not more than it can hold."""
    link, found = file.get(key, getlink=True), file[key]
    inside = isinstance(link, h5py.HardLink) and isinstance(found, h5py.Dataset)
    if not inside or found.is_virtual or found.external is not None:
        raise DataError(f"{where}: expected {key} in the file itself, found something else; write it with phonopy")
    return found


def dataset_of(forces: Forces, setting: Setting) -> dict[str, Any]:
    """The dataset of a FORCE_SETS in Angstrom and eV/Angstrom.

    Raises:
        DataError: another number of atoms, or other displacements than the file of displacements lists.
    """
    assert forces.sets is not None
    if forces.numbers is None:
        n = setting.n_atoms
        if len(forces.sets) % n:
            raise DataError(
                f"{forces.where}: expected a line for each of the {n} atoms of each supercell, found "
                f"{len(forces.sets)} lines; give the FORCE_SETS of {setting.where}"
            )
        table = forces.sets.reshape(-1, n, 6)
        dataset: dict[str, Any] = {
            "displacements": table[:, :, :3] * setting.units.length,
            "forces": table[:, :, 3:] * setting.units.force,
        }
    else:
        assert forces.displacements is not None
        first = [
            {"number": int(number), "displacement": moved, "forces": values}
            for number, moved, values in zip(
                forces.numbers,
                forces.displacements * setting.units.length,
                forces.sets * setting.units.force,
                strict=True,
            )
        ]
        dataset = {"natom": setting.n_atoms, "first_atoms": first}
    _compare(forces.where, dataset, setting)
    return dataset


def _compare(where: str, dataset: dict[str, Any], setting: Setting) -> None:
    """The displacements of the forces are those that the file of displacements lists."""
    listed = setting.dataset
    if listed is None:
        return
    if ("first_atoms" in listed) != ("first_atoms" in dataset):
        raise DataError(f"{where}: expected the displacements of {setting.where}, found another kind of FORCE_SETS")
    if "first_atoms" in listed:
        ours, theirs = dataset["first_atoms"], listed["first_atoms"]
    else:
        ours = [{"number": 0, "displacement": one} for one in dataset["displacements"]]
        theirs = [{"number": 0, "displacement": one} for one in listed["displacements"]]
    if len(ours) != len(theirs):
        raise DataError(
            f"{where}: expected the forces of {len(theirs)} displacements, as {setting.where} lists, found those of "
            f"{len(ours)}; calculate the missing ones, or give the files of one calculation"
        )
    for number, (our, their) in enumerate(zip(ours, theirs, strict=True), 1):
        moved, expected = np.asarray(our["displacement"]), np.asarray(their["displacement"])
        if (
            our["number"] != their["number"]
            or moved.shape != expected.shape
            or not np.abs(moved - expected).max() < NEAR
        ):
            raise DataError(
                f"{where}: expected the displacements of {setting.where}, found another one as number {number}; give "
                "the files of one calculation"
            )

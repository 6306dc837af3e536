"""Which cells the files of phonopy give: its YAML files, phonopy.conf with a POSCAR, disp.yaml, SPOSCAR.

| file                                              | gives                                                      |
|---------------------------------------------------|------------------------------------------------------------|
| phonopy_params.yaml, phonopy_disp.yaml, ...       | cells, matrices, units; displacements, forces, force       |
|                                                   | constants and Born charges where it has them               |
| phonopy.conf with POSCAR-unitcell or POSCAR       | cells and matrices; VASP's units                           |
| disp.yaml                                         | the supercell and its displacements; VASP's units          |
| SPOSCAR, or POSCAR with as many atoms as the data | the supercell; VASP's units                                |

Where no file gives a primitive cell, phonopy finds it by symmetry.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from phonopy.interface.phonopy_yaml import load_phonopy_yaml
from phonopy.interface.vasp import read_vasp_from_strings
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import get_primitive_matrix

from data_tools.formats.crystal_source import CrystalFiles
from data_tools.formats.phonopy_cells import (
    AUTO,
    LARGEST_SUPERCELL,
    Setting,
    Units,
    checked_cell,
    checked_primitive_matrix,
    checked_supercell_matrix,
    read_document,
    read_numbers,
)
from data_tools.formats.phonopy_guard import guarded
from data_tools.graph import DataError
from data_tools.source_files import shown
from data_tools.tables import ELEMENTS
from data_tools.units import PHONOPY_CALCULATORS, PHONOPY_FORCE_CONSTANTS, PHONOPY_FORCES, PHONOPY_LENGTHS

LETTERS = ("P", "F", "I", "A", "C", "R")
TAGS = ("DIM", "PRIMITIVE_AXIS", "PRIMITIVE_AXES", "MASS")


def read_setting(files: CrystalFiles, atoms: int | None) -> Setting:
    """The cells that the files give.

    Args:
        files: of one crystal.
        atoms: of the supercell as the forces have them; None: not known before.

    Raises:
        DataError: no cells, cells that are wrong, or of another number of atoms.
    """
    if names := files.names_of("yaml"):
        setting = _of_yaml(files, names[0])
    elif files.names_of("settings") and files.names_of("unit cell"):
        setting = _of_conf(files, files.names_of("settings")[0], files.names_of("unit cell")[0])
    else:
        setting = _of_supercell(files, atoms)
    if atoms is not None and setting.n_atoms != atoms:
        raise DataError(
            f"{setting.where}: expected a supercell of the {atoms} atoms that the forces or force constants have, "
            f"found one of {setting.n_atoms}; give the cells and the forces of one calculation"
        )
    return setting


def _of_yaml(files: CrystalFiles, name: str) -> Setting:
    document, where = read_document(files, name), files.where(name)
    units = _units(where, document)
    for key in ("unit_cell", "primitive_cell", "supercell"):
        points = document[key].get("points", []) if isinstance(document.get(key), dict) else []
        if any(isinstance(point, dict) and {"mixture", "weight"} & point.keys() for point in points):
            raise DataError(f"{where}: expected one element on each site, found a mixture; these are not read")
    document.pop("physical_unit", None)  # looked at above, where unknown ones are one line
    header = document.get("phonopy")
    if isinstance(header, dict):
        header.pop("calculator", None)
    with guarded(where, "a file of phonopy with cells and displacements"):
        data = load_phonopy_yaml(document)
        dataset = in_units(data.dataset, units)
    if data.unitcell is None:
        raise DataError(f"{where}: expected a file of phonopy with a unit cell, found none; give phonopy_disp.yaml")
    matrix = np.eye(3, dtype=np.int64) if data.supercell_matrix is None else data.supercell_matrix
    nac: Any = data.nac_params or {}
    constants = None if data.force_constants is None else data.force_constants * units.force_constants
    return Setting(
        where,
        checked_cell(where, data.unitcell, units.length),
        checked_supercell_matrix(where, matrix, len(data.unitcell)),
        AUTO if data.primitive_matrix is None else checked_primitive_matrix(where, data.primitive_matrix),
        units,
        None if data.supercell is None else checked_cell(where, data.supercell, units.length),
        dataset,
        constants,
        nac.get("born"),
        nac.get("dielectric"),
    )


def in_units(dataset: Any, units: Units) -> dict[str, Any] | None:
    """A dataset of phonopy in Angstrom and eV/Angstrom."""
    if not dataset:
        return None
    if "first_atoms" not in dataset:
        factors = {"displacements": units.length, "forces": units.force}
        return {key: np.asarray(dataset[key]) * factor for key, factor in factors.items() if key in dataset}
    first = []
    for one in dataset["first_atoms"]:
        entry = {"number": int(one["number"]), "displacement": np.asarray(one["displacement"]) * units.length}
        if "forces" in one:
            entry["forces"] = np.asarray(one["forces"]) * units.force
        first.append(entry)
    return {"natom": int(dataset["natom"]), "first_atoms": first}


def _units(where: str, document: dict[str, Any]) -> Units:
    """The units that a file names, or those of its calculator; both must agree."""
    header = document.get("phonopy")
    calculator = header.get("calculator") if isinstance(header, dict) else None
    calculator = "vasp" if calculator is None else shown(calculator).lower()
    if calculator not in PHONOPY_CALCULATORS:
        names = ", ".join(PHONOPY_CALCULATORS)
        raise DataError(
            f"{where}: expected a calculator of phonopy ({names}), found {calculator}; its units are unknown"
        )
    length, force = PHONOPY_CALCULATORS[calculator]
    named = document.get("physical_unit")
    if isinstance(named, dict):
        said = tuple(shown(named.get(key, own)).lower() for key, own in (("length", length), ("force", force)))
        if said != (length, force):
            raise DataError(
                f"{where}: expected {length} and {force}, the units of {calculator}, found {said[0]} and {said[1]}; "
                "correct physical_unit or the calculator"
            )
    return Units(PHONOPY_LENGTHS[length], PHONOPY_FORCES[force], PHONOPY_FORCES[force] / PHONOPY_LENGTHS[length])


def factor_of_force_constants(where: str, name: str) -> float:
    """eV/Angstrom^2 of a unit that a file names.

    Raises:
        DataError: phonopy has no such unit.
    """
    if name.lower() not in PHONOPY_FORCE_CONSTANTS:
        known = ", ".join(PHONOPY_FORCE_CONSTANTS)
        raise DataError(f"{where}: expected force constants in one of {known}, found {shown(name)}; convert them")
    return PHONOPY_FORCE_CONSTANTS[name.lower()]


def _of_conf(files: CrystalFiles, conf: str, cell: str) -> Setting:
    where = files.where(conf)
    tags = _tags(files, conf)
    if "DIM" not in tags:
        raise DataError(f"{where}: expected DIM, the supercell matrix, found none; add it or give phonopy_disp.yaml")
    numbers = read_numbers(where, "DIM", tags["DIM"], (3, 9))
    matrix = np.diag(numbers) if len(numbers) == 3 else numbers.reshape(3, 3)
    axes: Any = tags.get("PRIMITIVE_AXIS", tags.get("PRIMITIVE_AXES", AUTO))
    primitive: np.ndarray | str = AUTO
    if axes.strip().upper() in LETTERS:
        with guarded(where, "a centring"):
            primitive = checked_primitive_matrix(where, get_primitive_matrix(axes.strip().upper()))
    elif axes.strip().lower() != AUTO:
        primitive = read_numbers(where, "PRIMITIVE_AXIS", axes, (9,)).reshape(3, 3)
    unitcell = read_poscar(files, cell)
    if "MASS" in tags:
        unitcell.masses = read_numbers(where, "MASS", tags["MASS"], (len(unitcell),))
    supercell, dataset = _displacements(files)
    return Setting(
        where,
        unitcell,
        checked_supercell_matrix(where, matrix, len(unitcell)),
        primitive if isinstance(primitive, str) else checked_primitive_matrix(where, primitive),
        supercell=supercell,
        dataset=dataset,
    )


def _tags(files: CrystalFiles, conf: str) -> dict[str, str]:
    """The tags of phonopy.conf that are read here; those of other calculators are refused."""
    tags = {}
    for line in files.text(conf).splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        key = key.strip().upper()
        other = value.strip().lower() if key == "CALCULATOR" else key.lower()
        if other in PHONOPY_CALCULATORS and other != "vasp" and value.strip().lower() not in (".false.", "f"):
            raise DataError(
                f"{files.where(conf)}: expected the units of VASP, found the calculator {other}; give the "
                "phonopy_disp.yaml or phonopy_params.yaml of phonopy, which say their units"
            )
        if equals and key in TAGS:
            tags[key] = value
    return tags


def _of_supercell(files: CrystalFiles, atoms: int | None) -> Setting:
    """No matrix is given: a cell with all atoms of the supercell is there, or nothing can be done."""
    stated, dataset = _displacements(files)
    names = files.names_of("supercell") + files.names_of("unit cell")
    if stated is not None:
        return Setting(
            files.where(files.names_of("displacements")[0]), stated, np.eye(3, dtype=np.int64), AUTO, dataset=dataset
        )
    found = []
    for name in names:
        cell = read_poscar(files, name)
        if len(cell) == atoms or (atoms is None and name in files.names_of("supercell")):
            return Setting(files.where(name), cell, np.eye(3, dtype=np.int64), AUTO)
        found.append(f"{shown(name)} with {len(cell)} atoms")
    needed = "the atoms of the supercell" if atoms is None else f"the {atoms} atoms of the supercell"
    raise DataError(
        f"{files.path}: expected phonopy_disp.yaml, phonopy.conf with POSCAR-unitcell, or a POSCAR with {needed}, "
        f"found {', '.join(found) or 'no cell'}; put it beside the forces"
    )


def _displacements(files: CrystalFiles) -> tuple[PhonopyAtoms | None, dict[str, Any] | None]:
    """The supercell and the displacements of disp.yaml, if it is there."""
    names = files.names_of("displacements")
    if not names:
        return None, None
    document, where = read_document(files, names[0]), files.where(names[0])
    with guarded(where, "displacements and a supercell"):
        listed = document["displacements"]
        first = [
            {"number": int(one["atom"]) - 1, "displacement": np.array(one["displacement"], np.float64)}
            for one in listed
        ]
        atoms = document["atoms"] if "atoms" in document else document["points"]
        place = "position" if "atoms" in document else "coordinates"
        symbols = [str(atom["symbol"]) for atom in atoms]
        unknown = next((symbol for symbol in symbols if symbol not in ELEMENTS), None)
        if unknown is not None:
            raise DataError(f"{where}: expected elements, found {shown(unknown)}; correct it")
        cell = PhonopyAtoms(
            symbols=symbols,
            cell=np.array(document["lattice"], np.float64),
            scaled_positions=np.array([atom[place] for atom in atoms], np.float64),
            masses=[float(atom["mass"]) for atom in atoms] if all("mass" in atom for atom in atoms) else None,
        )
    dataset = {"natom": len(cell), "first_atoms": first} if first else None
    return checked_cell(where, cell), dataset


def read_poscar(files: CrystalFiles, name: str) -> PhonopyAtoms:
    """A cell in VASP's format, which must name its elements.

    Raises:
        DataError: no elements, another format, or a wrong cell.
    """
    text, where = files.text(name), files.where(name)
    lines = text.splitlines()
    with guarded(where, "a POSCAR"):
        heads = [lines[line].split() for line in (5, 0)]
        symbols = next((head for head in heads if head and not head[0].isdigit()), [])
        counts = [int(word) for word in lines[6 if symbols is heads[0] else 5].split()]
        scale = float(lines[1].split()[0])
    unknown = next((symbol for symbol in symbols if symbol not in ELEMENTS), None)
    if unknown is not None or not symbols or len(symbols) != len(counts):
        found = f"{shown(unknown)}" if unknown is not None else f"{len(symbols)} for {len(counts)} counts of atoms"
        raise DataError(f"{where}: expected the elements above their numbers of atoms, found {found}; name them")
    if min(counts) < 1 or sum(counts) > LARGEST_SUPERCELL or not scale > 0:
        raise DataError(
            f"{where}: expected 1 to {LARGEST_SUPERCELL} atoms and a positive scale, found {sum(counts)} and "
            f"{scale:g}; correct them"
        )
    with guarded(where, "a POSCAR"):
        cell = read_vasp_from_strings("\n".join(lines) + "\n")
    return checked_cell(where, cell)

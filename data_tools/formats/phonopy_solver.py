"""From displacements and forces to compact force constants, with phonopy: the solver, and what shows a wrong input.

Force constants of forces are those of phonopy's traditional solver (symfc where all atoms are displaced at once),
compact, then made symmetric under exchange and free of drift once (``level=1``).  Given force constants stay as they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.symmetry import Symmetry
from scipy.spatial import cKDTree

from data_tools.crystals import Crystal
from data_tools.formats.phonopy_cells import Setting
from data_tools.formats.phonopy_guard import guarded
from data_tools.graph import DataError, Structure

SYMPREC = 1e-5  # Angstrom, phonopy's own
SAME_PLACE = 1e-3  # Angstrom between an atom in the file and in phonopy's supercell
CLOSEST = 0.3  # Angstrom between two atoms
LARGEST = 1e6  # eV/Angstrom^2 or eV/Angstrom; squares of numbers without bound overflow
SINGULAR = 1e-3  # of the largest singular value: displacements that do not span space
#: more than the noise of forces gives: asymmetry of the norm, and the sum of the blocks on their own atoms over that of
#: the largest of each row.  Of 1,066 materials of phonondb the least sum is 0.91, of a random order of each the largest
#: 0.58; single soft atoms (Cs in Cs2LiInF6) have nearly nothing on site.  Two exchanged atoms are not seen.  Forces of
#: magnetic atoms that DFT has treated without spin are asymmetric by up to 0.2.
ASYMMETRIC, ON_SITE = 0.3, 0.75
TRANSLATED = 0.1  # of the norm: how far full force constants may differ between atoms that are translations
MESH = (6, 6, 6)
AT_GAMMA = 1e-6  # of a reciprocal lattice vector


def phonopy_of_setting(setting: Setting) -> Phonopy:
    """The cells as phonopy makes them.

    Raises:
        DataError: it cannot, or atoms coincide.
    """
    primitive: Any = setting.primitive_matrix
    with guarded(setting.where, "cells with which phonopy can work", "correct the cells or the matrices"):
        phonon = Phonopy(setting.unitcell, setting.supercell_matrix, primitive_matrix=primitive, symprec=SYMPREC)
        space_group_of(phonon)
    supercell = phonon.supercell
    tree = cKDTree(*_wrapped(np.asarray(supercell.scaled_positions)))
    flattest = np.linalg.svd(np.asarray(supercell.cell), compute_uv=False)[-1]
    pairs = tree.query_pairs(CLOSEST / flattest, output_type="ndarray")
    apart = np.asarray(supercell.scaled_positions)[pairs[:, 0]] - np.asarray(supercell.scaled_positions)[pairs[:, 1]]
    lengths = np.linalg.norm((apart - np.rint(apart)) @ np.asarray(supercell.cell), axis=1)
    if len(pairs) and lengths.min() < CLOSEST:
        first, second = pairs[int(lengths.argmin())] + 1
        raise DataError(
            f"{setting.where}: expected atoms apart, found atoms {first} and {second} of the supercell "
            f"{lengths.min():.2g} Angstrom from each other; correct the cell"
        )
    return phonon


def _wrapped(fractions: np.ndarray) -> tuple[np.ndarray, int, bool, bool, float]:
    """Arguments of a periodic tree over fractional coordinates."""
    inside = fractions - np.floor(fractions)
    inside[inside >= 1.0] = 0.0
    return inside, 16, True, False, 1.0


def space_group_of(phonon: Phonopy) -> int:
    """The international number of the space group of the primitive cell; 0 where spglib has none."""
    dataset: Any = phonon.primitive_symmetry.dataset
    number = dataset["number"] if isinstance(dataset, dict) else getattr(dataset, "number", 0)
    return int(number or 0)


def crystal_of_cells(phonon: Phonopy, name: str, blocks: np.ndarray) -> Crystal:
    """A crystal of phonopy's cells, in phonopy's order of atoms.

    Args:
        phonon: as ``phonopy_of_setting`` gives it.
        name: of the crystal.
        blocks: (p, n, 3, 3) eV/Angstrom^2.
    """
    supercell = phonon.supercell
    return Crystal(
        supercell=Structure(
            np.array(supercell.numbers, np.int32),
            np.array(supercell.positions, np.float64),
            np.array(supercell.cell, np.float64),
            name,
        ),
        primitive_cell=np.array(phonon.primitive.cell, np.float64),
        p2s=np.array(phonon.primitive.p2s_map, np.int64),
        s2p=np.array(phonon.primitive.s2p_map, np.int64),
        masses=np.array(supercell.masses, np.float64),
        blocks=blocks,
        space_group=space_group_of(phonon),
    )


def order_of_supercell(setting: Setting, phonon: Phonopy) -> np.ndarray | None:
    """(n,) which atom of the file each atom of phonopy's supercell is; None: they are the same.

    Raises:
        DataError: the supercell of the file is another one.
    """
    stated, made = setting.supercell, phonon.supercell
    if stated is None:
        return None
    n = len(made)
    if len(stated) != n:
        raise DataError(
            f"{setting.where}: expected a supercell of {n} atoms, as its matrix says, found one of {len(stated)}; give "
            "the files of one calculation"
        )
    if _same(stated, made, np.arange(n)):
        return None
    inverse = np.linalg.inv(np.asarray(made.cell))
    tree = cKDTree(*_wrapped(np.asarray(stated.positions) @ inverse))
    order = tree.query(_wrapped(np.asarray(made.positions) @ inverse)[0])[1]
    if len(set(order.tolist())) < n or not _same(stated, made, order):
        raise DataError(
            f"{setting.where}: expected the supercell that the unit cell and its matrix give, found other atoms, "
            "elements or lattice vectors; give the files of one calculation"
        )
    return order


def _same(stated: PhonopyAtoms, made: PhonopyAtoms, order: np.ndarray) -> bool:
    """Whether the atoms ``order`` of the first cell stand where those of the second do."""
    if np.abs(np.asarray(stated.cell) - np.asarray(made.cell)).max() > SAME_PLACE:
        return False
    apart = np.asarray(stated.scaled_positions)[order] - np.asarray(made.scaled_positions)
    lengths = np.linalg.norm((apart - np.rint(apart)) @ np.asarray(made.cell), axis=1)
    return bool(lengths.max() < SAME_PLACE) and bool((np.asarray(stated.numbers)[order] == made.numbers).all())


def reordered(dataset: dict[str, Any], order: np.ndarray | None) -> dict[str, Any]:
    """A dataset with the atoms in phonopy's order."""
    if order is None:
        return dataset
    if "first_atoms" not in dataset:
        return {key: values[:, order] for key, values in dataset.items()}
    place = np.argsort(order)
    first = [
        one | {"number": int(place[one["number"]]), "forces": np.asarray(one["forces"])[order]}
        for one in dataset["first_atoms"]
    ]
    return dataset | {"first_atoms": first}


def solve(where: str, phonon: Phonopy, dataset: dict[str, Any]) -> np.ndarray:
    """(p, n, 3, 3) float64 eV/Angstrom^2 from displacements and forces; they stay in ``phonon`` too.

    Raises:
        DataError: too few displacements, or forces of another crystal or order of atoms.
    """
    displaced: Any = _one_at_a_time(dataset)
    forces = [one["forces"] for one in displaced.get("first_atoms", ())] or displaced["forces"]
    if not (np.abs(np.asarray(forces)) <= LARGEST).all():
        raise DataError(
            f"{where}: expected forces up to {LARGEST:g} eV/Angstrom, found larger ones; calculate them again"
        )
    if "first_atoms" in displaced:
        _check_displacements(where, phonon, displaced)
    p2s = np.asarray(phonon.primitive.p2s_map)
    # phonopy fits compact ones only where the displaced atoms are those that stand for the primitive cell
    full = any(one["number"] not in p2s for one in displaced.get("first_atoms", ()))
    solver: Any = "traditional" if "first_atoms" in displaced else "symfc"
    with guarded(where, "forces from which phonopy can make force constants", "calculate the missing displacements"):
        phonon.dataset = displaced
        phonon.produce_force_constants(calculate_full_force_constants=full, fc_calculator=solver, show_drift=False)
        if full:
            phonon.force_constants = np.ascontiguousarray(np.asarray(phonon.force_constants)[p2s])
        raw = np.array(phonon.force_constants, np.float64)
        phonon.symmetrize_force_constants(level=1, show_drift=False)
    blocks = np.array(phonon.force_constants, np.float64)
    check_order(where, phonon, raw, blocks)
    return blocks


def _one_at_a_time(dataset: dict[str, Any]) -> dict[str, Any]:
    """All atoms displaced at once needs another solver, unless only one of them really is."""
    if "first_atoms" in dataset:
        return dataset
    moved = np.linalg.norm(dataset["displacements"], axis=2) > 0
    if not (moved.sum(axis=1) == 1).all():
        return dataset
    numbers = moved.argmax(axis=1)
    first = [
        {"number": int(number), "displacement": displacement[number], "forces": forces}
        for number, displacement, forces in zip(numbers, dataset["displacements"], dataset["forces"], strict=True)
    ]
    return {"natom": moved.shape[1], "first_atoms": first}


def _check_displacements(where: str, phonon: Phonopy, dataset: dict[str, Any]) -> None:
    """With the symmetry of its site, every kind of atom is displaced along three directions."""
    symmetry: Symmetry = phonon.symmetry
    lattice = np.asarray(phonon.supercell.cell).T
    kinds = np.asarray(symmetry.get_map_atoms())
    directions: dict[int, list[np.ndarray]] = {}
    for one in dataset["first_atoms"]:
        number, moved = one["number"], np.asarray(one["displacement"], np.float64)
        if not 0 < np.linalg.norm(moved) < 1.0:
            raise DataError(
                f"{where}: expected displacements above 0 and below 1 Angstrom, found {np.linalg.norm(moved):.3g} of "
                f"atom {number + 1}; correct it"
            )
        rotations = np.asarray(symmetry.get_site_symmetry(number), np.float64)
        images = (lattice @ rotations @ np.linalg.inv(lattice)) @ (moved / np.linalg.norm(moved))
        directions.setdefault(number, []).append(images)
    complete = set()
    for number, several in directions.items():
        values = np.linalg.svd(np.concatenate(several), compute_uv=False)
        if len(values) == 3 and values[2] > SINGULAR * values[0]:
            complete.add(int(kinds[number]))
    missing = [int(atom) for atom in symmetry.get_independent_atoms() if int(kinds[atom]) not in complete]
    if missing:
        shown = ", ".join(str(atom + 1) for atom in missing[:5]) + (" and more" if len(missing) > 5 else "")
        raise DataError(
            f"{where}: expected displacements along three directions of every atom that symmetry does not give, found "
            f"too few of {shown} of the supercell; calculate the missing ones"
        )


def check_order(where: str, phonon: Phonopy, raw: np.ndarray, symmetric: np.ndarray) -> None:
    """Refuse force constants that are far from symmetric, as those of another order of atoms are.

    Args:
        where: the file, for messages.
        phonon: the cells.
        raw: (p, n, 3, 3) as they come.
        symmetric: the same, symmetric under exchange of the two atoms.

    Raises:
        DataError: they are.
    """
    norm = float(np.linalg.norm(raw))
    apart = float(np.linalg.norm(raw - symmetric))
    own = raw[np.arange(len(raw)), np.asarray(phonon.primitive.p2s_map)]
    largest = np.linalg.norm(raw, axis=(2, 3)).max(axis=1)
    misplaced = np.linalg.norm(own, axis=(1, 2)).sum() < ON_SITE * largest.sum()
    if not np.isfinite(norm) or norm == 0 or apart > ASYMMETRIC * norm or misplaced:
        raise DataError(
            f"{where}: expected forces on the atoms in the order of the supercell, found ones that break its symmetry "
            f"(of exchange by {apart / max(norm, 1e-300):.0%}"
            f"{', the largest blocks not on the atoms themselves' if misplaced else ''}): another order of atoms "
            "or another cell; bring them into the order of the supercell"
        )


def given_blocks(where: str, phonon: Phonopy, blocks: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """(p, n, 3, 3) of force constants that a file has, full or compact, as they are.

    Args:
        where: the file, for messages.
        phonon: the cells.
        blocks: (p or n, n, 3, 3) eV/Angstrom^2.
        rows: (p or n,) atoms of the rows, as the file says; None: it does not.

    Raises:
        DataError: another number of atoms, other primitive atoms, or another order.
    """
    n, p2s = len(phonon.supercell), np.asarray(phonon.primitive.p2s_map)
    if blocks.shape[1] != n or blocks.shape[0] not in (n, len(p2s)) or not (np.abs(blocks) <= LARGEST).all():
        raise DataError(
            f"{where}: expected force constants of {len(p2s)} or {n} x {n} atoms up to {LARGEST:g} eV/Angstrom^2, "
            f"found {blocks.shape[0]} x {blocks.shape[1]}; give the cells and force constants of one calculation"
        )
    if len(blocks) == n and rows is None:
        rows = np.arange(n)
    if len(blocks) < n and rows is not None and (rows != p2s).any():
        raise DataError(
            f"{where}: expected the rows of the atoms {(p2s + 1).tolist()}, which stand for the primitive cell, found "
            f"{(rows + 1).tolist()}; give the phonopy.yaml of the same calculation, or full force constants"
        )
    compact = np.ascontiguousarray(blocks[p2s] if len(blocks) == n else blocks)
    with guarded(where, "force constants with which phonopy can work"):
        phonon.force_constants = compact.copy()
        phonon.symmetrize_force_constants(level=1, show_drift=False)
        symmetric = np.array(phonon.force_constants, np.float64)
        phonon.force_constants = compact.copy()
    check_order(where, phonon, compact, symmetric)
    if len(blocks) == n:
        _check_translations(where, phonon, blocks)
    return compact


def _check_translations(where: str, phonon: Phonopy, blocks: np.ndarray) -> None:
    """The rows of an atom and of its translation hold the same blocks in another order: their sizes agree."""
    of_atoms = np.asarray(phonon.primitive.s2p_map)
    sizes = np.sort(np.linalg.norm(blocks, axis=(2, 3)), axis=1)
    apart = np.linalg.norm(sizes - sizes[of_atoms])
    if apart > TRANSLATED * np.linalg.norm(sizes):
        raise DataError(
            f"{where}: expected the atoms in the order of the supercell, found force constants that break the symmetry "
            f"of translation by {apart / np.linalg.norm(sizes):.0%} of their size; bring them into that order"
        )


def lowest_frequencies(phonon: Phonopy) -> tuple[float, float]:
    """THz, imaginary ones negative: at Gamma without the three acoustic modes, and on a 6 x 6 x 6 mesh away from Gamma.

    The mesh contains Gamma, as that of ``physics.phonons.stability``: its other points are those that a doubled or
    tripled supercell describes exactly.  One atom in the primitive cell has no other modes at Gamma: NaN.
    """
    p = len(phonon.primitive)
    masses = np.asarray(phonon.primitive.masses)
    translations = np.kron(np.sqrt(masses)[:, None], np.eye(3))
    others = np.linalg.qr(np.concatenate([translations, np.eye(3 * p)], axis=1))[0][:, 3:]
    gamma = np.nan
    if p > 1:
        matrix = np.asarray(phonon.get_dynamical_matrix_at_q([0.0, 0.0, 0.0]))
        lowest = np.linalg.eigvalsh(others.T @ matrix.real @ others)[0]
        gamma = float(np.sign(lowest) * np.sqrt(abs(lowest)) * phonon.unit_conversion_factor)
    phonon.run_mesh(MESH, is_gamma_center=True)
    mesh: Any = phonon.mesh
    away = np.abs(mesh.qpoints - np.rint(mesh.qpoints)).max(axis=1) > AT_GAMMA
    return gamma, float(mesh.frequencies[away].min())

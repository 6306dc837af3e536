"""One crystal with its force constants, and many of them as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.graph import DataError, ForceConstants, Structure, StructureTable
from data_tools.tables import check_table, name_of_row, table_of_structures


@dataclass(frozen=True)
class Crystal:
    """A supercell of n atoms, of which p stand for the atoms of the primitive cell, and its force constants.

    Attributes:
        supercell: the atoms; ``supercell.cell`` is not None.
        primitive_cell: (3, 3) lattice vectors of the primitive cell as rows, Angstrom.
        p2s: (p,) int64 the atom of the supercell that stands for each primitive atom.
        s2p: (n,) int64 which of these atoms each atom of the supercell is a translation of.
        masses: (n,) float64 atomic mass units.
        blocks: (p, n, 3, 3) float64 eV/Angstrom^2, compact: d^2 E / dr_p2s[i] dr_j.
        born: (p, 3, 3) float64 Born effective charges, e; None: not available.
        dielectric: (3, 3) float64 relative permittivity of clamped ions; None: not available.
        space_group: international number; 0: not determined.
        lowest_frequencies: (2,) float64 THz; see ``ForceConstants``.
    """

    supercell: Structure
    primitive_cell: np.ndarray
    p2s: np.ndarray
    s2p: np.ndarray
    masses: np.ndarray
    blocks: np.ndarray
    born: np.ndarray | None = None
    dielectric: np.ndarray | None = None
    space_group: int = 0
    lowest_frequencies: tuple[float, float] = (np.nan, np.nan)

    @property
    def name(self) -> str:
        """What the file calls it, for example ``mp-149``."""
        return self.supercell.name

    @property
    def n_atoms(self) -> int:
        """Atoms of the supercell."""
        return len(self.supercell.numbers)

    @property
    def n_primitive(self) -> int:
        """Atoms of the primitive cell."""
        return len(self.p2s)


def table_of_crystals(path: Path, crystals: Sequence[Crystal], source: str) -> StructureTable:
    """Join crystals into one table with ids 0, 1, 2, ...

    Args:
        path: the file, for messages.
        crystals: M of them.
        source: of the table.

    Raises:
        DataError: as ``check_table``; ``path`` names the file.
    """
    table = table_of_structures(path, [crystal.supercell for crystal in crystals], source)
    absent = np.full((3, 3), np.nan)
    constants = ForceConstants(
        blocks=np.concatenate([crystal.blocks.reshape(-1, 3, 3) for crystal in crystals]),
        n_primitive=np.array([crystal.n_primitive for crystal in crystals], np.int64),
        p2s=np.concatenate([crystal.p2s for crystal in crystals]),
        s2p=np.concatenate([crystal.s2p for crystal in crystals]),
        masses=np.concatenate([crystal.masses for crystal in crystals]),
        primitive_cells=np.stack([crystal.primitive_cell for crystal in crystals]),
        born=np.concatenate([np.tile(absent, (c.n_primitive, 1, 1)) if c.born is None else c.born for c in crystals]),
        dielectric=np.stack([absent if c.dielectric is None else c.dielectric for c in crystals]),
        space_groups=np.array([crystal.space_group for crystal in crystals], np.int64),
        lowest_frequencies=np.array([crystal.lowest_frequencies for crystal in crystals], np.float64),
    )
    return check_table(path, dataclasses.replace(table, force_constants=constants))


def crystal_of(table: StructureTable, row: int) -> Crystal:
    """The crystal of a row of a table.

    Raises:
        DataError: the row has no force constants or no cell.
    """
    constants, cells = table.force_constants, table.cells
    if constants is None or cells is None or not constants.n_primitive[row]:
        raise DataError(f"{name_of_row(table, row)}: expected a crystal with force constants, it has none")
    sizes, primitive = table.n_atoms, constants.n_primitive
    n, p = int(sizes[row]), int(primitive[row])
    atoms = slice(first := int(sizes[:row].sum()), first + n)
    of_primitive = slice(first := int(primitive[:row].sum()), first + p)
    start = int((sizes[:row] * primitive[:row]).sum())
    born, dielectric = constants.born[of_primitive], constants.dielectric[row]
    gamma, mesh = constants.lowest_frequencies[row].tolist()
    return Crystal(
        supercell=Structure(table.numbers[atoms], table.positions[atoms], cells[row], name_of_row(table, row)),
        primitive_cell=constants.primitive_cells[row],
        p2s=constants.p2s[of_primitive],
        s2p=constants.s2p[atoms],
        masses=constants.masses[atoms],
        blocks=constants.blocks[start : start + n * p].reshape(p, n, 3, 3),
        born=None if np.isnan(born).any() else born,
        dielectric=None if np.isnan(dielectric).any() else dielectric,
        space_group=int(constants.space_groups[row]),
        lowest_frequencies=(gamma, mesh),
    )

"""Molecules of SMILES, whose geometries are made here: RDKit's ETKDG (fixed seed), then MMFF, UFF where that fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.formats.smiles_records import Record, records_of_file
from data_tools.graph import DataError, Structure, StructureTable
from data_tools.progress_bar import track
from data_tools.source_files import describe_source, one_line
from data_tools.tables import select_rows, table_of_structures

MADE_HERE = "geometries from SMILES are RDKit ETKDG + MMFF guesses"
GEOMETRY_WARNING = f"{MADE_HERE}; the labels a model learned belong to DFT geometries"
EMBEDDING_SEED = 42
LARGEST_SMILES = 200  # atoms, hydrogens included; placing more takes minutes, and a guess of so many is no geometry
FORCE_FIELD_STEPS = 2000
SEEDS = 5  # that are tried where ETKDG has found nothing
NEAREST = 0.5  # Angstrom; no two atoms of a molecule are closer


class Refusal(NamedTuple):
    """A record for which there is no structure.

    Attributes:
        row: which record it is, from 0.
        record: where it stands, its SMILES and its name.
        reason: what was expected and what came.
    """

    row: int
    record: Record
    reason: str

    def __str__(self) -> str:
        return f"{self.record.smiles[:60]!r} in {self.record.place}: {self.reason}"


@dataclass(frozen=True)
class Molecules:
    """Records of SMILES, each as a structure or a refusal.

    Attributes:
        records: K of them.
        table: M structures, with the labels of ``ion_labels``; None where every record was refused.
        rows: (M,) int64 which record each structure comes from, from 0.
        refusals: of the other K - M records, in their order.
    """

    records: tuple[Record, ...]
    table: StructureTable | None
    rows: np.ndarray
    refusals: tuple[Refusal, ...]

    def refuse(self, reasons: dict[int, str]) -> Molecules:
        """The same with further refusals; ``reasons`` by row of the table."""
        if self.table is None or not reasons:
            return self
        more = [Refusal(row := int(self.rows[one]), self.records[row], reason) for one, reason in reasons.items()]
        kept = np.setdiff1d(np.arange(len(self.table)), list(reasons))
        refusals = sorted((*self.refusals, *more), key=lambda refusal: refusal.row)
        table = select_rows(self.table, kept) if len(kept) else None
        return Molecules(self.records, table, self.rows[kept], tuple(refusals))


def ion_labels(charges: Sequence[int], radical_electrons: Sequence[int]) -> dict[str, np.ndarray]:
    """Labels of M molecules, by their total formal charges in elementary charges and numbers of unpaired electrons.

    Returns:
        ``charge`` and ``radical_electrons``, (M,) float64.
    """
    return {
        "charge": np.array(charges, np.float64),
        "radical_electrons": np.array(radical_electrons, np.float64),
    }


def read_smiles(path: Path, progress: bool = False) -> tuple[StructureTable, str]:
    """The molecules of a file of SMILES, all of them.

    Returns:
        The structures in Angstrom, with the labels of ``ion_labels``, and a warning to show: these are not DFT
        geometries.  The warning also stands in the table's ``source``.

    Raises:
        DataError: the first record that is not SMILES, or for which no geometry was found, with its line.
    """
    made = []
    for one in track(_make(records_of_file(path)), f"building {path.name}", "molecules", None, progress):
        if isinstance(one, Refusal):
            raise DataError(f"{path}: {one}; correct or remove it")
        made.append(one)
    return _table(path, made, describe_source(path)), GEOMETRY_WARNING


def make_molecules(
    path: Path,
    records: Sequence[Record],
    source: str,
    progress: bool = False,
    known: dict[str, Made | str] | None = None,
) -> Molecules:
    """Geometries of as many records as possible.

    Args:
        path: what to call the whole in messages.
        records: of ``smiles_records``.
        source: of the table, to which the warning about the geometries is added.
        progress: report on stderr.
        known: SMILES as ``text_of`` writes them -> a molecule that was made before, or why there is none; those that
            are made are added.
    """
    found = list(track(_make(records, known), f"building {path.name}", "molecules", len(records), progress))
    refusals = [one for one in found if isinstance(one, Refusal)]
    made = [one for one in found if not isinstance(one, Refusal)]
    rows = [row for row, one in enumerate(found) if not isinstance(one, Refusal)]
    table = _table(path, made, source) if made else None
    return Molecules(tuple(records), table, np.array(rows, np.int64), tuple(refusals))


class Made(NamedTuple):
    """A molecule that was made of SMILES; total formal charge in elementary charges."""

    structure: Structure
    charge: int
    radical_electrons: int


def text_of(record: Record) -> str:
    """What decides the geometry of a record."""
    return f"{record.smiles} {record.extension}".strip()


def _table(path: Path, made: Sequence[Made], source: str) -> StructureTable:
    labels = ion_labels([one.charge for one in made], [one.radical_electrons for one in made])
    structures = [one.structure for one in made]
    return table_of_structures(path, structures, f"{source}; {GEOMETRY_WARNING}", labels if made else None)


def _make(records: Sequence[Record], known: dict[str, Made | str] | None = None) -> Iterator[Made | Refusal]:
    """A structure or a refusal for each record."""
    known = {} if known is None else known
    for row, record in enumerate(records):
        text = text_of(record)
        if not record.problem and text not in known:
            try:
                known[text] = _embed(record)
            except ValueError as error:
                known[text] = one_line(error)
        found = record.problem or known[text]
        if isinstance(found, str):
            yield Refusal(row, record, found)
        else:
            yield found._replace(structure=dataclasses.replace(found.structure, name=record.name))


def _embed(record: Record) -> Made:
    """A geometry for one record.

    Raises:
        ValueError: not SMILES of one molecule, or no geometry found.
    """
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    too_large = f"expected at most {LARGEST_SMILES} atoms, found more; give a file with their positions"
    if len(record.smiles) > 20 * LARGEST_SMILES:
        raise ValueError(too_large)
    with rdBase.BlockLogs():
        molecule = _parse(record.smiles, record.extension)
        fragments = len(Chem.GetMolFrags(molecule))
        if fragments > 1:
            raise ValueError(
                f"expected one molecule, found {fragments} fragments, and SMILES do not say how they lie to each "
                "other; give each alone, or a file with the positions of all"
            )
        unknown = [atom.GetIdx() + 1 for atom in molecule.GetAtoms() if atom.GetAtomicNum() == 0]
        if unknown:
            raise ValueError(f"expected elements, found a placeholder as atom {unknown[0]}")
        molecule = Chem.AddHs(molecule)
        if molecule.GetNumAtoms() > LARGEST_SMILES:
            raise ValueError(too_large)
        positions = place(molecule)
    atoms = list(molecule.GetAtoms())
    numbers = np.array([atom.GetAtomicNum() for atom in atoms], np.int32)
    return Made(
        Structure(numbers, positions, None, record.name),
        sum(atom.GetFormalCharge() for atom in atoms),
        sum(atom.GetNumRadicalElectrons() for atom in atoms),
    )


def place(molecule: Any, seed: int = EMBEDDING_SEED, attempts: int = 0) -> np.ndarray:
    """Give a molecule of RDKit that has its hydrogens a geometry: ETKDG, then a minimum of a force field.

    Cages of small rings have none by ETKDG, which knows the torsions of usual molecules, or that of another
    stereoisomer.  They begin with distances alone, and the first geometry is taken that has the right configuration.

    Args:
        molecule: is given the geometry, in the place of those that it has.
        seed: of ETKDG.
        attempts: of ETKDG before it gives up; 0: ten for each atom.

    Returns:
        (n, 3) Angstrom, in the order of its atoms.

    Raises:
        ValueError: no geometry found.
    """
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    said, reason = Chem.Mol(molecule), "found no geometry"
    for embed in _ways(seed, attempts):
        if embed(molecule):
            continue
        if molecule.GetNumAtoms() > 1:
            _relax(molecule)
        positions = molecule.GetConformer().GetPositions()
        if _has_configuration(said, positions):
            break
        reason = "found geometries of other stereoisomers alone"
    else:
        raise ValueError(f"expected a molecule that RDKit can place in space, it {reason}")
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1) + np.diag(np.full(len(positions), np.inf))
    if not distances.min(initial=np.inf) > NEAREST:  # NaN is not
        raise ValueError("expected a molecule that RDKit can place in space, it put atoms on top of each other")
    return positions


def _ways(seed: int, attempts: int) -> Iterator[Callable[[Any], int]]:
    """What places the atoms of a molecule, to be tried one after the other; each returns -1 where it finds nothing."""
    from rdkit.Chem import rdDistGeom  # noqa: PLC0415  (heavy)

    embed = rdDistGeom.EmbedMolecule
    # Random starting coordinates are slower but succeed for crowded rings where the first way gives up.
    for random_start in (False, True):
        yield partial(embed, maxAttempts=attempts, randomSeed=seed, useRandomCoords=random_start)
    for k in range(SEEDS):
        distances: Any = rdDistGeom.EmbedParameters()
        distances.useRandomCoords, distances.enforceChirality = True, False
        distances.maxIterations, distances.randomSeed = attempts, seed + k
        yield partial(embed, params=distances)


def _has_configuration(molecule: Any, positions: np.ndarray) -> bool:
    """Whether (n, 3) positions are those of the stereocentres and double bonds that a molecule says."""
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    found = Chem.Mol(molecule)
    found.RemoveAllConformers()
    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(positions)
    found.AddConformer(conformer)
    Chem.AssignStereochemistryFrom3D(found)
    tags = [(one.GetChiralTag(), other.GetChiralTag())
            for one, other in zip(molecule.GetAtoms(), found.GetAtoms(), strict=True)]  # fmt: skip
    kinds = [(one.GetStereo(), other.GetStereo())
             for one, other in zip(molecule.GetBonds(), found.GetBonds(), strict=True)]  # fmt: skip
    no_tag, no_kind = (Chem.ChiralType.CHI_UNSPECIFIED,), (Chem.BondStereo.STEREONONE, Chem.BondStereo.STEREOANY)
    of_atoms = all(said in no_tag or said == other for said, other in tags)
    return of_atoms and all(said in no_kind or said == other for said, other in kinds)


def molecule_with_hydrogens(record: Record) -> Any:
    """The molecule of RDKit, without a geometry, whose atoms are those of the structure that is made of a record.

    Raises:
        ValueError: not SMILES.
    """
    from rdkit import Chem, rdBase  # noqa: PLC0415  (heavy)

    with rdBase.BlockLogs():
        return Chem.AddHs(_parse(record.smiles, record.extension))


def _parse(smiles: str, extension: str) -> Any:
    """The molecule of RDKit, without hydrogens.

    Raises:
        ValueError: with RDKit's reason, where it gives one.
    """
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    molecule = Chem.MolFromSmiles(f"{smiles} {extension}".strip())
    if molecule is not None and molecule.GetNumAtoms() > 0:
        return molecule
    drawn = Chem.MolFromSmiles(smiles, sanitize=False)
    problems = Chem.DetectChemistryProblems(drawn) if drawn is not None else ()
    reason = f" ({one_line(problems[0].Message())})" if problems else ""
    raise ValueError(f"expected SMILES, RDKit cannot read it{reason}")


def _relax(molecule: Any) -> None:
    """Move the atoms to a minimum of a force field.

    Raises:
        ValueError: no force field has parameters for these atoms.
    """
    from rdkit.Chem import rdForceFieldHelpers  # noqa: PLC0415  (heavy)

    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(molecule):
        rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=FORCE_FIELD_STEPS)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(molecule):
        rdForceFieldHelpers.UFFOptimizeMolecule(molecule, maxIters=FORCE_FIELD_STEPS)
    else:
        raise ValueError("expected elements that the MMFF or UFF force field knows")

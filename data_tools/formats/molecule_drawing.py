"""Drawings of molecules in the plane, by their bonds, with a colour and a note for each atom (RDKit)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_tools.formats.smiles import molecule_with_hydrogens
from data_tools.formats.smiles_records import Record

RADIUS = 0.35  # of the spot behind an atom, in units of the drawing's bond length
INDEX = "index"


def drawn_atoms(record: Record) -> np.ndarray:
    """(n,) the atom of the drawing with which each atom of the structure counts: a hydrogen, with its neighbour.

    Raises:
        ValueError: not SMILES.
    """
    whole, drawn = _molecules(record)
    place = {atom.GetIntProp(INDEX): atom.GetIdx() for atom in drawn.GetAtoms()}
    owner = np.zeros(whole.GetNumAtoms(), np.int64)
    for atom in whole.GetAtoms():
        index = atom.GetIdx()
        owner[index] = place[index] if index in place else place[atom.GetNeighbors()[0].GetIdx()]
    return owner


def draw_molecule(record: Record, colours: np.ndarray, notes: Sequence[str], width: int, height: int) -> bytes:
    """A drawing as PNG.

    Args:
        record: of the molecule.
        colours: (K, 3) red, green and blue from 0 to 1, of the atoms of the drawing; see ``drawn_atoms``.
        notes: K of them, beside the atoms.
        width, height: in pixels.

    Raises:
        ValueError: not SMILES.
    """
    from rdkit.Chem.Draw import rdMolDraw2D  # noqa: PLC0415  (heavy)

    molecule = _molecules(record)[1]
    for atom, note in zip(molecule.GetAtoms(), notes, strict=True):
        atom.SetProp("atomNote", note)
    molecule = rdMolDraw2D.PrepareMolForDrawing(molecule)
    every = list(range(len(notes)))
    drawer = rdMolDraw2D.MolDraw2DCairo(width, height)
    options: Any = drawer.drawOptions()
    options.useBWAtomPalette()
    options.annotationFontScale, options.fillHighlights, options.padding = 0.75, True, 0.08
    drawer.DrawMolecule(
        molecule, highlightAtoms=every, highlightBonds=[],
        highlightAtomColors={k: tuple(map(float, colours[k])) for k in every},
        highlightAtomRadii=dict.fromkeys(every, RADIUS),
    )  # fmt: skip
    drawer.FinishDrawing()
    return drawer.GetDrawingText()


def _molecules(record: Record) -> tuple[Any, Any]:
    """The molecule with all hydrogens, and as it is drawn; the atoms of the second know their number in the first."""
    from rdkit import Chem  # noqa: PLC0415  (heavy)

    whole = molecule_with_hydrogens(record)
    for atom in whole.GetAtoms():
        atom.SetIntProp(INDEX, atom.GetIdx())
    return whole, Chem.RemoveHs(whole)

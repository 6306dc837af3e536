"""Small files in the published formats, made from the shipped raw ones: what the tests of the readers read."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

from data_tools.formats.readers import read_xyz
from data_tools.qm9 import SAMPLE_FILE as PACKED
from data_tools.qm9 import SAMPLES

__all__ = ["PACKED", "RAW", "RAW_FILES", "published_values", "write_gdb9", "write_tar"]

RAW = SAMPLES / "raw_xyz"
RAW_FILES = sorted(RAW.glob("*.xyz"))
CSV_COLUMNS = "A B C mu alpha homo lumo gap r2 zpve u0 u298 h298 g298 cv".split()


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:bz2") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def published_values(path: Path) -> list[float]:
    """The 15 properties of a raw file by plain string handling, in the file's own units."""
    return [float(text.replace("*^", "e")) for text in path.read_text().splitlines()[1].split()[2:17]]


def write_gdb9(folder: Path, paths: list[Path]) -> tuple[Path, Path]:
    """gdb9.sdf and gdb9.sdf.csv as DeepChem publishes them, made from raw files with RDKit."""
    from rdkit import Chem  # noqa: PLC0415
    from rdkit.Geometry import Point3D  # noqa: PLC0415

    sdf, table = folder / "gdb9.sdf", folder / "gdb9.sdf.csv"
    with Chem.SDWriter(str(sdf)) as writer, table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["mol_id", *CSV_COLUMNS, "u0_atom", "u298_atom", "h298_atom", "g298_atom"])
        for path in paths:
            structure, _ = read_xyz(path)
            molecule = Chem.RWMol()
            conformer = Chem.Conformer(len(structure.numbers))
            for atom, (number, place) in enumerate(zip(structure.numbers, structure.positions, strict=True)):
                molecule.AddAtom(Chem.Atom(int(number)))
                conformer.SetAtomPosition(atom, Point3D(*map(float, place)))
            conformer.Set3D(True)
            molecule.AddConformer(conformer)
            molecule.SetProp("_Name", structure.name.replace(" ", "_"))
            writer.write(molecule)
            rows.writerow([structure.name.replace(" ", "_"), *published_values(path), 0, 0, 0, 0])
    return sdf, table

"""Files of phonopy made to harm: one file of a folder or of an archive is damaged, or says what cannot be."""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from crystal_samples import (
    CONF,
    SODIUM_CHLORATE,
    ZINC_OXIDE,
    ZR3N4,
    force_constants_text,
    write_hdf5,
    zinc_oxide,
    zno_folder,
)
from hostile_archives import TARS, yaml_documents
from hostile_arrays import NPZ, Payload
from hostile_bytes import BYTES, TEXT, Random
from hostile_texts import PLACES, one_of

from data_tools.crystals import Crystal
from data_tools.formats.crystal_file import read_crystal_file, write_crystals
from data_tools.formats.phonopy_files import read_crystal
from data_tools.graph import StructureTable


class CrystalHarms(NamedTuple):
    """A kind of input: its file name, the ways to harm it, and its reader."""

    name: str
    harms: tuple[Callable, ...]
    read: Callable[[Path], Any]


def read_forces_only(path: Path) -> Crystal:
    return read_crystal(path, frequencies=False)


def read_packed_crystals(path: Path) -> StructureTable:
    return read_crystal_file(path).table


def complaint_of_crystal(crystal: Crystal) -> str:
    """What is wrong with a crystal that a reader accepted; empty if it is sound."""
    n, p = crystal.n_atoms, crystal.n_primitive
    shapes = crystal.blocks.shape == (p, n, 3, 3) and crystal.s2p.shape == crystal.masses.shape == (n,)
    if not shapes or not 1 <= p <= n or not set(crystal.s2p.tolist()) <= set(crystal.p2s.tolist()):
        return "shapes or maps do not fit"
    cell = crystal.supercell.cell
    values = (crystal.blocks, crystal.masses, crystal.supercell.positions, cell, crystal.primitive_cell)
    if not all(np.isfinite(value).all() for value in values) or cell is None or np.linalg.det(cell) <= 0:
        return "not finite, or a cell without volume"
    known = 1 <= crystal.supercell.numbers.min() and crystal.supercell.numbers.max() <= 118
    return "" if known else "unknown elements"


def in_folder(name: str, others: tuple[str, ...], write: Callable[[Random, Path], Any]) -> Callable:
    """A harm of one file among good ones."""

    def harm(random: Random, path: Path) -> None:
        zno_folder(path, *others)
        if name == "POSCAR-unitcell":
            (path / "phonopy.conf").write_text(CONF)
        (path / name).unlink(missing_ok=True)
        write(random, path / name)

    return harm


def damaged(damage: Callable, content: bytes) -> Callable[[Random, Path], Any]:
    def write(random: Random, path: Path) -> None:
        path.write_bytes(damage(random, content))

    return write


def text_harms(name: str, others: tuple[str, ...], content: bytes) -> tuple[Callable, ...]:
    writers = [*(damaged(one, content) for one in TEXT), *PLACES]
    return tuple(in_folder(name, others, write) for write in writers)


def _numbers() -> Callable[[Random, bytes], bytes]:
    """One word of a file becomes another number."""
    choices = (b"0", b"-1", b"nan", b"1e400", b"99999999999999999999", b"1e9", b"33", b"31", b"0.5", b"x", b"1 1", b"")

    def numbers(random: Random, data: bytes) -> bytes:
        words = data.split(b" ")
        place = random.integers(min(len(words), 40) if random.random() < 0.5 else len(words))
        words[place] = one_of(random, choices) + (b"\n" if b"\n" in words[place] else b"")
        return b" ".join(words)

    return numbers


NUMBERS = _numbers()


def yaml_values(random: Random, path: Path) -> None:
    """Entries of phonopy's YAML that cannot be."""
    text = ZR3N4.read_text()
    choices = (
        ("supercell_matrix:\n- [   1", "supercell_matrix:\n- [   1000000"),
        ("supercell_matrix:", "supercell_matrix: 3\nx:"),
        ("primitive_matrix:", "primitive_matrix: [[0,0,0],[0,0,0],[0,0,0]]\nx:"), ("unit_cell:", "unit_cell: []\nx:"),
        ("lattice:", "lattice: [[1,0,0],[2,0,0],[0,0,1]]\n  x:"), ("lattice:", "lattice: nothing\n  x:"),
        ("symbol: Zr", "symbol: Qq"), ("symbol: Zr", "symbol: [Zr]"), ("mass:", "mass: -1\n    x:"),
        ("coordinates: [", "coordinates: [.nan, "), ("atom:", "atom: 99999\n  x:"), ("atom:", "atom: .inf\n  x:"),
        ("displacement:\n", "displacement: []\n  x:\n"), ("displacements:", "displacements: {a: b}\nx:"),
        ("length: \"angstrom\"", "length: \"parsec\""), ("version:", "calculator: nobody\n  version:"),
        ("version:", "calculator: [qe]\n  version:"), ("forces:", "forces: [[1]]\n  x:"),
        ("phonopy:", "phonopy: 3\nx:"),
        ("phonopy:", "force_constants: {shape: [1000000, 1000000], elements: [1]}\nphonopy:"),
        ("phonopy:", "nac: {born_effective_charge: [1], dielectric_constant: [2]}\nphonopy:"),
        ("displacements:", "displacements: []\nx:"), ("points:", "points: {a: 1}\n  x:"),
    )  # fmt: skip
    old, new = one_of(random, choices)
    path.write_text(text.replace(old, new, 1 if random.random() < 0.7 else -1))


def yaml_document(random: Random, path: Path) -> None:
    path.write_bytes(one_of(random, yaml_documents(Payload.marker)).encode("utf-8", "surrogateescape"))


def hdf5_harms(good: bytes) -> tuple[Callable, ...]:
    blocks, p2s = zinc_oxide().blocks, zinc_oxide().p2s

    def contents(random: Random, path: Path) -> None:
        choices = (
            (blocks, None), (blocks[:, :5], p2s), (blocks, p2s[:2]), (blocks, p2s + 40), (blocks, p2s.astype(float)),
            (blocks * np.nan, p2s), (blocks.reshape(-1), p2s), (blocks.astype("S8"), p2s), (np.float64(3.0), None),
            (blocks.astype(complex), p2s), (np.zeros((0, 0, 3, 3)), None), (blocks, -p2s - 1),
            (np.zeros((2, 2, 3, 3)), None),
        )  # fmt: skip
        write_hdf5(path, *one_of(random, choices), unit=one_of(random, (None, "eV/angstrom^2", "x" * 9999, "")))

    def elsewhere(random: Random, path: Path) -> None:
        with h5py.File(path, "w") as file:
            kind = random.integers(5)
            if kind == 0:
                file["force_constants"] = h5py.ExternalLink("/etc/passwd", "x")
            elif kind == 1:
                file["force_constants"] = h5py.SoftLink("/force_constants")
            elif kind == 2:
                outside = [("/etc/passwd", 0, 32 * 32 * 72)]
                file.create_dataset("force_constants", (32, 32, 3, 3), "f8", external=outside)
            elif kind == 3:
                file.create_dataset("force_constants", (5000, 5000, 3, 3), "f8", chunks=(1, 1, 3, 3))
            else:
                file.create_group("force_constants")

    bytes_of = tuple(in_folder("force_constants.hdf5", ("phonopy_disp.yaml",), damaged(one, good)) for one in BYTES)
    made = tuple(
        in_folder("force_constants.hdf5", ("phonopy_disp.yaml",), one) for one in (contents, contents, elsewhere)
    )
    return (*bytes_of, *made, *made)


def archive_harms(whole: bytes) -> tuple[Callable, ...]:
    with tarfile.open(SODIUM_CHLORATE, "r:xz") as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}  # type: ignore[union-attr]

    def inside(one: Callable, random: Random, path: Path) -> None:
        path.write_bytes(lzma.compress(one(random, files), preset=0))

    def bomb(random: Random, path: Path) -> None:
        path.write_bytes(whole[:-9] + lzma.compress(bytes(1 << 20)) if random.random() < 0.5 else BOMB)

    return (*(partial(inside, one) for one in TARS), *(_write(one, whole) for one in BYTES), bomb, *PLACES)


BOMB = lzma.compress(bytes(70 << 20), preset=0)


def _write(one: Callable, whole: bytes) -> Callable:
    return lambda random, path: path.write_bytes(one(random, whole)) and None


def crystal_harms(folder: Path) -> dict[str, CrystalHarms]:
    """Every format of crystals; good files are made in ``folder``."""
    folder.mkdir(exist_ok=True)
    crystal = zinc_oxide()
    constants = force_constants_text(crystal.blocks, crystal.p2s).encode()
    hdf5 = write_hdf5(folder / "good.hdf5", crystal.blocks, crystal.p2s).read_bytes()
    write_crystals(folder / "good.npz", [crystal, crystal], ["a", "b"])
    packed, arrays = (folder / "good.npz").read_bytes(), dict(np.load(folder / "good.npz"))
    good = {path.name: path.read_bytes() for path in ZINC_OXIDE.iterdir()} | {"phonopy.conf": CONF.encode()}
    disp, cells = ("phonopy_disp.yaml",), ("POSCAR-unitcell", "FORCE_SETS")
    sets = text_harms("FORCE_SETS", disp, good["FORCE_SETS"])
    lies = in_folder("FORCE_SETS", disp, damaged(NUMBERS, good["FORCE_SETS"]))
    rows = in_folder("FORCE_CONSTANTS", disp, damaged(NUMBERS, constants))
    packed_harms = (*(_write(one, arrays) for one in NPZ), *(_write(one, packed) for one in BYTES))  # type: ignore[arg-type]
    plain = tuple(_write(one, ZR3N4.read_bytes()) for one in TEXT)
    return {
        "phonopy yaml": CrystalHarms(
            ZR3N4.name, (*plain, *[yaml_values] * 12, *[yaml_document] * 5, *PLACES), read_forces_only
        ),
        "FORCE_SETS": CrystalHarms("ZnO", (*sets, *[lies] * 8), read_forces_only),
        "FORCE_CONSTANTS": CrystalHarms(
            "ZnO", (*text_harms("FORCE_CONSTANTS", disp, constants), *[rows] * 8), read_forces_only
        ),
        "force_constants.hdf5": CrystalHarms("ZnO", hdf5_harms(hdf5), read_forces_only),
        "POSCAR": CrystalHarms(
            "ZnO",
            (
                *text_harms("POSCAR-unitcell", cells, good["POSCAR-unitcell"]),
                *[in_folder("POSCAR-unitcell", cells, damaged(NUMBERS, good["POSCAR-unitcell"]))] * 8,
            ),
            read_forces_only,
        ),
        "phonopy.conf": CrystalHarms("ZnO", text_harms("phonopy.conf", cells, CONF.encode()), read_forces_only),
        "BORN": CrystalHarms("ZnO", text_harms("BORN", (*disp, "FORCE_SETS"), good["BORN"]), read_forces_only),
        "phonondb archive": CrystalHarms(
            SODIUM_CHLORATE.name, archive_harms(SODIUM_CHLORATE.read_bytes()), read_forces_only
        ),
        "packed crystals": CrystalHarms("crystals.npz", (*packed_harms, *PLACES), read_packed_crystals),
    }

"""Structures made to harm, written by hand in each text format, and what may stand where a file is expected."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hostile_bytes import Random


def one_of(random: Random, choices: Sequence[Any]) -> Any:
    return choices[random.integers(len(choices))]


def pipe(random: Random, path: Path) -> None:
    os.mkfifo(path)


def folder(random: Random, path: Path) -> None:
    path.mkdir()


def missing(random: Random, path: Path) -> None:
    pass


def loop(random: Random, path: Path) -> None:
    path.symlink_to(path)


def device(random: Random, path: Path) -> None:
    path.symlink_to("/dev/zero")


PLACES = (pipe, folder, missing, loop, device)


def odd_name(data: bytes) -> Callable[[Random, Path], Path]:
    """Good content under a name that a careless program trips over."""

    def odd_name(random: Random, path: Path) -> Path:
        names = ("\udce9", "mol@2", "a b", "%s%n{}", "-", "*?[", "x" * 200, "two\nlines", "a'b\"c")
        path = path.with_name(one_of(random, names) + path.suffix)
        path.write_bytes(data)
        return path

    return odd_name


def _grid(atoms: int, side: int, step: float) -> str:
    places = ((i % side, i // side % side, i // side**2) for i in range(atoms))
    return f"{atoms}\ngrid\n" + "".join(f"C {x * step} {y * step} {z * step}\n" for x, y, z in places)


def geometries(random: Random, path: Path) -> None:
    """Atoms on top of each other, far apart, too many or too dense; plain xyz."""
    texts: tuple[Callable[[], str], ...] = (
        lambda: "2\nsame\nC 0 0 0\nC 0 0 0\n",
        lambda: "2\nnear\nC 0 0 0\nC 0.09 0 0\n",
        lambda: "2\nfar\nC 0 0 0\nC 1e6 0 0\n",
        lambda: "2\nfarther\nC 0 0 0\nC 1e200 -1e308 1e308\n",
        lambda: _grid(100_000, 50, 2.0),
        lambda: _grid(60_000, 40, 0.125),
        lambda: "2000\none point\n" + "C 0 0 0\n" * 2000,
        lambda: "1000000000000\nmany\nC 0 0 0\n",
    )
    path.write_text(one_of(random, texts)())


COLUMNS = "Properties=species:S:1:pos:R:3"
CELL = 'Lattice="5 0 0 0 5 0 0 0 5"'


def comment_lines(random: Random, path: Path) -> None:
    """Comment lines of extended xyz that announce what is not there, and cells that are none."""
    comments = (
        "Properties=species:S:1:pos:R:300000000", "Properties=species:S:1:pos:R:-3", "Properties=species:S:1",
        "Properties=pos:R:3", "Properties=species:S:1:pos:R:three", f"{COLUMNS}:x:L:1",
        "Properties=species:S:1:pos:S:3", "Properties=species:R:1:pos:R:3", "Properties=:::::", "Properties=",
        f'{CELL} pbc="T T T" {COLUMNS} energy=nan',
        *(f'Lattice="{cell}" pbc="T T T"' for cell in (
            "0 0 0 0 0 0 0 0 0", "1e-3 0 0 0 1e-3 0 0 0 1e-3", "nan 0 0 0 5 0 0 0 5", "1e300 0 0 0 1e300 0 0 0 1e300",
            "5 0 0 5 0 0 5 0 0", "1e-2 0 0 0 1e4 0 0 0 1e4", "5 0 0", "5 0 0 5 1e-4 0 0 0 1e5", "1e6 0 0 0 1e6 0 0 0 1",
        )),
        f"{COLUMNS} energy=_JSON[[[", f"{COLUMNS} x=_JSON" + "[" * 50_000, f'{COLUMNS} energy="' + "1 " * 100_000 + '"',
        f'{CELL} pbc="maybe"', f"{COLUMNS} gdb_index=" + "9" * 30, f'{COLUMNS} name="a\\nb"', f"{COLUMNS} gdb_index=-1",
        f"{COLUMNS} energy=inf", f"{COLUMNS}:pos:R:3", f"{COLUMNS}:forces:R:300000",
    )  # fmt: skip
    atom = random.choice(["C 0 0 0", "C nan 0 0", "Xx 0 0 0", "C 1e400 0 0"], p=[0.7, 0.1, 0.1, 0.1])
    path.write_text(f"1\n{one_of(random, comments)}\n{atom}\n")


def sdf_counts(random: Random, path: Path) -> None:
    """Counts of an SDF header, old and new form, that lie."""
    tail, atom = "  0  0  0  0  0            999 V2000\n", "    0.0000    0.0000    0.0000 {:3s} 0  0\n"
    new = "  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS "
    texts = (
        f"999999{tail}", f"  1{tail}", f"  0{tail}M  END\n", f"  2{tail}{atom.format('H') * 2}M  END\n",
        f"  1{tail}       nan       nan       nan C   0  0\nM  END\n", f"  1{tail}{atom.format('Qq')}M  END\n",
        f"  1{tail}{atom.format('*')}M  END\n", f"  1{tail}{atom.format('R#')}M  END\n",
        f"  1  1  0  0  0  0            999 V2000\n{atom.format('H')}  1999  1\nM  END\n",
        f"{new}4000000000 0 0 0 0\n", f"{new}-1 -1 0 0 0\n", f"{new}900000000 0 0 0 0\nM  V30 BEGIN ATOM\n",
    )  # fmt: skip
    path.write_text(f"\n\n\n{one_of(random, texts)}$$$$\n")


def smiles_lines(random: Random, path: Path) -> None:
    """SMILES without end, without meaning, and without a place in space."""
    lines = (
        "C" * 20_000, "C(" * 20_000, "[" * 1000, "C%99", "*", "[999C]", "[C+99]", "[Uuo]", "[Og]", "C1CC", "CCO\x00",
        "C.C.C", "[H][H]", "é", "C" + "1" * 5000, "C~C", "[#0]", "[#119]", "C=C=C=C#C", "[U]", "C" * 400,
        "C1" + "C2" * 10 + "C1" + "C2" * 10, "[2H]O[2H]", "[CH-2]", ">>", "{-}", "|", "CC>>CC", "C12C3C4C1C5C2C3C45",
    )  # fmt: skip
    path.write_text(one_of(random, lines) + "\n")

"""The generator: case n of a seed is a format, a way to harm it, the damaged file and what reads it."""

from __future__ import annotations

import pickle
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hostile_archives import BOMBS, OVERRIDES, PACKERS, TARS, tar_of, yaml_documents
from hostile_arrays import NPZ, SAFETENSORS, Payload, npz, write_npy_folder, zip_of
from hostile_bytes import BYTES, JSON, TEXT, Random, damage_json, of_another
from hostile_crystals import crystal_harms
from hostile_seeds import MOLECULES, Seeds, copy_packed
from hostile_texts import PLACES, comment_lines, geometries, odd_name, one_of, sdf_counts, smiles_lines

from configs.loading import load_config
from data_tools.formats.readers import read_table
from data_tools.graph import StructureTable
from data_tools.graphs import packed_folder
from data_tools.graphs.packed import PackedGraphs, pack
from data_tools.labels.splits import make_split
from experiment.trained import load_trained
from scripts.weights.weight_files import read_weights
from scripts.weights.weight_maps import SOURCES, check_keys, convert
from training import checkpoint
from training.checkpoint import Checkpoint

CUTOFF = 5.0  # Angstrom
Read = Callable[[Path], Any]
Harm = Callable[[Random, Path], Any]


class Case(NamedTuple):
    """One hostile input: ``read`` it and see."""

    format: str
    harm: str
    path: Path
    read: Read


class Format(NamedTuple):
    """A kind of input: its file name, the ways to harm it, and the program's reader of it."""

    name: str
    harms: tuple[Harm, ...]
    read: Read


def read_graphs(path: Path) -> PackedGraphs:
    """As every program does: the table and then its neighbour pairs."""
    return pack(read_table(path), CUTOFF)


def read_split(path: Path) -> Any:
    rows = np.arange(MOLECULES)
    table = StructureTable(np.ones(MOLECULES, int), np.zeros((MOLECULES, 3)), np.ones(MOLECULES, int), rows)
    return make_split("file", table, file=path)


def read_state(path: Path) -> dict[str, np.ndarray]:
    source = SOURCES["pyg-schnet"]
    state = check_keys("pyg-schnet", read_weights(path), path)
    source.sizes(state)
    return convert("pyg-schnet", state)


def read_newest(path: Path) -> Checkpoint:
    return checkpoint.newest(path.parent, lambda words: None)


def read_override(path: Path) -> Any:
    chosen = OVERRIDES[int(path.read_text())]
    return load_config(path.with_name("good.yaml"), [chosen])


def _named(function: Any, name: str) -> Any:
    function.name = name
    return function


def of_bytes(damages: tuple[Callable, ...], data: Any) -> list[Harm]:
    """Harms that turn good content into bad bytes and write them."""

    def write(damage: Callable, random: Random, path: Path) -> None:
        with warnings.catch_warnings():  # zipfile warns of a name that it writes twice
            warnings.simplefilter("ignore")
            path.write_bytes(damage(random, data))

    return [_named(partial(write, damage), damage.__name__) for damage in damages]


def victim_of(random: Random, folder: Path, pattern: str, damages: tuple[Callable, ...]) -> None:
    """One file of a folder is damaged, or something that is no file stands in its place."""
    files = sorted(folder.glob(pattern))
    victim = files[random.integers(len(files))]
    content = victim.read_bytes()
    victim.unlink()
    kind = random.integers(len(PLACES) + 8)
    if kind < len(PLACES):
        PLACES[kind](random, victim)
    else:
        victim.write_bytes(damages[random.integers(len(damages))](random, content))


def archive_format(ending: str, files: dict[str, bytes]) -> Format:
    """A tar archive, harmed inside (and then compressed) or outside."""
    pack = PACKERS[ending]

    def write(one: Callable, random: Random, path: Path) -> None:
        path.write_bytes(pack(one(random, files)))

    bombs = () if ending == "tar" else BOMBS
    inside = [_named(partial(write, one), one.__name__) for one in (*TARS, *bombs)]
    return Format(f"qm9.{ending}", (*inside, *of_bytes(BYTES, pack(tar_of(files))), *PLACES), read_graphs)


def folder_formats(good: Seeds) -> dict[str, Format]:
    """What is several files: a folder of raw files, gdb9.sdf with its table, packed graphs."""

    def raw(random: Random, path: Path) -> None:
        path.mkdir()
        for name, data in good.raw.items():
            (path / name).write_bytes(data)
        victim_of(random, path, "*.xyz", TEXT)

    def beside(random: Random, path: Path) -> None:
        path.write_bytes(good.files["gdb9.sdf"])
        damage = TEXT[random.integers(len(TEXT))]
        path.with_name("gdb9.sdf.csv").write_bytes(damage(random, good.files["gdb9.sdf.csv"]))

    def arrays(random: Random, path: Path) -> None:
        write_npy_folder(random, copy_packed(good, path.parent))

    def files(random: Random, path: Path) -> None:
        victim_of(random, copy_packed(good, path.parent), "*.npy", BYTES)

    def manifest(random: Random, path: Path) -> None:
        file = copy_packed(good, path.parent) / packed_folder.MANIFEST
        file.write_bytes(JSON[random.integers(len(JSON))](random, file.read_bytes()))

    return {
        "raw QM9 folder": Format("raw", (raw,), read_graphs),
        "gdb9.sdf + csv": Format("gdb9.sdf", (beside,), read_graphs),
        "packed arrays": Format("packed", (arrays, arrays, files), packed_folder.load),
        "packed manifest": Format("packed", (manifest,), packed_folder.load),
    }


def checkpoint_harms(good: Seeds) -> tuple[Harm, ...]:
    """Whole files with valid checksums that say something wrong."""

    def description(random: Random, path: Path) -> None:
        checkpoint.save(path, Checkpoint(good.trained, information=damage_json(random, good.information)))

    def parameters(random: Random, path: Path) -> None:
        name = sorted(good.trained)[random.integers(len(good.trained))]
        changed = good.trained | {name: np.full_like(good.trained[name], random.choice([np.nan, np.inf]))}
        checkpoint.save(path, Checkpoint(changed, information=good.information))

    def stranger(random: Random, path: Path) -> None:
        name = one_of(random, ("../evil", "model", "a/b/c", "", "x" * 10_000, "two\nlines"))
        checkpoint.save(path, Checkpoint(good.trained | {name: np.zeros(3)}, information=good.information))

    return description, description, description, parameters, stranger


def database_harms(whole: bytes) -> list[Harm]:
    """One column of one row, or of all, becomes something else; the schema stays."""
    columns = ("numbers", "positions", "pbc", "energy", "forces", "key_value_pairs", "data")
    entry = '{"atomic_forces": {"__ndarray__": [[6, 3], "%s", %s]}}'
    values = (
        None, b"", b"\x00" * 7, b"\xff" * 144, bytes(10_000_000), "", "nan", "{", "[" * 100_000,
        '{"total_energy": 1e999}', '{"total_energy": "low"}', '{"total_energy": ' + "9" * 5000 + "}",
        "[]", 7, -1, 1e308, float("inf"),
        pickle.dumps(Payload()), entry % ("float64", "[0]"), entry % ("object", "0"), entry % ("U9", '["x"]'),
        (8).to_bytes(8, "little") + (entry % ("float64", "1000000000000")).encode(),
        (8).to_bytes(8, "little") + (entry % ("object", "0")).encode(),
        (8).to_bytes(8, "little") + (entry.replace("6", "1e9") % ("float64", "0")).encode(), (2**63).to_bytes(8, "big"),
    )  # fmt: skip

    def column(random: Random, path: Path) -> None:
        path.write_bytes(whole)
        with closing(sqlite3.connect(path)) as database:
            some = "" if random.random() < 0.5 else " WHERE id=2"
            value = one_of(random, values)
            database.execute(f"UPDATE systems SET {one_of(random, columns)}=?{some}", (value,))
            database.commit()

    def schema(random: Random, path: Path) -> None:
        path.write_bytes(whole)
        statements = (
            "DROP TABLE systems", "DELETE FROM systems", "ALTER TABLE systems RENAME COLUMN data TO others",
            "ALTER TABLE systems DROP COLUMN positions", "UPDATE systems SET id=id+9223372036854775000",
        )  # fmt: skip
        with closing(sqlite3.connect(path)) as database:
            database.execute(one_of(random, statements))
            database.commit()

    return [*[_named(column, "column")] * 20, *[_named(schema, "schema")] * 5]


def torch_file(random: Random, path: Path) -> None:
    content = pickle.dumps(Payload(), protocol=2)
    whole = zip_of({"archive/data.pkl": content, "archive/version": b"3\n", "archive/byteorder": b"little"})
    path.write_bytes(one_of(random, (content, whole, BYTES[random.integers(len(BYTES))](random, whole))))


def document(random: Random, path: Path) -> None:
    path.write_bytes(one_of(random, yaml_documents(Payload.marker)).encode("utf-8", "surrogateescape"))


def formats(good: Seeds) -> dict[str, Format]:
    """Every kind of input that the programs read."""
    files, arrays = good.files, good.arrays
    others = of_another([data for data in files.values() if len(data) < 1_000_000])

    def text(name: str, read: Read, *more: Harm, damages: tuple = TEXT) -> Format:
        harms = of_bytes((*damages, others), files[name])
        return Format(name, (*more, *harms, *PLACES, odd_name(files[name])), read)

    def npz_file(name: str, read: Read) -> Format:
        whole = npz(arrays[name])
        harms = of_bytes(NPZ, arrays[name]) + of_bytes((*BYTES, others), whole)
        return Format(name, (*harms, *PLACES, odd_name(whole)), read)

    def safetensors(name: str, read: Read) -> Format:
        return text(name, read, *of_bytes(SAFETENSORS * 2, files[name]), damages=BYTES)

    def override(random: Random, path: Path) -> None:
        path.write_text(str(random.integers(len(OVERRIDES))))
        path.with_name("good.yaml").write_bytes(files["config.yaml"])

    published = {name: files[name] for name in ("gdb9.sdf", "gdb9.sdf.csv")}
    return (
        folder_formats(good)
        | {
            "raw QM9 xyz": text(sorted(good.raw)[2], read_graphs),
            "tar.bz2": archive_format("tar.bz2", good.raw),
            "tar.gz": archive_format("tar.gz", published),
            "tar": archive_format("tar", good.raw),
            "npz": npz_file("molecules.npz", read_graphs),
            "rMD17 npz": npz_file("rmd17.npz", read_graphs),
            "MD17 npz": npz_file("md17.npz", read_graphs),
            "ASE database": text("iso17.db", read_graphs, *database_harms(files["iso17.db"]), damages=BYTES),
            "xyz": text("molecules.xyz", read_graphs, *[geometries] * 8),
            "extended xyz": text("molecules.extxyz", read_graphs, *[comment_lines] * 15),
            "sdf": text("gdb9.sdf", read_graphs, *[sdf_counts] * 10),
            "smiles": text("molecules.smi", read_graphs, *[smiles_lines] * 10),
            "split npz": npz_file("split.npz", read_split),
            "split csv": text("split.csv", read_split),
            "config": text("config.yaml", load_config, *[_named(document, "document")] * 25),
            "override": Format("override", (override,), read_override),
            "checkpoint": safetensors("best.safetensors", load_trained),
            "checkpoint contents": Format("best.safetensors", checkpoint_harms(good), load_trained),
            "resume": safetensors("last.safetensors", read_newest),
            "weights npz": npz_file("weights.npz", read_state),
            "weights safetensors": safetensors("weights.safetensors", read_state),
            "weights pt": Format("weights.pt", (*[torch_file] * 3, *PLACES), read_state),
        }
        | {name: Format(*one) for name, one in crystal_harms(good.packed.parent / "crystals").items()}
    )


def make_case(table: dict[str, Format], seed: int, number: int, place: Path) -> Case:
    """Write case ``number`` of ``seed`` into the empty folder ``place``; the same two numbers make the same case."""
    names = list(table)
    name, turn = names[number % len(names)], number // len(names)
    kind = table[name]
    harm = kind.harms[turn % len(kind.harms)]
    path = harm(np.random.default_rng([seed, number]), place / kind.name) or place / kind.name
    return Case(name, getattr(harm, "name", getattr(harm, "__name__", "?")), path, kind.read)

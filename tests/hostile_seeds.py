"""Good files of every format, made from shipped molecules: what the generator of hostile input damages."""

from __future__ import annotations

import dataclasses
import io
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import ase.build
import ase.db
import numpy as np
from published_files import RAW_FILES, write_gdb9
from safetensors.numpy import save
from tiny_runs import LIGHT, MINI, write_molecules

from configs.loading import load_config
from configs.writing import config_to_dict
from data_tools.formats.md17 import SAMPLE_TRAIN
from data_tools.formats.readers import read_table
from data_tools.graph import ForceConstants, StructureTable
from data_tools.graphs.packed import pack
from data_tools.graphs.packed_folder import save as save_packed
from data_tools.labels.statistics import Normalizer
from data_tools.tables import ELEMENTS
from experiment.data import resolve_task
from experiment.model import build
from experiment.resolve import with_names
from training import checkpoint
from training.checkpoint import Checkpoint
from training.weights import parameters_of

MOLECULES = 12
GOLDEN = Path(__file__).parent / "golden" / "schnet_pyg_lite.npz"
SMILES = b"CCO ethanol\nO water\nC#N\n"


@dataclasses.dataclass(frozen=True)
class Seeds:
    """Good content: bytes by file name, arrays of the npz files, two folders.

    Attributes:
        files: whole files.
        raw: the dsgdb9nsd_*.xyz files.
        arrays: of ``molecules.npz``, ``rmd17.npz``, ``md17.npz``, ``split.npz`` and ``weights.npz``.
        packed: a packed graph folder.
        information: what the checkpoint says about itself.
        trained: its parameters.
    """

    files: dict[str, bytes]
    raw: dict[str, bytes]
    arrays: dict[str, dict[str, np.ndarray]]
    packed: Path
    information: dict[str, Any]
    trained: dict[str, np.ndarray]


@cache
def seeds(folder: Path) -> Seeds:
    """Make them once, in ``folder``."""
    molecules = write_molecules(folder / "molecules.npz", range(0, 1200, 100))
    sdf, labels = write_gdb9(folder, RAW_FILES)
    table = read_table(molecules)
    save_packed(pack(with_everything(table), 5.0), folder / "packed")
    raw = {path.name: path.read_bytes() for path in RAW_FILES}
    plain, extended = xyz_of(table)
    state = {key[3:]: value for key, value in np.load(GOLDEN).items() if key.startswith("sd/")}
    information, trained = a_checkpoint(folder / "best.safetensors")
    frames = dict(np.load(SAMPLE_TRAIN))
    positions = np.random.default_rng(0).permutation(MOLECULES)
    rows = "".join(f"{place},{'train' if row < 8 else 'valid'}\n" for row, place in enumerate(positions))
    files = {
        "molecules.npz": molecules.read_bytes(),
        "iso17.db": a_database(folder / "iso17.db"),
        "gdb9.sdf": sdf.read_bytes(),
        "gdb9.sdf.csv": labels.read_bytes(),
        "molecules.xyz": plain,
        "molecules.extxyz": extended,
        "molecules.smi": SMILES,
        "split.csv": b"position,split\n" + rows.encode(),
        "config.yaml": MINI.read_bytes(),
        "best.safetensors": (folder / "best.safetensors").read_bytes(),
        "weights.safetensors": save({key: np.ascontiguousarray(value) for key, value in state.items()}),
    } | raw
    files["last.safetensors"] = files["best.safetensors"]
    arrays = {
        "molecules.npz": dict(np.load(molecules)),
        "rmd17.npz": {name: array[:4] if array.ndim and len(array) > 9 else array for name, array in frames.items()},
        "md17.npz": md17_of(frames),
        "weights.npz": {f"sd/{key}": value for key, value in state.items()},
        "split.npz": {
            "train": positions[:8], "valid": positions[8:10], "test": positions[10:], "name": np.array("mine")
        },
    }  # fmt: skip
    return Seeds(files, raw, arrays, folder / "packed", information, trained)


def with_everything(table: StructureTable) -> StructureTable:
    """The same structures, the first one a crystal with force constants, and with labels of their atoms."""
    atoms, sizes = len(table.numbers), table.n_atoms.tolist()
    random, primitive = np.random.default_rng(3), np.zeros(len(table), np.int64)
    primitive[[0, 5]] = 2, 1
    s2p = np.full(atoms, -1)
    s2p[: sizes[0]] = np.arange(sizes[0]) % 2
    s2p[sum(sizes[:5]) : sum(sizes[:6])] = 0
    constants = ForceConstants(
        blocks=random.normal(size=(2 * sizes[0] + sizes[5], 3, 3)),
        n_primitive=primitive,
        p2s=np.array([0, 1, 0]),
        s2p=s2p,
        masses=random.uniform(1, 20, atoms),
        primitive_cells=np.tile(9 * np.eye(3), (len(table), 1, 1)),
        born=random.normal(size=(3, 3, 3)),
        dielectric=random.normal(size=(len(table), 3, 3)),
        space_groups=np.ones(len(table), np.int64),
        lowest_frequencies=random.normal(size=(len(table), 2)),
    )
    cells = np.zeros((len(table), 3, 3))
    cells[0] = 9 * np.eye(3)
    of_atoms = {"forces": random.normal(size=(atoms, 3))}
    return dataclasses.replace(table, of_atoms=of_atoms, force_constants=constants, cells=cells)


def xyz_of(table: Any) -> tuple[bytes, bytes]:
    """The first three molecules as plain and as extended xyz."""
    plain, extended = io.StringIO(), io.StringIO()
    for row, start in enumerate(np.cumsum(table.n_atoms)[:3] - table.n_atoms[:3]):
        atoms = range(start, start + table.n_atoms[row])
        print(len(atoms), f"molecule {row}", sep="\n", file=plain)
        cell = 'Lattice="9 0 0 0 9 0 0 0 9" pbc="T T T" ' if row else ""
        print(len(atoms), f"{cell}Properties=species:S:1:pos:R:3 energy=-1.5 name=m{row}", sep="\n", file=extended)
        for atom in atoms:
            line = f"{ELEMENTS[table.numbers[atom] - 1]} " + " ".join(f"{x:.6f}" for x in table.positions[atom])
            print(line, file=plain)
            print(line, file=extended)
    return plain.getvalue().encode(), extended.getvalue().encode()


def md17_of(frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first frames of rMD17 under the names of MD17."""
    return {
        "z": frames["nuclear_charges"],
        "R": frames["coords"][:4],
        "E": frames["energies"][:4, None],
        "F": frames["forces"][:4],
        "e_unit": np.array("kcal/mol"),
        "theory": np.array("PBE"),
    }


def a_database(path: Path) -> bytes:
    """A few molecules as ISO17 has them, without the indices of ASE, which nobody reads here."""
    with ase.db.connect(path, create_indices=False) as database:
        for name in ("CH3OH", "CH4", "H2O"):
            atoms = ase.build.molecule(name)
            forces = np.random.default_rng(0).normal(size=atoms.positions.shape)
            database.write(atoms, total_energy=-1.5, data={"atomic_forces": forces})
    return path.read_bytes()


def a_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """An untrained model as a run writes it; returns its description and its parameters."""
    config = load_config(MINI, [(key, str(value)) for key, value in LIGHT.items()])
    task = resolve_task(config)
    weights = parameters_of(build(with_names(config, task), task))
    information = {
        "config": config_to_dict(config),
        "task": task.to_dict(),
        "normalizer": Normalizer(1.2, 6.8, False, False, np.zeros(119)).to_dict(),
        "elements": [1, 6, 7, 8],
        "progress": {"epoch": 1, "step": 2, "history": [{"epoch": 1, "lr": 1e-4}]},
    }
    checkpoint.save(path, Checkpoint(weights, information=information))
    return information, weights


def copy_packed(good: Seeds, folder: Path) -> Path:
    """A packed folder of its own to damage."""
    return Path(shutil.copytree(good.packed, folder / "packed"))

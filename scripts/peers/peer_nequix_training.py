"""Train nequix on force constants from random weights, and predict force constants of materials it has not seen.

    JAX_PLATFORMS=cpu PEER/bin/python scripts/peers/peer_nequix_training.py --data runs/train.npz \
        --peers results/force_constants/peers.json --output runs/nequix --minutes 6

The other side of ``scripts/benchmarks/beside_nequix.py``; needs nequix (requirements-parity.txt).  The network has the
irreps, degree, layers and cutoff of ``peer_nequix.py`` and otherwise the settings that its authors publish for training
from random weights, the loss is theirs for force constants (``nequix.pft.train.loss``) with their weights: no energies,
forces and stress of 0, one random column of each crystal.  A few steps say what a step takes, then as many follow as
fit into --minutes of CPU time; compilation and neighbour lists do not count.  In --output are weights.npz, with what
the training took as JSON in ``about``, and for each material of --peers NAME.npz with the compact force constants
``blocks`` (p, n, 3, 3) in eV/Angstrom^2.  What is there is not done again.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("nequix", "jax", "numpy", "ase"), "requirements-parity.txt")

import equinox
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from ase import Atoms
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import Nequix, weight_decay_mask
from nequix.pft.train import loss

from data_tools.crystals import Crystal, crystal_of
from data_tools.formats.crystal_file import read_crystal_file
from data_tools.labels.splits import load_split
from scripts.help_defaults import Defaults
from scripts.peers.peer_nequix import CUTOFF, DEGREE, IRREPS, LAYERS
from training.files import replacing

#: of nequix-mp-1.yml, for training from random weights; its irreps, lmax, cutoff and n_layers are not taken
PUBLISHED_MODEL = {
    "radial_basis_size": 8, "radial_mlp_size": 64, "radial_mlp_layers": 2, "radial_polynomial_p": 6.0,
    "mlp_init_scale": 4.0, "index_weights": False, "layer_norm": True,
}  # fmt: skip
#: of nequix-mp-1-pft.yml
PUBLISHED_LOSS = {"energy_weight": 0.0, "force_weight": 20.0, "stress_weight": 5.0, "hessian_weight": 100.0}
CLIP, DECAY, EMA = 100.0, 1e-3, 0.999
WARMUP, START = 50, 0.2  # steps, and the first learning rate over the highest
ROOM, EPOCHS = 1.1, 10  # of batches, over the average of so many crystals; the most that are prepared
SHAPES, WARM, TIMED, AT_ONCE = 3, 3, 13, 6  # shapes of Hessians; first and last trial step; columns at once
REPORTED = 25  # steps
WEIGHTS = "weights.npz"
FAR = 2 * CUTOFF  # Angstrom: length of the edges of padding


class Shape(NamedTuple):
    """Nodes and edges of a padded batch."""

    nodes: int
    edges: int


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="file of fold_crystals.py, its split beside it")
    parser.add_argument("--peers", type=Path, required=True, help="JSON that names the materials to predict")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--minutes", type=float, default=6.0, help="of CPU time of the steps")
    parser.add_argument("--batch_size", type=int, default=4, help="crystals in a step, about")
    parser.add_argument("--optimizer", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--learning_rate", type=float, default=0.01, help="highest; half a cosine to 0 follows")
    parser.add_argument("--seed", type=int, default=0, help="of weights and columns")
    parser.add_argument("--only_train", action="store_true", help="predict no force constants")
    return parser.parse_args()


def graph_of(crystal: Crystal, indices: dict[int, int]) -> Any:
    """A crystal as nequix trains on it, with energy, forces and stress of 0 and no column yet."""
    cell = crystal.supercell
    atoms = Atoms(cell.numbers, cell.positions, cell=cell.cell, pbc=True)
    arrays = preprocess_graph(atoms, indices, CUTOFF, False)
    arrays |= {"energy": np.zeros(1, np.float32), "forces": np.zeros((len(atoms), 3), np.float32)}
    return dict_to_graphstuple(arrays | {"stress": np.zeros((3, 3), np.float32)})


def with_column(graph: Any, crystal: Crystal, atom: int, axis: int) -> Any:
    """A graph with the column of the force constants of an atom of the primitive cell along an axis."""
    probe = np.zeros((crystal.n_atoms, 3), np.float32)
    probe[crystal.p2s[atom], axis] = 1
    column = crystal.blocks[atom, :, axis].astype(np.float32)  # (n, 3): Phi_ij^ab = Phi_ji^ba
    return graph._replace(nodes=graph.nodes | {"vs": probe, "hessian_col": column})


def padded(graphs: Sequence[Any], shape: Shape, count: int) -> Any:
    """One batch of a static shape; edges of padding are longer than the cutoff, so that no root of 0 is derived."""
    batch = jraph.pad_with_graphs(jraph.batch_np(graphs), shape.nodes, shape.edges, count)
    real = sum(int(graph.n_edge[0]) for graph in graphs)
    batch.edges["shifts"][real:] = (1, 0, 0)
    batch.globals["cell"][len(graphs) :] = FAR * np.eye(3, dtype=np.float32)
    return batch


def shapes_of(sizes: np.ndarray, count: int) -> tuple[list[Shape], np.ndarray]:
    """Static shapes of batches of (K, 2) nodes and edges, equally many batches in each; the shape of each batch."""
    parts = np.array_split(np.argsort(sizes[:, 1], kind="stable"), count)
    chosen = np.empty(len(sizes), int)
    for place, part in enumerate(parts):
        chosen[part] = place
    most = [sizes[part].max(axis=0).tolist() for part in parts]
    return [Shape(nodes + 1, edges + 1) for nodes, edges in most], chosen


class Data(NamedTuple):
    """Crystals with their graphs."""

    crystals: list[Crystal]
    graphs: list[Any]

    @classmethod
    def of(cls, table: Any, rows: Sequence[int] | np.ndarray, indices: dict[int, int]) -> Data:
        """Rows of a table."""
        crystals = [crystal_of(table, int(row)) for row in rows]
        return cls(crystals, [graph_of(crystal, indices) for crystal in crystals])

    @property
    def sizes(self) -> np.ndarray:
        """(K, 2) nodes and edges."""
        return np.array([(int(graph.n_node[0]), int(graph.n_edge[0])) for graph in self.graphs])


class Batches:
    """Batches of one static shape, filled as nequix fills its own, with a random column of each crystal.

    Args:
        data: training crystals.
        size: crystals in a batch on average, about.
        epochs: how often each crystal comes.
        seed: of order and columns.

    Attributes:
        shape: as many nodes and edges as ``size`` crystals have and a tenth more, or the largest crystal.
        rows: crystals of each batch.
    """

    def __init__(self, data: Data, size: int, epochs: int, seed: int):
        self.data, self.rng = data, np.random.default_rng(seed)
        sizes, self.most = data.sizes, 2 * size
        nodes, edges = np.ceil(np.maximum(ROOM * size * sizes.mean(axis=0), sizes.max(axis=0))).astype(int).tolist()
        self.shape = Shape(nodes + 1, edges)
        self.rows: list[list[int]] = [[]]
        used = np.zeros(2, int)
        for row in np.concatenate([self.rng.permutation(len(sizes)) for _ in range(epochs)]).tolist():
            if len(self.rows[-1]) == self.most or (used + sizes[row] > (nodes, edges)).any():
                self.rows.append([])
                used = np.zeros(2, int)
            self.rows[-1].append(row)
            used = used + sizes[row]

    def __call__(self, step: int) -> Any:
        """The batch of a step."""
        graphs = []
        for row in self.rows[step]:
            crystal = self.data.crystals[row]
            atom, axis = int(self.rng.integers(crystal.n_primitive)), int(self.rng.integers(3))
            graphs.append(with_column(self.data.graphs[row], crystal, atom, axis))
        return padded(graphs, self.shape, self.most + 1)


def optimizer_of(name: str, model: Nequix) -> Any:
    """As nequix makes it, with a learning rate of 1: steps multiply what it returns with theirs."""
    mask = weight_decay_mask(model)
    if name == "muon":
        update = optax.contrib.muon(1.0, weight_decay=DECAY, weight_decay_mask=mask)
    else:
        update = optax.adamw(1.0, weight_decay=DECAY, mask=mask)
    return optax.chain(optax.clip_by_global_norm(CLIP), update)


def step_of(optimizer: Any) -> Callable[..., tuple]:
    """A compiled step of nequix's own training, with its average of the weights.

    Takes (model, average, moments), the number of earlier steps, the learning rate and a batch; returns the first three
    and the mean absolute error of the columns, eV/Angstrom^2.
    """

    @equinox.filter_jit
    def step(state: tuple, count: Any, rate: Any, batch: Any) -> tuple:
        model, average, moments = state
        (_, terms), slopes = equinox.filter_value_and_grad(loss, has_aux=True)(model, batch, **PUBLISHED_LOSS)
        updates, moments = optimizer.update(slopes, moments, equinox.filter(model, equinox.is_array))
        model = equinox.apply_updates(model, jax.tree.map(lambda update: rate * update, updates))
        kept = jnp.minimum(EMA, (1 + count) / (10 + count))
        old, rest = equinox.partition(average, equinox.is_array)
        new = jax.tree.map(lambda a, b: a * kept + b * (1 - kept), old, equinox.filter(model, equinox.is_array))
        return (model, equinox.combine(new, rest), moments), terms["hessian_mae_per_atom"]

    return step


def trained(options: argparse.Namespace, model: Nequix, data: Data) -> tuple[Nequix, dict[str, Any]]:
    """Weights after --minutes, and what they took."""
    batches, optimizer = Batches(data, options.batch_size, EPOCHS, options.seed), optimizer_of(options.optimizer, model)
    step, first = step_of(optimizer), (model, model, optimizer.init(equinox.filter(model, equinox.is_array)))
    started = time.process_time()
    trial, nothing = first, jnp.asarray(np.float32(0))
    for number in range(TIMED):
        if number == WARM:  # it has compiled, for the first state and for later ones, whose types may differ
            compiling, before = time.process_time() - started, time.process_time()
        trial, error = step(trial, jnp.asarray(np.int32(number)), nothing, batches(number))
        jax.block_until_ready(error)
    seconds = (time.process_time() - before) / (TIMED - WARM)
    say(f"compiled in {compiling:.0f} CPU s: {batches.shape}, {seconds:.3f} CPU s a step")
    steps = min(round(60 * options.minutes / seconds), len(batches.rows))
    peak, warmup = options.learning_rate, min(WARMUP, steps // 4)
    rate = optax.warmup_cosine_decay_schedule(START * peak, peak, warmup, steps, 0.0)
    rates, state, errors = np.asarray(rate(np.arange(steps)), np.float32), first, []
    cpu, wall = time.process_time(), time.monotonic()
    for number in range(steps):
        state, error = step(state, jnp.asarray(np.int32(number)), jnp.asarray(rates[number]), batches(number))
        errors.append(float(error))
        if (number + 1) % REPORTED == 0:
            used = time.process_time() - cpu
            say(f"step {number + 1:,} of {steps:,}: {np.mean(errors[-REPORTED:]):.4f} eV/A^2, {used:.0f} CPU s")
    about = {"steps": steps, "cpu_seconds": time.process_time() - cpu, "wall_seconds": time.monotonic() - wall}
    crystals = sum(map(len, batches.rows[:steps]))
    about |= {"compilation_cpu_seconds": compiling, "shape": batches.shape, "crystals": crystals}
    return state[1], about | {"last_train_mae": float(np.mean(errors[-REPORTED:]))}


def products_of(model: Nequix) -> Callable[[Any, jax.Array], jax.Array]:
    """A compiled function of a graph and fields (K, n, 3) to products with the second derivatives, eV/Angstrom^2."""

    @jax.jit
    def products(graph: Any, fields: jax.Array) -> jax.Array:
        cells = jnp.repeat(graph.globals["cell"], graph.n_edge, axis=0, total_repeat_length=len(graph.senders))
        offsets = jnp.einsum("ij,ijk->ik", graph.edges["shifts"], cells)

        def energy(positions: jax.Array) -> jax.Array:
            vectors = positions[graph.senders] - positions[graph.receivers] + offsets
            return model.node_energies(vectors, graph.nodes["species"], graph.senders, graph.receivers).sum()

        _, product = jax.linearize(jax.grad(energy), graph.nodes["positions"])
        return jax.lax.map(product, fields)

    return products


def predicted(model: Nequix, data: Data, columns: int | None = None) -> Iterator[np.ndarray]:
    """Compact force constants (p, n, 3, 3) of every crystal, or the first so many columns of each (K, n, 3)."""
    products, at_once = products_of(model), columns or AT_ONCE
    shapes, chosen = shapes_of(data.sizes, SHAPES)
    for crystal, graph, place in zip(data.crystals, data.graphs, chosen, strict=True):
        shape, count = shapes[place], columns or 3 * crystal.n_primitive
        batch = padded([graph], shape, 2)
        fields = np.zeros((-(-count // at_once) * at_once, shape.nodes, 3), np.float32)
        number = np.arange(count)
        fields[number, crystal.p2s[number // 3], number % 3] = 1
        found = [products(batch, fields[start : start + at_once]) for start in range(0, count, at_once)]
        rows = np.concatenate(found)[:count, : crystal.n_atoms].astype(np.float64)
        yield rows if columns else rows.reshape(-1, 3, crystal.n_atoms, 3).transpose(0, 2, 1, 3)


def validated(model: Nequix, data: Data) -> float:
    """Mean over crystals of the mean absolute error of three columns, eV/Angstrom^2."""
    errors = [
        np.abs(rows - crystal.blocks[0].transpose(1, 0, 2)).mean()
        for crystal, rows in zip(data.crystals, predicted(model, data, 3), strict=True)
    ]
    return float(np.mean(errors))


say = functools.partial(print, file=sys.stderr, flush=True)


def model_of(options: argparse.Namespace, species: int, degree: float) -> Nequix:
    """The network with random weights."""
    return Nequix(
        jax.random.key(options.seed), species, lmax=DEGREE, cutoff=CUTOFF, hidden_irreps=IRREPS, n_layers=LAYERS,
        avg_n_neighbors=degree, **PUBLISHED_MODEL,
    )  # fmt: skip


def save(path: Path, **arrays: np.ndarray) -> None:
    """An .npz file, there whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def train(options: argparse.Namespace, table: Any, indices: dict[int, int]) -> None:
    """Train and validate, unless that is done."""
    if (options.output / WEIGHTS).exists():
        return
    split = load_split(options.data.with_name(f"{options.data.stem}_split.npz"))
    data, valid = (Data.of(table, rows, indices) for rows in (split.train, split.valid))
    degree = float((data.sizes[:, 1] / data.sizes[:, 0]).mean())
    model, about = trained(options, model_of(options, len(indices), degree), data)
    leaves = jax.tree.leaves(equinox.filter(model, equinox.is_array))
    about |= {"parameters": sum(leaf.size for leaf in leaves), "valid_mae": validated(model, valid), "degree": degree}
    about |= {"optimizer": options.optimizer, "learning_rate": options.learning_rate, "batch_size": options.batch_size}
    say(json.dumps(about))
    packages = ("nequix", "jax", "equinox", "optax", "e3nn-jax")
    about["versions"] = {name: metadata.version(name) for name in packages}
    arrays = {f"leaf_{place}": np.asarray(leaf) for place, leaf in enumerate(leaves)}
    save(options.output / WEIGHTS, **arrays, about=np.array(json.dumps(about)))


def predict(options: argparse.Namespace, table: Any, indices: dict[int, int]) -> None:
    """Force constants of the materials that have none yet."""
    with np.load(options.output / WEIGHTS) as arrays:
        about = json.loads(str(arrays["about"]))
        blank = model_of(options, len(indices), about["degree"])
        trainable, rest = equinox.partition(blank, equinox.is_array)
        leaves = [jnp.asarray(arrays[f"leaf_{place}"]) for place in range(len(jax.tree.leaves(trainable)))]
    model = equinox.combine(jax.tree.unflatten(jax.tree.structure(trainable), leaves), rest)
    names = json.loads(options.peers.read_text(encoding="utf-8"))["materials"]
    place = {name: row for row, name in enumerate(table.names)}
    if not (missing := [name for name in names if not (options.output / f"{name}.npz").exists()]):
        return
    data, started = Data.of(table, [place[name] for name in missing], indices), time.process_time()
    for number, (name, blocks) in enumerate(zip(missing, predicted(model, data), strict=True), 1):
        save(options.output / f"{name}.npz", blocks=blocks, cpu_seconds=np.array(time.process_time() - started))
        say(f"{name}, {number} of {len(missing)}: {time.process_time() - started:.1f} CPU s")
        started = time.process_time()


def main() -> None:
    """Train, predict, write."""
    options = parse()
    table = read_crystal_file(options.data).table
    indices = atomic_numbers_to_indices(sorted(set(table.numbers.tolist())))
    options.output.mkdir(parents=True, exist_ok=True)
    train(options, table, indices)
    if not options.only_train:
        predict(options, table, indices)


if __name__ == "__main__":
    main()

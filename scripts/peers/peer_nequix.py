"""Time steps of nequix on a column of a Hessian, or its energies and forces, on request.

The other side of ``benchmark_columns.py``; needs nequix (requirements-parity.txt).  ``go K`` on standard input is
answered by one JSON list of K seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from experiment.startup import begin

if __name__ == "__main__":
    begin(("nequix", "jax", "numpy", "ase"), "requirements-parity.txt")

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ase import Atoms
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import Nequix
from nequix.pft.data import add_hessian_col_to_graph
from nequix.pft.train import loss

from scripts.benchmarks.timed_steps import answer, timed
from scripts.help_defaults import Defaults

IRREPS, DEGREE, LAYERS, CUTOFF = "64x0e+32x1o+16x2e", 2, 3, 5.0


def graph_of(path: Path) -> tuple[object, int]:
    """The graph of a structure with a column of zeros, as nequix trains on it, and the number of its elements."""
    with np.load(path) as arrays:
        atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=True)
    elements = sorted(set(atoms.numbers.tolist()))
    arrays = preprocess_graph(atoms, atomic_numbers_to_indices(elements), CUTOFF, False)
    count = len(atoms)
    arrays |= {"energy": np.zeros(1, np.float32), "forces": np.zeros((count, 3), np.float32)}
    arrays |= {"stress": np.zeros((3, 3), np.float32)}
    graph = add_hessian_col_to_graph(dict_to_graphstuple(arrays), np.zeros((3 * count, 3 * count), np.float32), 0)
    return jax.tree.map(jnp.asarray, graph), len(elements)


def call_of(kind: str, model: Nequix, graph: object) -> Callable[[], object]:
    """What is timed: a whole train step, or energies and forces."""
    if kind == "forces":
        evaluate = equinox.filter_jit(lambda one, given: one(given))
        return lambda: jax.block_until_ready(evaluate(model, graph))
    optimizer = optax.chain(optax.clip_by_global_norm(100.0), optax.adamw(1e-4))
    state = [model, optimizer.init(equinox.filter(model, equinox.is_array))]

    @equinox.filter_jit
    def step(one: Nequix, moments: object, given: object) -> tuple:
        (value, _), slopes = equinox.filter_value_and_grad(loss, has_aux=True)(one, given)
        updates, moments = optimizer.update(slopes, moments, equinox.filter(one, equinox.is_array))
        return equinox.apply_updates(one, updates), moments, value

    def train() -> object:
        state[0], state[1], value = step(*state, graph)
        return jax.block_until_ready(value)

    return train


def main() -> None:
    """Serve timed calls until standard input ends."""
    parser = argparse.ArgumentParser(formatter_class=Defaults, description="Steps and forces of nequix.")
    parser.add_argument("--structure", type=Path, required=True, help=".npz with numbers, positions, cell")
    parser.add_argument("--kind", choices=("column", "forces"), default="column")
    options = parser.parse_args()
    graph, elements = graph_of(options.structure)
    degree = float(len(graph.senders) / len(graph.nodes["species"]))  # type: ignore[attr-defined]
    model = Nequix(
        jax.random.key(0), elements, lmax=DEGREE, cutoff=CUTOFF, hidden_irreps=IRREPS, n_layers=LAYERS,
        avg_n_neighbors=degree, layer_norm=True,
    )  # fmt: skip
    call = call_of(options.kind, model, graph)
    started = time.perf_counter()
    call()
    sizes = sum(part.size for part in jax.tree.leaves(equinox.filter(model, equinox.is_array)))
    about = {"parameters": sizes, "first": time.perf_counter() - started}
    print(json.dumps(about), file=sys.stderr, flush=True)
    answer(lambda count: timed(call, count))


if __name__ == "__main__":
    main()

"""Force constants that a model predicts: all rows of the primitive atoms, or the errors of a few columns."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, nn

from data_tools.graph import GraphBatch, Labels
from data_tools.graphs.batching import balanced_chunks
from data_tools.graphs.loader import evaluation_budget, fitted_batch
from data_tools.graphs.packed import PackedGraphs
from data_tools.labels.force_constant_probes import ForceConstantProbes
from data_tools.labels.statistics import Normalizer
from data_tools.tables import cell_volumes
from experiment.data import DTYPES
from experiment.evaluation.evaluator import Predictions
from physics.derivatives import Compiled, HessianProduct, has_energy, observables
from physics.hessian import exact_rows
from training.distributed import Ranks
from training.objective import OBSERVED
from training.step import to_tensors

PRODUCT, FORCES, STRESS = "hessian_product", "forces", "stress"
DRAWS = 4  # columns of each structure that validation looks at
SEED = 20180417  # of these columns, whatever the seed of the run is


class ColumnErrors(NamedTuple):
    """Sums over the components of K structures, of columns, forces and stress in their units.

    Attributes:
        columns: (K,) float64 absolute errors of the columns.
        forces: (K,) absolute values of the forces; 0 of a model without energies.
        components: (K,) how many these two sums are taken over.
        stress: (K,) absolute values of the nine components of the stress; 0 where it is not computed.
        asymmetry: (K,) the largest |v . Phi u - u . Phi v| of two of the columns u and v.
    """

    columns: np.ndarray
    forces: np.ndarray
    components: np.ndarray
    stress: np.ndarray
    asymmetry: np.ndarray


class ProbeEvaluator:
    """Products of a model's second derivatives with probes, in eV/Angstrom^2.

    Args:
        model: the network.
        packed: graphs with the model's cutoff, and triplets if it uses them; their table has force constants.
        sets: the rows that columns will be asked for, which share one static shape.
        normalizer: takes outputs to energies.
        batch_size: the most structures in a batch of columns.
        dtype: float32 or float64.
        ranks: processes that share the work; all of them get the result.
        with_stress: whether the stress is computed too, of a model with energies.

    Attributes:
        quantities: what is observed; a model without energies has no forces.
    """

    def __init__(
        self,
        model: nn.Cell,
        packed: PackedGraphs,
        sets: list[np.ndarray],
        normalizer: Normalizer,
        batch_size: int,
        dtype: str,
        ranks: Ranks = Ranks(),  # noqa: B008  a frozen constant
        with_stress: bool = False,
    ):
        self.packed, self.normalizer, self.batch_size, self.dtype = packed, normalizer, batch_size, DTYPES[dtype]
        self.ranks = ranks
        derived = () if not has_energy(model) else (FORCES, STRESS) if with_stress else (FORCES,)
        self.quantities = (PRODUCT, *derived)
        self.step = Compiled(model, observables(model, [OBSERVED[name] for name in self.quantities]))
        self.product = HessianProduct(model)
        self.budget = evaluation_budget(packed, sets, batch_size)
        constants = packed.table.force_constants
        assert constants is not None
        self.constants = constants
        self.published = ForceConstantProbes(packed, constants, SEED)
        self.volumes = cell_volumes(packed.table)  # what has force constants is a crystal
        ends = np.cumsum(constants.n_primitive)
        self.p2s = np.split(np.asarray(constants.p2s), ends[:-1])

    def compile(self) -> None:
        """Compile the products of columns, or find out that they cannot be compiled."""
        nothing = np.zeros(0, np.int64)
        self._observe(self._batch(nothing, self.published(nothing)))

    def _batch(self, rows: np.ndarray, labels: Labels) -> GraphBatch:
        return fitted_batch(self.packed, rows, [self.budget], labels, self.dtype)

    def _observe(self, batch: GraphBatch) -> list[np.ndarray]:
        """The ``quantities`` of a batch of columns, float64 in their units: (N, 3), of a virial (G, 3, 3)."""
        values = self.step(*to_tensors(batch.inputs), Tensor.from_numpy(batch.probes))
        return [value.asnumpy().astype(np.float64) * self.normalizer.scale for value in values]

    def errors(self, rows: np.ndarray) -> ColumnErrors:
        """The errors of ``DRAWS`` columns of each of the structures ``rows`` (K,), always the same columns."""
        sums = np.zeros((len(rows), 4))
        chunks = balanced_chunks(np.arange(len(rows)), self.packed.costs[rows], self.batch_size)
        for places in chunks[self.ranks.rank :: self.ranks.size]:
            sizes, pairs = self.packed.table.n_atoms[rows[places]], []
            starts = np.cumsum(sizes) - sizes
            for draw in range(DRAWS):
                labels = self.published(rows[places], draw)
                product, *others = self._observe(self._batch(rows[places], labels))
                target = labels.of_nodes[PRODUCT]
                product, derived = product[: len(target)], dict(zip(self.quantities[1:], others, strict=True))
                sums[places, 0] += np.add.reduceat(np.abs(product - target).sum(axis=1), starts)
                if FORCES in derived:
                    sums[places, 1] += np.add.reduceat(np.abs(derived[FORCES][: len(target)]).sum(axis=1), starts)
                if STRESS in derived:
                    virials = np.abs(derived[STRESS][: len(places)]).sum(axis=(1, 2))
                    sums[places, 2] = virials / self.volumes[rows[places]]
                pairs.append((labels.probes, product))
            for (u, of_u), (v, of_v) in itertools.combinations(pairs, 2):
                difference = np.abs(np.add.reduceat((v * of_u - u * of_v).sum(axis=1), starts))
                sums[places, 3] = np.maximum(sums[places, 3], difference)
        sums = self.ranks.sum(sums)
        return ColumnErrors(sums[:, 0], sums[:, 1], 3 * DRAWS * self.packed.table.n_atoms[rows], sums[:, 2], sums[:, 3])

    def __call__(self, rows: np.ndarray) -> Predictions:
        """The force constants of the structures ``rows``, whose ``values`` are their root mean squares."""
        own = rows[self.ranks.rank :: self.ranks.size]
        atoms: list[list[int]] = [[]] * len(self.packed)
        for row in own.tolist():
            atoms[row] = self.p2s[row].tolist()
        stream = exact_rows(
            self.product, self.packed, self.packed.cutoff, self.dtype, atoms, progress=self.ranks.is_main
        )
        found = stream.arrays()
        sizes = self.packed.table.n_atoms[rows] * self.constants.n_primitive[rows]
        starts = np.cumsum(sizes) - sizes
        flat = np.zeros((int(sizes.sum()), 3, 3), self.dtype)
        for place in range(self.ranks.rank, len(rows), self.ranks.size):
            array = found[rows[place]]  # (p, 3, n, 3)
            flat[starts[place] : starts[place] + sizes[place]] = array.transpose(0, 2, 1, 3).reshape(-1, 3, 3)
        flat = self.ranks.sum(flat).astype(np.float64) * self.normalizer.scale
        p, n = self.constants.n_primitive[rows], self.packed.table.n_atoms[rows]
        parts = np.split(flat, starts[1:])
        blocks = [part.reshape(*shape, 3, 3) for part, shape in zip(parts, zip(p, n, strict=True), strict=True)]
        values = np.array([np.sqrt(np.mean(np.square(one))) for one in blocks])
        return Predictions(values, np.zeros((len(rows), 0)), blocks=tuple(blocks))

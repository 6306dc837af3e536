"""The table of models, the molecules, the tolerances and the compiled functions that the law tests share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import ase.build
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from configs.schema import MODEL_CONFIGS
from data_tools.graph import Budget, GraphBatch, Structure
from data_tools.graphs.batching import build_graph, join, pad
from models import NEEDS_TRIPLETS, GraphModel, build_model, cpu_kernels
from models.heads import AttentionReadout
from physics.derivatives import Compiled, EnergyAndForces, HessianProduct, observables
from training.step import to_tensors

#: Largest difference, relative to the largest value of the compared array.  Nothing here may exceed 1e-2.
TOLERANCES = {
    "symmetry": 1e-10,  # float64: permutation, translation, rotation, inversion, batch = single, extensivity
    "padding": 1e-11,  # float64: the same sums in another order
    "gradients": 1e-10,  # float64: parameter gradients of a loss on energies and forces
    "differences": 1e-6,  # float64: a derivative against central differences
    "modes": 1e-11,  # float64: GRAPH against PYNATIVE
    "precision": 2e-4,  # float32 against float64
    "continuity": 1e-5,  # jump within 2e-7 Angstrom, relative to the change over the last 0.3 cutoffs
}
#: the C++ kernels of CPUs, and MindSpore's operators, which Ascend and GPU run
PATHS = ("kernels", "operators")
SHARP = 1.0  # of a readout with attention
SMALLEST_SCALE = 1e-3  # below it a difference is absolute: values that vanish by symmetry have no relative error


@dataclass(frozen=True)
class Case:
    """One line of the table: a model that must obey every law.

    Attributes:
        name: shown in the test's name.
        model: key of ``models.MODELS``.
        hyperparameters: small, without ``cutoff``; and the readout where it is not the sum.
        cutoff: Angstrom.
        exempt: law to the reason why it does not hold by design.
    """

    name: str
    model: str
    hyperparameters: dict
    cutoff: float
    exempt: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[str, ...]:
        """Both for the line that has the name of its model; other lines change what no kernel computes."""
        return PATHS if self.name == self.model and "operators" not in self.exempt else PATHS[:1]

    def batch(
        self, structures: Iterable[Structure], budget: Budget | None = None, dtype: type = np.float64
    ) -> GraphBatch:
        """Structures padded to a budget, with triplets where the model needs them."""
        budget = budget or BUDGET
        if self.model in NEEDS_TRIPLETS:
            budget = budget._replace(triplets=8 * budget.edges)
        return make_batch(structures, self.cutoff, budget, dtype)

    def build(self, dtype: str = "float32", amp_level: str = "O0") -> GraphModel:
        """The model, untrained."""
        return model_of(self.model, dtype, amp_level, cutoff=self.cutoff, **self.hyperparameters)


SCHNET = {"features": 8, "filters": 6, "blocks": 2, "gaussians": 7}
ONE_BLOCK = SCHNET | {"blocks": 1}  # compiles in half the time; for what does not depend on the number of blocks
DIMENETPP = {
    "features": 6, "blocks": 1, "interaction_features": 5, "basis_features": 3, "output_features": 7, "spherical": 4,
    "radial": 3, "layers_before_skip": 1, "layers_after_skip": 1, "output_layers": 1, "output_init": "orthogonal",
}  # fmt: skip
SEGNN = {"features": 8, "blocks": 1, "lmax": 1, "lmax_attributes": 2, "norm": "none", "task": "node"}
TRANSFORMER = {
    "irreps": "3x0e+2x1o", "irreps_head": "2x0e+1x1o", "irreps_mlp": "3x0e+2x1o", "irreps_features": "4x0e",
    "blocks": 1, "heads": 2, "lmax": 1, "radial": 3, "radial_features": 4, "radial_layers": 1, "average_degree": 5.0,
    "average_nodes": 9.0,
}  # fmt: skip
POTENTIAL = {
    "irreps": "4x0e+3x1o+2x2e", "blocks": 2, "lmax": 2, "bessel": 3, "gaussians": 3, "average_degree": 5.0,
}  # fmt: skip
COMPILES_LONG = {"operators": "minutes; parity or kernels, and a training on forces, are compared on both paths"}
STEPS_AT_CUTOFF = {
    "cutoff continuity": "the authors' messages have no envelope: an atom that crosses the cutoff counts at once",
    "second derivatives": "as above",
}
COSINE = {"second derivatives": "the curvature of the cosine jumps at the cutoff"}
NO_ENVELOPE = {
    "cutoff continuity": "the first paper's filters have no envelope: the cutoff must exceed every distance",
    "second derivatives": "as above",
    "crystals": "without an envelope a crystal has no end",
}
WEIGHTED = COSINE | {"extensivity": "a mean whose weights depend on all atoms of a structure"}
NOT_ADDITIVE = COSINE | {
    "extensivity": "depends on the distance of the molecules from their common centre of mass",
    "crystals": "a crystal has no centre of mass",
}
CASES = (
    Case("schnet", "schnet", SCHNET, 3.0, COSINE),
    Case("schnet-schnetpack", "schnet", SCHNET | {"convention": "schnetpack"}, 3.0, COSINE),
    Case("schnet-2017", "schnet", ONE_BLOCK | {"convention": "2017", "gaussians": 60}, 30.0, NO_ENVELOPE),
    Case("schnet-matrix", "schnet", ONE_BLOCK | {"filter": "matrix"}, 3.0, COSINE),
    Case("schnet-mean", "schnet", ONE_BLOCK | {"readout": "mean"}, 3.0, COSINE),
    Case("schnet-polynomial", "schnet", ONE_BLOCK | {"envelope": "polynomial"}, 3.0),
    Case("schnet-dipole", "schnet", ONE_BLOCK | {"readout": "dipole"}, 3.0, NOT_ADDITIVE),
    Case("schnet-attention", "schnet", ONE_BLOCK | {"readout": "attention"}, 3.0, WEIGHTED),
    Case("dimenetpp", "dimenetpp", DIMENETPP, 3.0),
    Case("segnn", "segnn", SEGNN, 2.5, STEPS_AT_CUTOFF),
    Case("graph_attention_transformer", "graph_attention_transformer", TRANSFORMER, 3.0, COMPILES_LONG),
    Case("equivariant_potential", "equivariant_potential", POTENTIAL, 3.0, COMPILES_LONG),
    Case("schnet-extent", "schnet", ONE_BLOCK | {"readout": "electronic_spatial_extent"}, 3.0, NOT_ADDITIVE),
)
#: what the laws are held for
LINES = tuple((case, path) for case in CASES for path in case.paths)
DECIDED = {"dimenetpp": {"output_init": "zeros"}}  # what a run decides by its target

BUDGET = Budget(nodes=32, edges=256, triplets=0, graphs=6)
TIGHT = Budget(nodes=25, edges=210, triplets=0, graphs=4)  # one ghost node; no ghost edge where all atoms are connected


def molecule(name: str, seed: int = 0, rattle: float = 0.05) -> Structure:
    """A molecule of ASE's collection, its atoms displaced at random (Angstrom)."""
    atoms = ase.build.molecule(name)
    noise = np.random.default_rng(seed).normal(0.0, rattle, atoms.positions.shape)
    return Structure(atoms.numbers.astype(np.int32), atoms.positions + noise, name=name)


def molecules() -> list[Structure]:
    """Three molecules; benzene and ethanol are larger than the small cutoffs of the table."""
    return [molecule("CH3CH2OH", 1), molecule("H2O", 2), molecule("C6H6", 3)]


def model_of(
    name: str, dtype: str = "float32", amp_level: str = "O0", readout: str = "sum", **changes: object
) -> GraphModel:
    """A model with the schema's hyperparameters, some of them changed."""
    decided = {"segnn": {"ncon_dtype": dtype}, **DECIDED}.get(name, {})
    hyperparameters = {**asdict(MODEL_CONFIGS[name]()), **decided, **changes, "name": name}
    return build_model(dtype=dtype, amp_level=amp_level, readout=readout, **hyperparameters)


def crystals() -> list[Structure]:
    """One atom that interacts with its own images only, and a skewed cell of three elements."""
    copper = ase.build.bulk("Cu", a=3.61)
    cell = np.array([[2.8, 0.0, 0.0], [0.9, 3.4, 0.0], [-0.5, 0.7, 3.7]])
    places = np.array([[0.02, 0.05, 0.0], [0.55, 0.48, 0.06], [0.10, 0.52, 0.56]])
    return [
        Structure(copper.numbers.astype(np.int32), copper.positions, copper.cell.array, "Cu"),
        Structure(np.array([14, 8, 12], np.int32), places @ cell, cell, "skewed"),
    ]


def repeated(structure: Structure, times: tuple[int, int, int]) -> Structure:
    """A supercell; the atoms of each copy of the cell stay together and in order."""
    assert structure.cell is not None
    images = np.array(list(np.ndindex(*times))) @ structure.cell
    positions = (structure.positions[None] + images[:, None]).reshape(-1, 3)
    cell = structure.cell * np.array(times)[:, None]
    return Structure(np.tile(structure.numbers, len(images)), positions, cell, structure.name)


def moved(structure: Structure, matrix: np.ndarray, offset: np.ndarray | float = 0.0) -> Structure:
    """A structure under a linear map of space, its cell too, and then displaced."""
    cell = None if structure.cell is None else structure.cell @ matrix.T
    return Structure(structure.numbers, structure.positions @ matrix.T + offset, cell, structure.name)


@contextmanager
def on_path(path: str) -> Iterator[None]:
    """Models that are built in this block compute with the kernels, or with the operators of Ascend and GPU."""
    before = cpu_kernels.device_target
    if path == "operators":
        cpu_kernels.device_target = lambda: "Ascend"
    try:
        assert bool(cpu_kernels.load()) == (path == "kernels")
        yield
    finally:
        cpu_kernels.device_target = before


def build(case: Case, dtype: str = "float64", seed: int = 0) -> nn.Cell:
    """The model of a case with random numbers in every parameter: a bias of zero would hide mistakes with ghosts.

    A readout with attention has weights far from equal, unlike an untrained one.
    """
    ms.set_seed(seed)
    model = case.build(dtype)
    random = np.random.default_rng(seed)
    for parameter in model.trainable_params():
        noise = 0.2 * random.normal(size=parameter.shape)
        parameter.set_data(Tensor(parameter.asnumpy() + noise, parameter.dtype))
    head = getattr(model, "head", None)  # networks of force constants have none
    if isinstance(head, AttentionReadout):
        head.sharpness.set_data(Tensor(np.full(head.outputs, SHARP), head.sharpness.dtype))
    model.set_train(False)
    return model


def make_batch(
    structures: Iterable[Structure], cutoff: float, budget: Budget = BUDGET, dtype: type = np.float64
) -> GraphBatch:
    graphs = [build_graph(structure, cutoff, triplets=budget.triplets > 0) for structure in structures]
    return pad(join(graphs), budget, cutoff, dtype)


class ForceLossGradient(Compiled):
    """Loss on outputs and forces, both, and its gradients with respect to every parameter: a second derivative."""

    def __init__(self, model: nn.Cell):
        weights = ms.ParameterTuple(model.trainable_params())
        derive = observables(model, ("energy", "forces"))

        def loss(*arguments):
            inputs, outputs, forces = arguments[:-2], arguments[-2], arguments[-1]
            node_mask, graph_mask = inputs[8], inputs[9]
            found, forces_found = derive(*inputs)
            wrong_outputs = (found - outputs) * graph_mask
            wrong_forces = (forces_found - forces) * node_mask.reshape(-1, 1)
            total = (wrong_outputs * wrong_outputs).sum() + (wrong_forces * wrong_forces).sum()
            return total, found, forces_found

        super().__init__(model, ms.value_and_grad(loss, None, weights, has_aux=True))
        self.weights = weights


class Bench:
    """A model of the table with its compiled functions; arrays in, arrays of the real graphs out.

    The loss has one budget on each path unless another is given: that they agree is also a law of padding.
    """

    def __init__(self, case: Case, path: str = "kernels"):
        self.case, self.path = case, path
        self.of_loss = BUDGET if path == "kernels" else TIGHT
        with on_path(path):
            self.model = build(case)
        self.physics = EnergyAndForces(self.model)
        self.gradient = ForceLossGradient(self.model)
        self.product = HessianProduct(self.model)

    def run(self, structures: Sequence[Structure], budget: Budget = BUDGET) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (G,) and forces (N, 3) of the real graphs and atoms."""
        batch = self.case.batch(structures, budget)
        outputs, forces = self.physics(*to_tensors(batch.inputs))
        atoms = sum(len(structure.numbers) for structure in structures)
        return outputs.asnumpy()[: len(structures)], forces.asnumpy()[:atoms]

    def loss(
        self, structures: Sequence[Structure], budget: Budget | None = None
    ) -> tuple[float, dict[str, np.ndarray]]:
        """A loss on outputs and forces against fixed random labels, and its parameter gradients."""
        return self.trained(structures, budget)[2:]

    def trained(
        self, structures: Sequence[Structure], budget: Budget | None = None
    ) -> tuple[np.ndarray, np.ndarray, float, dict[str, np.ndarray]]:
        """Outputs and forces as in ``run``, and the loss and gradients that belong to them, of one graph."""
        random, budget = np.random.default_rng(5), budget or self.of_loss
        batch = self.case.batch(structures, budget)
        outputs, forces = np.zeros(budget.graphs), np.zeros((budget.nodes, 3))
        outputs[: len(structures)] = random.normal(size=len(structures))
        atoms = sum(len(structure.numbers) for structure in structures)
        forces[:atoms] = random.normal(size=(atoms, 3))
        (loss, found, forces_found), gradients = self.gradient(
            *to_tensors(batch.inputs), Tensor(outputs), Tensor(forces)
        )
        named = {
            parameter.name: gradient.asnumpy()
            for parameter, gradient in zip(self.gradient.weights, gradients, strict=True)
        }
        return found.asnumpy()[: len(structures)], forces_found.asnumpy()[:atoms], float(loss.asnumpy()), named


def assert_close(found: np.ndarray, expected: np.ndarray, law: str, scale: float | None = None) -> None:
    """Compare with the tolerance of a law; NaN never passes."""
    if scale is None:
        scale = max(float(np.abs(expected).max()), SMALLEST_SCALE)
    difference = float(np.abs(found - expected).max()) / scale
    assert difference <= TOLERANCES[law], f"{law}: {difference:.1e} exceeds {TOLERANCES[law]:.0e}"


def rotations(count: int, seed: int = 0) -> list[np.ndarray]:
    """Random orthogonal matrices, proper and improper in turn, and the inversion."""
    random = np.random.default_rng(seed)
    result = [-np.eye(3)]
    for k in range(count):
        matrix, upper = np.linalg.qr(random.normal(size=(3, 3)))
        matrix = matrix * np.sign(np.diag(upper))
        result.append(matrix * np.sign(np.linalg.det(matrix)) * (-1) ** k)
    return result

"""Hessians of many structures: exact rows and differences of forces against one probe at a time, shapes and memory."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from helpers import CASES, assert_close, build, crystals, model_of, molecule, molecules, on_path, repeated
from mindspore import Tensor, nn

from data_tools import progress_bar
from data_tools.graph import Budget, DataError, Structure, StructureTable
from data_tools.graphs.batching import build_graph, join, pad
from data_tools.graphs.packed import pack
from data_tools.graphs.probes import SHAPES
from models import NEEDS_TRIPLETS
from models.cpu_kernels import load
from physics import hessian, memory
from physics.derivatives import EnergyAndForces, HessianProduct
from physics.hessian import difference_rows, exact_rows
from scripts.benchmarks import hessian_memory
from scripts.weights.weight_files import read_weights
from scripts.weights.weight_maps import convert
from training.device import MODES
from training.step import compile_count, to_tensors
from training.weights import assign

pytestmark = pytest.mark.usefixtures("same_mode")

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = {case.name: case for case in CASES if case.name in ("schnet", "dimenetpp")}
CUTOFF = 3.0
ONE_ATOM, SKEWED = crystals()
ALONE = Structure(np.array([8], np.int32), np.ones((1, 3)))


def structures() -> list[Structure]:
    """Molecules and crystals; one without neighbours, and one whose pair crosses the cutoff when an atom moves."""
    crossing = Structure(np.array([1, 8], np.int32), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, CUTOFF - 2e-5]]))
    return [molecule("CH3CH2OH", 1), ONE_ATOM, molecule("H2O", 2), ALONE, SKEWED, crossing]


def graphs_of(several, case) -> list:
    return [build_graph(one, CUTOFF, case.model in NEEDS_TRIPLETS) for one in several]


def alone(graph, stream) -> tuple[Tensor, ...]:
    """One structure in a batch of its own, of the shape of a stream, which is compiled already."""
    return to_tensors(pad(join([graph]), stream.batches.budgets[0], CUTOFF, np.float64).inputs)


@functools.cache
def cells(name: str, path: str = "kernels") -> tuple[HessianProduct, EnergyAndForces]:
    with on_path(path):
        model = build(MODELS[name])
    return HessianProduct(model), EnergyAndForces(model)


class Springs(nn.Cell):
    """The product of the Hessian of E = sum over pairs |r_ij|^2 / 2: (H v)_i = sum_j (v_i - v_j), without compiling.

    Attributes:
        shapes: nodes, edges, graphs of every call.
    """

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __call__(self, *arguments):
        numbers, _, senders, receivers, *_, graph_mask, field = (argument.asnumpy() for argument in arguments)
        self.shapes.append((len(numbers), len(senders), len(graph_mask)))
        product = np.zeros_like(field)
        np.add.at(product, receivers, field[receivers] - field[senders])
        return Tensor(product)


def laplacian(graph) -> np.ndarray:
    """The Hessian of springs (N, 3, N, 3)."""
    count = len(graph.numbers)
    neighbours = np.zeros((count, count))
    np.add.at(neighbours, (graph.receivers, graph.senders), 1.0)
    return np.einsum("ij,ab->iajb", np.diag(neighbours.sum(axis=1)) - neighbours, np.eye(3))


# --- right ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "path"), [("schnet", "operators"), ("dimenetpp", "kernels")])
def test_rows_are_those_of_one_probe_at_a_time_and_the_differences_of_forces(name, path):
    """For molecules and crystals in one stream; also the laws that every Hessian obeys.

    Each model and each path once: one product on all of them stands in test_contract.py.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    case, several = MODELS[name], structures()
    (product, derive), graphs = cells(name, path), graphs_of(several, case)
    stream = exact_rows(product, graphs, CUTOFF, np.float64)
    hessians = stream.arrays()
    assert len(stream.batches) == compile_count(product) == 1, "they all fit into one batch"
    for structure, graph, found in zip(several, graphs, hessians, strict=True):
        count = len(structure.numbers)
        assert found.shape == (count, 3, count, 3) and found.dtype == np.float64
        expected, inputs = np.zeros(found.shape), alone(graph, stream)
        for atom, axis in np.ndindex(count, 3):
            probe = np.zeros(inputs[1].shape)
            probe[atom, axis] = 1.0
            expected[atom, axis] = product(*inputs, Tensor(probe)).asnumpy()[:count]
        scale = max(float(np.abs(expected).max()), 1.0)
        assert_close(found, expected, "padding", scale)
        assert_close(found, found.transpose(2, 3, 0, 1), "symmetry", scale)
        assert_close(found.sum(axis=2), np.zeros((count, 3, 3)), "symmetry", scale)  # all atoms move together
    assert [np.abs(hessians[k]).max() > 1e-3 for k in (0, 2, 4)] == [True] * 3
    assert not hessians[3].any(), "no neighbours"
    differences = difference_rows(derive, several, CUTOFF, np.float64, case.model in NEEDS_TRIPLETS, step=1e-4).arrays()
    # of all but the last, whose pair has no second derivative at the cutoff
    for found, other in zip(hessians[:-1], differences[:-1], strict=True):
        assert_close(other, found, "differences", max(float(np.abs(found).max()), 1.0))


def test_displaced_structures_have_the_neighbours_that_they_have():
    """A pair that enters and leaves the cutoff; each displaced structure is also made by itself."""
    ms.set_context(mode=ms.GRAPH_MODE)
    derive, step = cells("schnet")[1], 1e-4
    stream = difference_rows(derive, structures(), CUTOFF, np.float64, step=step)
    crossed = 0
    for structure, rows in zip(structures(), stream.arrays(), strict=True):
        edges = set()
        for atom, axis in np.ndindex(len(structure.numbers), 3):
            forces = []
            for sign in (1, -1):
                positions = structure.positions.copy()
                positions[atom, axis] += sign * step
                graph = build_graph(dataclasses.replace(structure, positions=positions), CUTOFF)
                edges.add(len(graph.senders))
                forces.append(derive(*alone(graph, stream))[1].asnumpy()[: len(positions)])
            expected = (forces[1] - forces[0]) / (2 * step)
            assert_close(rows[atom, axis], expected, "differences", max(float(np.abs(expected).max()), 1.0))
        crossed += len(edges) > 1
    assert crossed >= 1


def test_a_supercell_moves_as_its_cells_do():
    """Displacing an atom of the cell with all its images: the sum over the images in the supercell."""
    ms.set_context(mode=ms.GRAPH_MODE)
    graphs = graphs_of([SKEWED, repeated(SKEWED, (2, 2, 1))], MODELS["schnet"])
    one, four = exact_rows(cells("schnet")[0], graphs, CUTOFF, np.float64, atoms=[None, [0, 1, 2]]).arrays()
    assert four.shape == (3, 3, 12, 3)
    assert_close(four.reshape(3, 3, 4, 3, 3).sum(axis=2), one, "symmetry")


@pytest.mark.parametrize(("mode", "path"), [("GRAPH", "operators"), ("PYNATIVE", "kernels")], indirect=["path"])
def test_hessian_equals_that_of_torch(mode, path):
    ms.set_context(mode=MODES[mode])
    with np.load(GOLDEN / "schnet_pyg_lite_hessian.npz") as golden:
        numbers, positions, expected = (golden[key] for key in ("z", "pos", "hessian64"))
    model = model_of("schnet", "float64", features=64, filters=64, blocks=2, gaussians=25, cutoff=5.0)
    parameters = convert("pyg-schnet", dict(read_weights(GOLDEN / "schnet_pyg_lite.npz")))
    assign(model, {name: np.asarray(value, np.float64) for name, value in parameters.items()})
    graph = build_graph(Structure(numbers.astype(np.int32), positions), 5.0)
    (found,) = exact_rows(HessianProduct(model), [graph], 5.0, np.float64).arrays()
    assert np.abs(found.reshape(27, 27) - expected).max() <= 1e-8 * np.abs(expected).max()


# --- a stream ---------------------------------------------------------------------------------------------------------


def many(count: int) -> list[Structure]:
    """Molecules and crystals of many sizes."""
    names, random = ("H2", "H2O", "CH4", "C6H6", "CH3CH2OH", "C60"), np.random.default_rng(0)
    return [molecule(names[k], seed) if k < 6 else SKEWED for seed, k in enumerate(random.integers(0, 7, count))]


def test_structures_of_every_size_share_three_shapes():
    product = Springs()
    graphs = [build_graph(structure, 5.0) for structure in many(60)]
    stream = exact_rows(product, graphs, 5.0, np.float64)
    found = stream.arrays()
    for graph, one in zip(graphs, found, strict=True):
        assert_close(one, laplacian(graph), "symmetry")
    assert len(product.shapes) == len(stream.batches) > 10
    assert 1 <= len(set(product.shapes)) <= SHAPES
    assert f"{len(stream)} Hessian rows of 60 structures in {len(product.shapes)} batches" in str(stream)
    real = sum(3 * len(graph.numbers) * len(graph.senders) for graph in graphs)
    assert sum(edges for _, edges, _ in product.shapes) < 1.1 * real, "batches are full"


def test_rows_come_in_order_and_can_be_chosen():
    graphs = [build_graph(structure, CUTOFF) for structure in molecules()]
    whole = exact_rows(Springs(), graphs, CUTOFF, np.float64).arrays()
    chosen = [[5, 0], [], None]
    stream = exact_rows(Springs(), graphs, CUTOFF, np.float64, atoms=chosen)
    expected = [(0, 5), (0, 0), *((2, atom) for atom in range(12))]
    rows = list(stream)
    assert [tuple(row[:3]) for row in rows] == [(*which, axis) for which in expected for axis in range(3)]
    for structure, atom, axis, values in rows:
        assert_close(values, whole[structure][atom, axis], "symmetry")
    some = stream.arrays()
    assert [array.shape for array in some] == [(2, 3, 9, 3), (0, 3, 3, 3), (12, 3, 12, 3)]
    assert_close(some[0], whole[0][[5, 0]], "symmetry")
    assert exact_rows(Springs(), [], CUTOFF, np.float64).arrays() == []
    for atoms in ([None, [3], None], [None, [-1], None]):
        with pytest.raises(DataError, match="structure 1: rows of atoms 0 to 2 expected"):
            exact_rows(Springs(), graphs, CUTOFF, np.float64, atoms=atoms)


def test_packed_structures_need_no_list_of_graphs():
    several = molecules()
    table = StructureTable(
        np.concatenate([one.numbers for one in several]), np.concatenate([one.positions for one in several]),
        np.array([len(one.numbers) for one in several]), np.arange(3),
    )  # fmt: skip
    graphs = [build_graph(structure, CUTOFF) for structure in several]
    found = exact_rows(Springs(), pack(table, CUTOFF), CUTOFF, np.float32).arrays()
    for one, graph in zip(found, graphs, strict=True):
        assert one.dtype == np.float32 and np.array_equal(one, laplacian(graph))


def test_structures_that_change_a_little_keep_their_shape():
    product = Springs()
    for seed in range(4):
        graph = build_graph(molecule("CH3CH2OH", seed, rattle=0.2), CUTOFF)
        exact_rows(product, [graph], CUTOFF, np.float64, sizes=np.array([[9, 72, 0]])).arrays()
    assert len(set(product.shapes)) == 1


@pytest.mark.parametrize("step", [0.0, -0.01, np.nan, np.inf])
def test_a_step_that_is_none(step):
    with pytest.raises(DataError, match="expected a number of Angstrom above 0"):
        difference_rows(Springs(), molecules(), CUTOFF, np.float64, step=step)


# --- memory and progress ----------------------------------------------------------------------------------------------


def test_too_much_memory_is_refused_in_one_line():
    graphs, product = [build_graph(molecule("C60"), 5.0)], Springs()
    with pytest.raises(DataError, match=r"^180 Hessian rows of 1 structures in 180 batches .* use smaller") as raised:
        exact_rows(product, graphs, 5.0, np.float64, limit=1e6).arrays()
    assert "\n" not in str(raised.value) and not product.shapes
    results = 180 * 180 * 8
    limit = memory.of_product(product, Budget(0, 0, 0, 2), np.float64) + results / 2
    stream = exact_rows(product, graphs, 5.0, np.float64, limit=limit)
    with pytest.raises(DataError, match="one row at a time"):
        stream.arrays()
    assert sum(1 for _ in stream) == 180, "rows that nobody keeps take no memory"


def test_batches_are_smaller_where_memory_is_short(monkeypatch):
    graphs = [build_graph(molecule("C60"), 5.0)]
    product = HessianProduct(model_of("schnet", cutoff=5.0, features=32, filters=32, blocks=2, gaussians=9))
    whole = exact_rows(product, graphs, 5.0, np.float32, limit=np.inf)
    one = memory.of_product(product, whole.batches.budgets[0]._replace(edges=1744), np.float32)
    limit = (whole.memory + one) / 2
    given = exact_rows(product, graphs, 5.0, np.float32, limit=limit)
    monkeypatch.setattr(hessian, "available", lambda: limit / hessian.SHARE)
    found = exact_rows(product, graphs, 5.0, np.float32)
    for stream in (given, found):
        assert one < stream.memory <= limit < whole.memory and len(stream.batches) > len(whole.batches)
    monkeypatch.setattr(hessian, "available", lambda: one / 2)
    with pytest.raises(DataError, match=r"in 180 batches .* expected at most"):
        next(iter(exact_rows(product, graphs, 5.0, np.float32)))


def test_memory_grows_with_the_batch_and_the_model():
    small, large = (
        model_of("schnet", cutoff=5.0, features=size, filters=size, blocks=2, gaussians=9) for size in (8, 32)
    )
    shapes = [Budget(100, edges, triplets, 2) for edges, triplets in ((0, 0), (1000, 0), (2000, 0), (2000, 5000))]
    of_small, of_large = (
        [memory.of_product(HessianProduct(model), shape, np.float32) - memory.COMPILED for shape in shapes]
        for model in (small, large)
    )
    assert of_small[0] == 0 < of_small[1] < of_small[3] and of_small[2] == pytest.approx(2 * of_small[1])
    assert of_large[1] > 2 * of_small[1]
    assert memory.of_product(HessianProduct(large), shapes[1], np.float64) > memory.COMPILED + 1.9 * of_large[1]


def test_the_estimate_is_above_what_graph_attention_transformers_take():
    """Measured for copies of C60 (results/system/hessian_memory.md), in MB."""
    measured = {
        hessian_memory.TRANSFORMER: {(4, 1740): 531, (4, 15660): 970, (8, 15660): 3827},
        hessian_memory.SMALL: {(4, 1740): 540, (4, 15660): 957, (8, 15660): 3726},
    }
    if load() is None:
        measured = {hessian_memory.TRANSFORMER: {(4, 15660): 3832}}
    for profile, cases in measured.items():
        product = HessianProduct(hessian_memory.network_of(profile, "float32", 1740, 60))
        for (size, edges), taken in cases.items():
            found = memory.of_product(product, Budget(541, edges, 0, 10), {4: np.float32, 8: np.float64}[size]) / 2**20
            assert taken < found < 2 * taken, (profile, size, edges)


def test_available_memory(monkeypatch, tmp_path):
    assert 2**26 < memory.available() < 2**50
    table = tmp_path / "meminfo"
    table.write_text("MemTotal:  4000000 kB\nMemAvailable:  3000000 kB\nHugePages_Total: 0\n")
    monkeypatch.setattr(memory, "MEMINFO", table)
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.available() == 3e6 * 1024
    for name, text in (
        ("max", "2000000000\n"),
        ("current", "900000000\n"),
        ("stat", "anon 1\ninactive_file 400000000\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory.available() == 1.5e9
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available() == 3e6 * 1024


def test_progress_in_a_log(monkeypatch, capsys):
    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_LINES", -1.0)
    graphs = [build_graph(molecule("H2O"), CUTOFF)]
    exact_rows(Springs(), graphs, CUTOFF, np.float64, progress=True).arrays()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Hessian: 1 of 9 rows" and len(lines) == 9
    exact_rows(Springs(), graphs, CUTOFF, np.float64).arrays()
    assert capsys.readouterr().err == ""

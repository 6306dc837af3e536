"""The graph attention transformer against its authors' program, through the converter; and what it does not share.

The laws of all models are held by ``test_contract.py``.
"""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from helpers import TRANSFORMER, Case, assert_close, build, molecule, moved, on_path, rotations

from configs.loading import load_config
from data_tools.graph import Structure
from data_tools.graphs.batching import build_graph
from data_tools.labels.statistics import Normalizer
from experiment.summary import describe_irreps
from models.graph_attention_transformer import breaks_mirror
from models.random import random_layers, set_keys
from physics.derivatives import HessianProduct
from physics.hessian import exact_rows
from scripts import convert_weights
from scripts.weights import weight_files
from scripts.weights.weight_check import FLOAT64_TOLERANCE, not_compared, table
from scripts.weights.weight_maps import SOURCES, check_keys, convert
from scripts.weights.weight_source import WeightError
from training.step import to_tensors

pytestmark = pytest.mark.usefixtures("same_mode")

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIG = Path(__file__).parents[2] / "configs" / "graph_attention_transformer" / "qm9_original.yaml"
NAME = "equiformer"
SMALL = {
    "irreps": "16x0e+8x0o+8x1e+8x1o+4x2e+4x2o", "irreps_head": "8x0e+2x0o+2x1e+2x1o+1x2e+1x2o",
    "irreps_mlp": "24x0e+8x0o+8x1e+8x1o+4x2e+4x2o", "irreps_features": "32x0e", "blocks": "2", "radial": "16",
    "radial_features": "16",
}  # fmt: skip
FILES = {
    "equiformer_small_e3": SMALL,
    "equiformer_small_e3_nonorm": SMALL | {"norm": "none"},
    "equiformer_bessel": {
        "irreps": "12x0e+6x1o+4x2e", "irreps_head": "6x0e+3x1o+2x2e", "irreps_mlp": "18x0e+9x1o+6x2e",
        "irreps_features": "24x0e", "blocks": "2", "heads": "2", "basis": "bessel", "radial": "10",
        "radial_features": "12", "radial_layers": "1",
    },
    "equiformer_1e_lmax3": {
        "irreps": "8x0e+4x1e+2x2e+2x3e", "irreps_head": "4x0e+2x1e+1x2e+1x3e", "irreps_mlp": "8x0e+4x1e+2x2e+2x3e",
        "irreps_features": "9x0e", "blocks": "1", "heads": "2", "lmax": "3", "radial": "10", "radial_features": "8",
    },
}  # fmt: skip
ELEMENTS = "grad64/atom_embed.atom_type_lin.tp.weight"  # rows of a table here
MIRROR = {"blocks": 2, "irreps": "3x0e+2x1e", "irreps_head": "2x0e+1x1e", "irreps_mlp": "3x0e+2x1e"}


def settings_of(name, **changes):
    return [(f"model.{key}", value) for key, value in {**FILES[name], **changes}.items()]


def converted(name):
    """Configuration and parameters of a parity file."""
    state = check_keys(NAME, dict(weight_files.read_weights(GOLDEN / f"{name}.npz")))
    return load_config(CONFIG, settings_of(name)), convert(NAME, state)


@pytest.mark.parametrize(
    ("name", "mode", "path"),
    [
        ("equiformer_small_e3", "GRAPH", "kernels"),
        ("equiformer_small_e3_nonorm", "PYNATIVE", "kernels"),
        ("equiformer_bessel", "PYNATIVE", "operators"),
        ("equiformer_1e_lmax3", "PYNATIVE", "kernels"),
    ],
)
def test_everything_agrees(name, mode, path):
    """Outputs, forces, features of nodes and parameter gradients, in float64 and float32."""
    file, (config, parameters) = GOLDEN / f"{name}.npz", converted(name)
    with on_path(path):
        rows = convert_weights.check(file, config, SOURCES[NAME], parameters, Normalizer(1.0, 0.0), (mode,))
    assert all(row.accepted for row in rows), table(rows)
    exact = [row for row in rows if row.bits == 64]
    assert max(row.value for row in exact) < 0.01 * FLOAT64_TOLERANCE, table(rows)
    features = {"blocks"} if "small" in name else set()
    assert {row.kind for row in exact} == {"outputs", "forces", "gradients"} | features
    assert sum(row.kind == "gradients" for row in exact) == len(parameters)
    assert not_compared(file, exact) == [ELEMENTS]


def test_the_hessian_agrees():
    """All rows of ethanol, as second derivatives."""
    name = "equiformer_small_e3"
    arrays, (config, parameters) = np.load(GOLDEN / f"{name}.npz"), converted(name)
    config = load_config(CONFIG, [*settings_of(name), ("run.dtype", "float64")])
    task = convert_weights.task_of(config, Normalizer(1.0, 0.0))
    model = convert_weights.converted_model(config, task, parameters, GOLDEN)
    rows = arrays["batch"] == 3
    graph = build_graph(Structure(arrays["z"][rows].astype(np.int32), arrays["pos"][rows]), config.model.cutoff)
    (found,) = exact_rows(HessianProduct(model), [graph], config.model.cutoff, np.float64).arrays()
    expected = arrays["hessian_ethanol64"]
    assert np.abs(found.reshape(27, 27) - expected).max() <= FLOAT64_TOLERANCE * np.abs(expected).max()


def test_the_weights_say_what_the_configuration_lacks(capsys):
    changes = {"blocks": "3", "norm": "none", "heads": "2", "radial": "8", "envelope": "polynomial"}
    words = [word for key, value in settings_of("equiformer_small_e3", **changes)
             for word in ("--set", f"{key}={value}")]  # fmt: skip
    file = str(GOLDEN / "equiformer_small_e3.npz")
    command = ["--source", NAME, "--weights", file, "--config", str(CONFIG), *words, "--check", file]
    assert convert_weights.main(command) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1
    for change in ("blocks=2", "norm=layer", "heads=4", "radial=16", "envelope=none"):
        assert f"--set model.{change}" in shown
    assert "irreps" not in shown


def test_damaged_weights_are_named():
    state = dict(weight_files.read_weights(GOLDEN / "equiformer_small_e3.npz"))
    lost = {key: value for key, value in state.items() if key != "blocks.1.ga.proj.bias.0"}
    with pytest.raises(WeightError, match=r"1 missing: blocks\.1\.ga\.proj\.bias\.0"):
        check_keys(NAME, lost)
    with pytest.raises(WeightError, match="weights of 5 elements"):
        check_keys(NAME, {**state, "atom_embed.atom_type_lin.tp.weight": np.zeros(81)})
    with pytest.raises(WeightError, match="expected hidden layers of one size"):
        check_keys(NAME, {**state, "edge_deg_embed.rad.net.3.weight": np.zeros((15, 16))})
    with pytest.raises(WeightError, match="use --source equiformer"):
        check_keys("pyg-schnet", state)


def case_of(**changes):
    return Case("", "graph_attention_transformer", TRANSFORMER | changes, 3.0)


def energies(model, case, structures):
    return model(*to_tensors(case.batch(structures).inputs)).asnumpy()[: len(structures)]


def chiral():
    """Four different atoms at the corners of a tetrahedron without symmetry."""
    places = [[0.0, 0, 0], [1.1, 0.1, 0], [0.1, 1.3, 0.2], [0.3, 0.2, 1.5]]
    return Structure(np.array([6, 1, 8, 9], np.int32), np.array(places))


def test_irreps_without_odd_ones_break_the_mirror_and_nothing_else():
    """Rotations change nothing; mirror images of a chiral structure have two energies, of an achiral one the same.

    It takes two blocks: the triple product of three edges is one of two products with harmonics each.
    """
    ms.set_context(mode=ms.PYNATIVE_MODE)
    structures = [chiral(), molecule("H2O", rattle=0.0), molecule("C6H6", 3)]
    case, natural = case_of(**MIRROR), case_of(blocks=2)
    model, other = build(case), build(natural)
    mirrored = [moved(one, np.diag([1.0, 1.0, -1.0])) for one in structures]
    found, image = energies(model, case, structures), energies(model, case, mirrored)
    assert abs(found[0] - image[0]) > 1e-5 * abs(found[0])
    assert_close(image[1], found[1], "symmetry")
    assert_close(energies(other, natural, mirrored), energies(other, natural, structures), "symmetry")
    proper = [matrix for matrix in rotations(4) if np.linalg.det(matrix) > 0]
    assert len(proper) == 2
    for matrix in proper:
        assert_close(energies(model, case, [moved(one, matrix, 3.7) for one in structures]), found, "symmetry")
    order = np.array([2, 0, 3, 1])
    permuted = Structure(chiral().numbers[order], chiral().positions[order])
    assert_close(energies(model, case, [permuted]), found[:1], "symmetry")
    far = Structure(np.tile(chiral().numbers, 2), np.concatenate((chiral().positions, chiral().positions + 50.0)))
    assert_close(energies(model, case, [far]), 2 * found[:1], "symmetry")


def test_irreps_that_break_the_mirror_are_warned_of(caplog):
    assert breaks_mirror("128x0e+64x1e+32x2e") and breaks_mirror("4x0e+3e+0x1o")
    assert not any(map(breaks_mirror, ("128x0e+64x1o+32x2e", "4x0e+2x1e+2x1o", "4x0e+2x0o+2x1e", "4x0e+2x2e")))
    describe_irreps(load_config(CONFIG))
    assert not caplog.records
    describe_irreps(load_config(CONFIG, [("model.irreps", "8x0e+4x1e")]))
    assert "mirror image have different energies" in caplog.text


def test_the_original_norm_is_warned_of_for_force_constants(caplog):
    crystals = CONFIG.with_name("crystals.yaml")
    describe_irreps(load_config(crystals))
    assert not caplog.records
    describe_irreps(load_config(crystals, [("model.norm", "layer")]))
    assert "model.norm=smooth is for crystals" in caplog.text


@pytest.mark.parametrize("rate", ["alpha_drop", "proj_drop", "out_drop", "drop_path"])
def test_what_is_dropped_is_dropped_in_training_alone(rate):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    none = {"alpha_drop": 0.0, "proj_drop": 0.0, "out_drop": 0.0, "drop_path": 0.0}
    case, without = case_of(**none | {rate: 0.5}), case_of(**none)
    structures = [molecule("CH3CH2OH", seed) for seed in range(3)]
    model = build(case)
    expected = energies(build(without), without, structures)
    set_keys(random_layers(model), 1, 1)
    assert np.array_equal(energies(model, case, structures), expected)
    model.set_train(True)
    first = energies(model, case, structures)
    assert np.array_equal(energies(model, case, structures), first) and np.abs(first - expected).max() > 1e-6
    set_keys(random_layers(model), 1, 2)
    assert not np.array_equal(energies(model, case, structures), first)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"irreps_features": "4x0e+2x1o"}, "expected scalars"),
        ({"irreps": "4x1o"}, "expected scalars among them"),
        ({"irreps": "4z0e"}, "expected irreps like"),
        ({"irreps_head": "2x0e+1x2e"}, "no 1o in the input"),
        ({"average_degree": 0.0}, "expected more than 0"),
        ({"basis": "fourier"}, "expected one of gaussian, bessel"),
        ({"values": "pairs"}, "expected one of nodes, edges"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        case_of(**changes).build()


def test_bessel_functions_and_described_elements_depend_on_what_they_should():
    """With either the values are finite, differ from the others, and grow smoothly from 0 at the cutoff."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    pairs = [Structure(np.array([6, 8], np.int32), np.array([[0.0, 0, 0], [0, 0, d]])) for d in (1.2, 2.99, 3.1)]
    found = []
    for changes in ({}, {"basis": "bessel"}, {"elements": "described"}):
        case = case_of(**changes)
        found.append(energies(build(case), case, pairs))
        near, last, apart = found[-1]
        assert np.isfinite(found[-1]).all() and abs(last - apart) < 1e-3 * abs(near - apart)
    assert len({round(values[0], 9) for values in found}) == 3

"""SchNet against its PyTorch originals, and the converter as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import on_path
from safetensors.numpy import save_file

from configs.loading import load_config
from data_tools.graph import DataError
from data_tools.labels.statistics import Normalizer
from models import build_model
from scripts import convert_weights
from scripts.weights import weight_files
from scripts.weights.parity_file import Golden
from scripts.weights.weight_check import FLOAT64_TOLERANCE, FLOOR, GRADIENT_TOLERANCE_32, not_compared, table
from scripts.weights.weight_maps import SOURCES, check_keys, convert
from scripts.weights.weight_source import WeightError
from training import checkpoint
from training.weights import assign

GOLDEN = Path(__file__).parents[1] / "golden"
SCRIPT = Path(convert_weights.__file__)
LITE = Path(__file__).parents[2] / "configs" / "schnet" / "qm9_lite.yaml"
BIG = [f"model.{key}" for key in ("features=128", "filters=128", "blocks=6", "gaussians=50", "cutoff=10")]
SPK = ["model.convention=schnetpack"]

#: file: (source, overrides of qm9_lite.yaml, mean and std)
FILES = {
    "schnet_pyg": ("pyg-schnet", BIG, None),
    "schnet_pyg_lite": ("pyg-schnet", [], None),
    "schnet_pyg_lite_atomref_meanstd": ("pyg-schnet", ["target.name=U0"], (-4.24, 0.19)),
    "schnet_pyg_lite_dipole": ("pyg-schnet", ["target.name=mu", "target.readout=dipole"], None),
    "schnet_pyg_lite_mean_readout": ("pyg-schnet", ["target.readout=mean"], None),
    "schnet_spk_lite": ("schnetpack-schnet", SPK, None),
    "schnet_spk_48_32": (
        "schnetpack-schnet",
        [*SPK, *(f"model.{key}" for key in ("features=48", "filters=32", "blocks=3", "gaussians=20", "cutoff=4"))],
        None,
    ),
}
#: file, mode and path: each convention in each mode and on each path; in PYNATIVE mode the same functions are compiled,
#: so one path is enough there
ON = [
    ("schnet_pyg", "GRAPH", "kernels"),
    ("schnet_pyg_lite", "GRAPH", "operators"),
    ("schnet_pyg_lite", "PYNATIVE", "kernels"),
    ("schnet_pyg_lite_atomref_meanstd", "GRAPH", "kernels"),
    ("schnet_pyg_lite_dipole", "GRAPH", "operators"),
    ("schnet_pyg_lite_mean_readout", "PYNATIVE", "kernels"),
    ("schnet_spk_lite", "PYNATIVE", "kernels"),
    ("schnet_spk_48_32", "GRAPH", "kernels"),
    ("schnet_spk_48_32", "GRAPH", "operators"),
]
WITHOUT_GRADIENTS = ("schnet_spk_lite",)


def path_of(name):
    return GOLDEN / f"{name}.npz"


def arguments(name, *more, weights=None, settings=None):
    """The command line that converts one file."""
    source, overrides, scale = FILES[name]
    words = ["--source", source, "--weights", weights or path_of(name), "--config", LITE]
    for text in overrides if settings is None else settings:
        words += ["--set", text]
    if scale:
        words += ["--mean", scale[0], "--std", scale[1]]
    return [str(word) for word in (*words, *more)]


def state_of(name):
    return dict(weight_files.read_weights(path_of(name)))


def refused(capsys, words, *expected):
    """The program's one line of error."""
    assert convert_weights.main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1, shown
    for part in expected:
        assert part in shown
    return shown


@pytest.fixture(scope="module")
def checks():
    """Differences of one file in one mode on one path, computed once."""
    known = {}

    def differences(name, mode, path="kernels"):
        if (name, mode, path) not in known:
            source_name, overrides, scale = FILES[name]
            config = load_config(LITE, [tuple(text.split("=")) for text in overrides])
            source, mean, std = SOURCES[source_name], *(scale or (None, None))
            state = check_keys(source_name, state_of(name))
            convert_weights.check_config(config, source, state)
            normalizer = convert_weights.normalizer_of(source, state, config, mean, std)
            parameters = convert(source_name, state)
            with on_path(path):
                rows = convert_weights.check(path_of(name), config, source, parameters, normalizer, (mode,))
            known[name, mode, path] = rows
        return known[name, mode, path]

    return differences


@pytest.mark.parametrize(("name", "mode", "path"), ON)
def test_float64_agrees(checks, name, mode, path):
    """Outputs, forces, block outputs and parameter gradients to 1e-9."""
    assert {name for name, _, _ in ON} == FILES.keys()
    rows = [row for row in checks(name, mode, path) if row.bits == 64]
    assert all(row.value <= row.tolerance == FLOAT64_TOLERANCE for row in rows), table(rows)
    assert {row.kind for row in rows} == {"outputs", "forces", "blocks", "gradients"} - (
        {"gradients"} if name in WITHOUT_GRADIENTS else set()
    )
    assert set(not_compared(path_of(name), rows)) <= {"h64/interactions.0.conv"}  # the middle of a block is not ours


@pytest.mark.parametrize(("name", "mode", "path"), ON)
def test_float32_errs_as_little_as_the_original(checks, name, mode, path):
    rows = [row for row in checks(name, mode, path) if row.bits == 32]
    assert all(row.accepted for row in rows), table(rows)
    assert max(row.tolerance for row in rows) <= 2e-4 and FLOOR <= 1e-5 and GRADIENT_TOLERANCE_32 <= 1e-4


def test_total_energies_to_a_twentieth_of_a_mev(checks):
    """Energies of -1e4 eV, whose atomic part is added in float64: the original itself errs by 0.45 meV in float32."""
    name = "schnet_pyg_lite_atomref_meanstd"
    row = next(row for row in checks(name, "GRAPH") if row.kind == "outputs" and row.bits == 32)
    golden = np.load(path_of(name))
    largest = np.abs(golden["out64"]).max()
    assert row.value * largest < 5e-5 < np.abs(golden["out32"] - golden["out64"]).max()


def test_round_trip_through_the_program(tmp_path, capsys):
    """npz and safetensors give the same checkpoint, and it holds what evaluation needs."""
    name = "schnet_pyg_lite_atomref_meanstd"
    state = {key: np.ascontiguousarray(values) for key, values in state_of(name).items()}
    save_file(state, tmp_path / "plain.safetensors")
    save_file({f"module.{key}": values for key, values in state.items()}, tmp_path / "wrapped.safetensors")
    save_file({f"sd/{key}": values for key, values in state.items()}, tmp_path / "prefixed.safetensors")
    loaded = []
    for weights in (path_of(name), *sorted(tmp_path.glob("*.safetensors"))):
        output = tmp_path / "converted" / f"{weights.stem}.safetensors"
        assert convert_weights.main(arguments(name, "--output", output, weights=weights)) == 0
        loaded.append(checkpoint.load(output))
    assert "46,209 parameters, readout sum (from the configuration" in capsys.readouterr().out
    first = loaded[0]
    for other in loaded[1:]:
        assert all(np.array_equal(values, other.model[key]) for key, values in first.model.items())
    information = first.information
    assert information["task"]["name"] == "U0" and information["task"]["unit"] == "eV"
    assert information["task"]["reference"] == information["config"]["target"]["reference"] == "total"
    assert information["task"]["readout"] == information["config"]["target"]["readout"] == "sum"
    assert (
        information["converted_from"]["source"] == "pyg-schnet" and len(information["converted_from"]["sha256"]) == 64
    )
    assert information["elements"] == list(range(1, 100)) and information["progress"] == {"epoch": 0, "step": 0}
    normalizer = Normalizer.from_dict(information["normalizer"])
    assert (normalizer.scale, normalizer.shift, normalizer.per_atom, normalizer.average) == (0.19, -4.24, True, False)
    assert np.array_equal(normalizer.references[1:100], state["atomref.weight"][1:, 0].astype(np.float64))
    model = build_model(dtype="float64", amp_level="O0", readout="sum", **information["config"]["model"])
    assign(model, first.weights)
    table = model.network.embedding.table.asnumpy()
    assert table.shape == (119, 64) and np.array_equal(table[:100], state["embedding.weight"].astype(np.float64))
    assert not table[100:].any()


def test_as_a_program_from_another_folder(tmp_path):
    words = [sys.executable, SCRIPT, *arguments("schnet_spk_lite", "--output", "model.safetensors")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "wrote model.safetensors" in done.stdout and checkpoint.load(tmp_path / "model.safetensors").model


def test_check_accepts_and_then_refuses_a_perturbed_weight(tmp_path, capsys):
    name, output = "schnet_spk_lite", tmp_path / "model.safetensors"
    more = ("--check", path_of(name), "--mode", "PYNATIVE", "--output", output)
    assert convert_weights.main(arguments(name, *more)) == 0
    shown = capsys.readouterr().out
    assert "out64" in shown and "forces64" in shown and "differences are within tolerance" in shown and output.exists()
    output.unlink()
    state = {f"sd/{key}": values.copy() for key, values in state_of(name).items()}
    state["sd/representation.interactions.1.f2out.0.weight"][3, 5] += 1e-4
    np.savez(tmp_path / "perturbed.npz", **state)
    assert convert_weights.main(arguments(name, *more, weights=tmp_path / "perturbed.npz")) == 1
    shown = capsys.readouterr().out
    assert "BEYOND" in shown and "nothing is written" in shown and not output.exists()


def test_a_configuration_that_contradicts_is_told_every_change(capsys):
    name, output = "schnet_pyg", ("--output", "never.safetensors")
    wrong = ["model.convention=schnetpack", "model.filter=matrix", "model.blocks=1", "target.name=mu"]
    wrong += ["model.envelope=polynomial"]
    shown = refused(capsys, arguments(name, *output, settings=[*wrong, "target.readout=dipole"]))
    changes = [*BIG[:4], "model.cutoff=10.0", "model.convention=pyg", "model.filter=elementwise"]
    changes += ["model.envelope=cosine", "target.readout=sum"]
    assert all(f"--set {change}" in shown for change in changes) and shown.count("--set") == len(changes)
    shown = refused(capsys, arguments("schnet_spk_lite", *output, settings=[]), "--set model.convention=schnetpack")
    assert shown.count("--set") == 1


def test_a_dipole_is_recognised(capsys):
    dipole, plain = "schnet_pyg_lite_dipole", "schnet_pyg_lite"
    output = ("--output", "never.safetensors")
    refused(capsys, arguments(dipole, *output, settings=[]), "--set target.name=mu --set target.readout=dipole")
    mu = ["target.name=mu", "target.readout=auto"]
    refused(capsys, arguments(plain, *output, settings=mu), "--set target.readout=sum", "with readout dipole now")
    refused(capsys, arguments(dipole, *output, "--mean", "1", "--std", "2"), "no meaning for readout 'dipole'")


@pytest.mark.parametrize("name", ["schnet_pyg_lite", "schnet_spk_lite"])
def test_wrong_source_and_wrong_keys(capsys, tmp_path, name):
    own = FILES[name][0]
    other = next(source for source in SOURCES if source != own)
    words = arguments(name, "--output", "never.safetensors")
    swapped = [other if word == own else word for word in words]
    refused(capsys, swapped, f"the keys are not those of {other}", f"use --source {own}")
    state = {f"sd/{key}": values for key, values in state_of(name).items()}
    for key in [key for key in state if key.endswith((".lin.bias", "f2out.1.bias"))]:
        state.pop(key)
    state["sd/charge.weight"] = np.ones(3)
    np.savez(tmp_path / "keys.npz", **state)
    words = arguments(name, "--output", "never.safetensors", weights=tmp_path / "keys.npz")
    refused(capsys, words, "keys.npz", "missing: ", "1 unknown: charge.weight")


def test_values_that_cannot_be_weights(capsys, tmp_path):
    name = "schnet_pyg_lite"

    def stored(**changes):
        np.savez(
            tmp_path / "changed.npz", **{f"sd/{key}": values for key, values in {**state_of(name), **changes}.items()}
        )
        return arguments(name, "--output", "never.safetensors", weights=tmp_path / "changed.npz")

    refused(capsys, stored(**{"lin1.bias": np.full(32, np.nan)}), "lin1.bias holds a value that is not finite")
    refused(capsys, stored(**{"lin1.bias": np.ones(31)}), "network.value.hidden.bias: expected shape (32,), got (31,)")
    refused(capsys, stored(**{"embedding.weight": np.ones(64)}), "embedding.weight: expected a matrix")
    refused(capsys, stored(**{"interactions.0.conv.nn.0.bias": np.ones(64)}), "are one tensor in PyG but differ here")
    refused(capsys, stored(**{"distance_expansion.offset": np.ones(25)}), "even steps from 0 to the cutoff")


def test_files_that_cannot_be_read(capsys, tmp_path):
    name = "schnet_pyg_lite"

    def weights(path):
        return arguments(name, "--output", "never.safetensors", weights=path)

    refused(capsys, weights(tmp_path / "nothing.npz"), "nothing.npz: no such file")
    for suffix in (".npz", ".safetensors"):
        for content in (b"", b"text", path_of(name).read_bytes()[:5000]):
            (tmp_path / f"damaged{suffix}").write_bytes(content)
            refused(capsys, weights(tmp_path / f"damaged{suffix}"), f"damaged{suffix}: expected")
    (tmp_path / "weights.bin").write_bytes(b"text")
    refused(capsys, weights(tmp_path / "weights.bin"), "expected .pt, .pth, .npz or .safetensors, got .bin")
    np.savez(tmp_path / "empty.npz")
    refused(capsys, weights(tmp_path / "empty.npz"), "holds no arrays")


def test_torch_files_without_torch(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import of a package that is not installed does
    (tmp_path / "weights.pt").write_bytes(b"PK")
    words = arguments("schnet_pyg_lite", "--output", "never.safetensors", weights=tmp_path / "weights.pt")
    refused(capsys, words, "weights.pt: reading this file needs torch, which is not installed")


def test_torch_files_with_torch(tmp_path):
    torch = pytest.importorskip("torch")
    state = state_of("schnet_pyg_lite")
    tensors = {key: torch.from_numpy(values) for key, values in state.items()}
    for content in (tensors, {"state_dict": {f"model.{key}": values for key, values in tensors.items()}, "epoch": 3}):
        torch.save(content, tmp_path / "weights.pt")
        read = weight_files.read_weights(tmp_path / "weights.pt")
        assert read.keys() == state.keys() and all(np.array_equal(read[key], state[key]) for key in state)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(WeightError, match=r"module\.pt: expected a state dict of tensors"):
        weight_files.read_weights(tmp_path / "module.pt")


def test_other_mistakes_of_the_command_line(capsys, tmp_path):
    name, output = "schnet_pyg_lite", ("--output", str(tmp_path / "model.safetensors"))
    refused(capsys, [*arguments(name, *output), "--set", "model.cutof=3"], "did you mean 'cutoff'?")
    refused(capsys, [*arguments(name, *output), "--set", "cutoff"], "expected section.key=value")
    refused(capsys, arguments(name, *output, "--mean", "1.5"), "--mean and --std belong together")
    refused(capsys, arguments(name, "--check", tmp_path / "nothing.npz", *output), "nothing.npz: no such file")
    refused(capsys, arguments(name, "--output", tmp_path), "error: ")  # a folder
    refused(capsys, arguments(name), "--output", "--check")
    assert not (tmp_path / "model.safetensors").exists()


def test_a_parity_file_of_another_cutoff_is_refused(tmp_path):
    arrays = dict(np.load(path_of("schnet_spk_48_32")))
    with pytest.raises(WeightError, match=r"holds 242 edges, the graphs at cutoff 5\.0 Angstrom hold 262 \(20 of them"):
        Golden(path_of("schnet_spk_48_32"), 5.0)
    cut = {**arrays, "idx_i": arrays["idx_i"][1:], "idx_j": arrays["idx_j"][1:]}
    np.savez(tmp_path / "cut.npz", **cut)
    with pytest.raises(DataError, match="holds 241 edges"):
        Golden(tmp_path / "cut.npz", 4.0)
    np.savez(tmp_path / "other.npz", **{"sd/a": np.ones(3)})
    with pytest.raises(WeightError, match="expected a parity file, but it lacks z, pos, batch, out64"):
        Golden(tmp_path / "other.npz", 4.0)


DAMAGED = {
    "z": (np.zeros((2, 3), int), np.full(38, 200), np.full(38, 6.0)),
    "batch": (np.zeros(38), np.full(38, "0"), np.full(38, 2**40), np.zeros(5, int)),
    "pos": (np.zeros((38, 2)), np.full((38, 3), np.nan), np.zeros((38, 3), "U1")),
    "edge_index": (np.zeros((3, 262), int), np.full((2, 262), 99), np.zeros((2, 262)), np.array(0)),
}


@pytest.mark.parametrize("key", DAMAGED)
def test_a_damaged_parity_file_is_refused(key, tmp_path):
    arrays = dict(np.load(path_of("schnet_pyg_lite_dipole")))
    for values in DAMAGED[key]:
        np.savez(tmp_path / "damaged.npz", **{**arrays, key: values})
        with pytest.raises(WeightError, match=r"damaged\.npz: "):
            Golden(tmp_path / "damaged.npz", 5.0)


@pytest.mark.parametrize("key", ["out64", "out_cotangent", "h64/lin1", "h64/interactions.0.mlp", "grad64/lin1.weight"])
def test_a_damaged_result_in_a_parity_file_is_refused(key, tmp_path, capsys, same_mode):
    """Found while the two are compared; nothing is written."""
    arrays = dict(np.load(path_of("schnet_pyg_lite_dipole")))
    np.savez(tmp_path / "damaged.npz", **{**arrays, key: arrays[key][..., :0]})
    output = ("--check", tmp_path / "damaged.npz", "--mode", "PYNATIVE", "--output", tmp_path / "model.safetensors")
    refused(capsys, arguments("schnet_pyg_lite_dipole", *output), "damaged.npz", key)
    assert not (tmp_path / "model.safetensors").exists()

"""scripts/doctor.py --audit: no operator that Ascend or GPU lack creeps in, and what the audit reads and writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiment.provenance import command_of
from scripts import doctor
from scripts.doctor_parts import doctor_audit, doctor_graphs
from scripts.doctor_parts.doctor_graphs import BOOKKEEPING, FORCES, NODE, Audited, AuditError, environment
from scripts.doctor_parts.doctor_platforms import Declared, declared

ROOT = Path(__file__).parents[2]
#: a train step on forces has every operator of a model; one block has those of all; each readout has its own; a graph
#: that changes no parameter may copy those that it joins
COMPILED = """
import json, sys
from pathlib import Path
from scripts.doctor_parts import doctor_graphs as graphs

small = {"blocks": 1, "layers_before_skip": 1, "layers_after_skip": 1, "output_layers": 1}
CASES = (
    ("schnet", graphs.FORCES, {}),
    ("schnet", graphs.TRAIN, {"amp_level": "O2"}),
    ("schnet", "evaluation with forces", {"blocks": 2}),
    ("schnet", "evaluation", {"readout": "dipole"}),
    ("schnet", "evaluation", {"readout": "electronic_spatial_extent", "amp_level": "O2"}),
    ("dimenetpp", graphs.FORCES, {}),
    ("dimenetpp", graphs.TRAIN, {"amp_level": "O2"}),
    ("segnn", graphs.FORCES, {"lmax": 1, "lmax_attributes": 1}),
    ("graph_attention_transformer", graphs.FORCES, {"lmax": 1, "irreps": "4x0e+2x1o", "irreps_head": "2x0e+1x1o",
     "irreps_mlp": "4x0e+2x1o", "irreps_features": "4x0e", "radial_layers": 1}),
)
graphs.ms.set_context(mode=graphs.MODES["GRAPH"])
for name, step, chosen in CASES:
    hyperparameters = {**graphs.sizes(name), **small, "amp_level": "O0", **chosen}
    known = {key: value for key, value in hyperparameters.items() if key not in small or key in graphs.sizes(name)}
    cell, arguments = graphs.step_of(name, graphs.model_of(name, **known), step)
    counts = graphs.operators_of(cell, arguments, Path(sys.argv[1]))
    print(json.dumps([name, step, chosen, dict(counts)]))
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Model, step, what was chosen, and operators of the final graph."""
    folder = tmp_path_factory.mktemp("graphs")
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, str(folder)], cwd=ROOT, env={**os.environ, **environment(folder)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


def test_every_operator_is_declared_for_ascend_and_gpu(compiled):
    assert len(compiled) == 9
    for name, step, chosen, operators in compiled:
        assert not doctor_audit.creeping(operators), f"{name} {step} {chosen}: see scripts/doctor_parts/doctor_audit.py"


def test_what_was_compiled_is_the_path_of_operators(compiled):
    """With the kernels it would be a handful of Custom operators, which prove nothing."""
    for _, step, chosen, operators in compiled:
        assert "Custom" not in operators and operators["UnsortedSegmentSum"] > 0
        assert ("AdamWeightDecay" in operators) == step.startswith("train")
        assert chosen.get("amp_level") != "O2" or operators["Cast"] > 3


def test_weights_of_one_shape_share_their_operators(compiled):
    """Two slices of the step itself, and one or two for a group of weights, not one for each weight."""
    for name, step, _, operators in compiled:
        if step == FORCES and name == "dimenetpp":
            assert operators["AdamWeightDecay"] == 1 and operators["StridedSlice"] < operators["Assign"]


ALL = frozenset({"Ascend", "GPU", "CPU"})


@pytest.mark.parametrize(
    "name, expected",
    [
        ("MatMul", Declared(ALL, ALL, "ops.matmul")),
        ("Mul", Declared(None, ALL, "ops.mul")),
        ("UnsortedSegmentSum", Declared(None, ALL, "ops.unsorted_segment_sum")),
        ("SumExt", Declared(None, ALL, "ops.sum")),
        ("RealDiv", Declared(ALL, None, "")),
        ("SigmoidGrad", Declared(None, ALL, "gradient of Sigmoid")),
        ("ReluGrad", Declared(None, ALL, "gradient of ReLU")),
        ("ZerosLikeExt", Declared(frozenset({"Ascend"}), ALL, "ops.zeros_like")),
        ("TensorMove", Declared(None, None, "")),
        ("NoSuchGrad", Declared(None, None, "")),
    ],
)
def test_the_pages_of_an_operator(name, expected):
    assert declared(name) == expected


def test_one_page_that_lacks_a_target_is_enough_to_refuse():
    assert doctor_audit.creeping(["MatMul", "ZerosLikeExt", "NoSuch", "Muls"]) == ["Muls", "NoSuch", "ZerosLikeExt"]


def test_nodes_of_a_graph():
    graph = """
  %0(a) = Load(%para1_weight, %para2_u)
  %1(equiv_2_CNode_3) = PrimFunc_MatMul(%0, %para3_x, Bool(0), Bool(1)) {instance name: multiply}
      # In file model.py:3, 4~9/        %9(x) = Fake(%1) in a comment is no node/
  %2(CNode_4) = Stack(%1)
  Return(%2)
"""
    assert [name for name in NODE.findall(graph) if name not in BOOKKEEPING] == ["MatMul", "Stack"]


class Uncompiled:
    def compile(self):
        pass


def test_no_graph_is_an_error(tmp_path):
    with pytest.raises(AuditError, match="wrote no final graph"):
        doctor_graphs.operators_of(Uncompiled(), (), tmp_path)


ROWS = [
    Audited("schnet lite", "O0", FORCES, {"MatMul": 40, "Reshape": 2}),
    Audited("schnet lite", "O0", "evaluation", {"MatMul": 10, "ZerosLikeExt": 1}),
]


def test_the_tables():
    text = doctor_audit.report(ROWS, command_of("scripts/doctor.py", ["--audit"]))
    lines = text.splitlines()
    assert "| schnet lite | O0 |  | 42 (2) | 11 (0) |  |  |" in lines
    assert "| MatMul | Ascend GPU CPU | Ascend GPU CPU (ops.matmul) | 40 |  |" in lines
    assert "| ZerosLikeExt | Ascend | Ascend GPU CPU (ops.zeros_like) | 1 | NOT DECLARED for Ascend and GPU |" in lines


def test_the_program_says_what_creeps_in(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(doctor_audit, "measure", lambda: ROWS)
    assert doctor.main(["--audit", "--output", str(tmp_path / "a.md")]) == 1
    assert capsys.readouterr().out == "WRONG: ZerosLikeExt is not declared for Ascend and GPU\n"
    assert "| MatMul |" in (tmp_path / "a.md").read_text(encoding="utf-8")
    monkeypatch.setattr(doctor_audit, "measure", lambda: ROWS[:1])
    assert doctor.main(["--audit"]) == 0 and "| MatMul |" in capsys.readouterr().out
    assert doctor.main(["--output", "a.md"]) == 2
    assert capsys.readouterr().err == "error: --output: expected together with --audit; --help lists the options\n"


def test_a_process_that_fails_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(doctor_audit, "environment", lambda folder: {"PYTHONPATH": "", "PYTHONHOME": str(folder)})
    assert doctor.main(["--audit"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

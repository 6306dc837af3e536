"""scripts/doctor_parts/doctor_operators.py: the table names what the models use."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.doctor_parts.doctor_operators import operators

ROOT = Path(__file__).parents[2]


def test_every_operator_of_the_models_is_in_the_table():
    """A name after ``ops.`` in the source of models that is neither in the table nor constant."""
    constant = {"ones_like", "zeros_like", "ZerosLike"}
    # inside gather, segment_sum, swish, the kernels and so on, which are there
    inside = {"Gather", "UnsortedSegmentSum", "Softplus", "Concat", "Sigmoid", "Lerp", "BiasAdd", "ReduceSum", "Custom"}
    inside |= {"Slice"}
    of_state = {"assign", "depend"}  # nothing to differentiate: AdamW of the train steps, which the doctor tries too
    used = set()
    for path in (ROOT / "models").rglob("*.py"):
        used |= set(re.findall(r"\bops\.(\w+)", path.read_text(encoding="utf-8")))
    files = (ROOT / "scripts" / "doctor_parts" / f"doctor_{name}.py" for name in ("operators", "e3"))
    table = "".join(file.read_text(encoding="utf-8") for file in files)
    missing = used - constant - inside - of_state - set(re.findall(r"\bops\.(\w+)", table))
    assert not missing, f"add to scripts/doctor_parts/doctor_operators.py: {missing}"
    assert len({operator.name for operator in operators("float32")}) == len(operators("float32"))

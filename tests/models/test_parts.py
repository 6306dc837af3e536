"""models/parts.py: every network has an embedding, blocks and a head, and learning rates fall towards the embedding."""

from __future__ import annotations

import pytest
from helpers import CASES, model_of

from models.parts import BLOCKS, chosen, part_of, parts_of, rates_of

MODELS = {case.model: case.build() for case in CASES if case.name == case.model} | {
    name: model_of(name, average_degree=5.0) for name in ("direct_head", "graph_transformer")
}
NAMES = {name: [parameter.name for parameter in model.get_parameters()] for name, model in MODELS.items()}


@pytest.mark.parametrize("model", NAMES)
def test_every_network_has_all_parts(model):
    names = NAMES[model]
    parts = list(parts_of(names))
    assert parts[0] == "embedding" and parts[-1] == "head" and len(parts) >= 3
    assert parts[1:-1] == [f"block{k}" for k in range(len(parts) - 2)]
    assert sorted(name for of_part in parts_of(names).values() for name in of_part) == sorted(names)
    assert chosen(names, [BLOCKS]) == {name for name in names if part_of(name).startswith("block")}
    assert chosen(names, ["embedding", BLOCKS, "head"]) == set(names)


def test_words_mean_parts_or_beginnings_of_names():
    names = [
        "network.embedding.table",
        "network.layers.0.a",
        "network.layers.10.a",
        "network.layers.10.b",
        "network.head.w",
    ]
    assert list(parts_of(names)) == ["embedding", "block0", "block10", "head"]
    assert chosen(names, ["block10", "head"]) == set(names[2:])
    assert chosen(names, ["network.layers.10"]) == set(names[2:4])
    assert chosen(names, ["network.layers.10.b"]) == {names[3]}
    for word in ("network.layers.1", "block1", "heads", ""):
        with pytest.raises(ValueError, match="expected embedding, block0, block10, head, blocks"):
            chosen(names, [word])


def test_rates_fall_from_the_head_to_the_embedding():
    names = ["network.embedding.table", "network.layers.0.a", "network.layers.1.a", "network.head.w"]
    assert list(rates_of(names, 0.5).values()) == [0.125, 0.25, 0.5, 1.0]
    assert set(rates_of(names, 1.0).values()) == {1.0}

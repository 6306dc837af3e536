"""The parts of a network, from its parameters' names: what reads elements and geometry, the blocks, the head.

``embedding`` is what comes before the blocks, ``block0``, ``block1``, ... follow each other, and ``head`` makes the
values of atoms, or the force constants, from what the blocks know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

EMBEDDING, BLOCKS, HEAD = "embedding", "blocks", "head"
IN_A_BLOCK = re.compile(r"network\.(?:interactions|layers|blocks)\.(\d+)\.")
#: what belongs to the head, without the number of a block
OF_HEADS = (
    "value", "output", "outputs", "pre_pool_first", "pre_pool_second", "post_pool_first", "post_pool_second", "head",
    "heads", "readout", "blocks",
)  # fmt: skip


def part_of(name: str) -> str:
    """The part that a parameter belongs to."""
    block = IN_A_BLOCK.match(name)
    if block:
        return f"block{block[1]}"
    first, *rest = name.split(".")
    return HEAD if first != "network" or (rest and rest[0] in OF_HEADS) else EMBEDDING


def parts_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The parameters of each part, the parts in their order."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(part_of(name), []).append(name)

    def order(part: str) -> int:
        return {EMBEDDING: -1, HEAD: 10**6}[part] if part in (EMBEDDING, HEAD) else int(part.removeprefix("block"))

    return {part: found[part] for part in sorted(found, key=order)}


def chosen(names: Iterable[str], words: Iterable[str]) -> set[str]:
    """The parameters that words mean: parts, ``blocks`` for all blocks, or beginnings of names.

    Raises:
        ValueError: a word means none.
    """
    every = list(names)
    parts, found = parts_of(every), set()
    for word in words:
        of_word = {name for name in every if name == word or name.startswith(f"{word}.")}
        of_word |= set(parts.get(word, ()))
        if word == BLOCKS:
            of_word |= {name for name in every if IN_A_BLOCK.match(name)}
        if not of_word:
            raise ValueError(
                f"{word!r}: expected {', '.join([*parts, BLOCKS])}, or the beginning of a parameter's name such as "
                f"{every[0].rpartition('.')[0]}"
            )
        found |= of_word
    return found


def rates_of(names: Iterable[str], layer_decay: float) -> dict[str, float]:
    """The factor of each parameter's learning rate: 1 for the head, ``layer_decay`` times less for each part before."""
    parts = parts_of(names)
    return {name: layer_decay ** (len(parts) - 1 - depth) for depth, part in enumerate(parts) for name in parts[part]}

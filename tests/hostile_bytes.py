"""Ways to damage bytes, text and JSON: each takes a random generator and good content and returns bad content."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np

Random = np.random.Generator
Damage = Callable[[Random, bytes], bytes]

TOKENS = (
    b"nan", b"inf", b"-inf", b"-1", b"0", b"1e999", b"-1e308", b"1e12", b"1000000000000", b"9" * 5000, b"Xx", b"\x00",
    b"\xff\xfe", b"1_0", b"0x10", b"\xd9\xa3", b"\xe2\x80\xa8", b"A" * 100_000, b"%s%n", b"../../etc/passwd", b"",
    b"2147483648", b"9223372036854775808", b"1e-320", b"true", b"null", b"{}", b"\"", b"'", b"*", b"$$$$", b"=",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e999, float("nan"), 10**12, 10**400, 2**63, "", "x", "A" * 100_000, "two\nlines", [], {}, [[]],
    {"a": 1}, "../../etc/passwd", 1.5, "nan", [1, "2"],
)  # fmt: skip


def truncate(random: Random, data: bytes) -> bytes:
    return data[: random.integers(0, len(data))]


def flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for place in random.integers(0, len(data), random.integers(1, 20)):
        changed[place] ^= int(random.integers(1, 256))
    return bytes(changed)


def blank(random: Random, data: bytes) -> bytes:
    """A lost disk block."""
    start, size = random.integers(0, len(data)), random.integers(1, 600)
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :]


def insert(random: Random, data: bytes) -> bytes:
    place = random.integers(0, len(data))
    return data[:place] + random.bytes(random.integers(1, 100)) + data[place:]


def remove(random: Random, data: bytes) -> bytes:
    start = random.integers(0, len(data))
    return data[:start] + data[start + random.integers(1, 200) :]


def twice(random: Random, data: bytes) -> bytes:
    return data + data


def empty(random: Random, data: bytes) -> bytes:
    return b""


def noise(random: Random, data: bytes) -> bytes:
    return random.bytes(random.integers(1, 5000))


def wrong_magic(random: Random, data: bytes) -> bytes:
    starts = (b"PK\x03\x04", b"BZh9", b"\x1f\x8b\x08", b"\x80\x04\x95", b"\x89PNG", b"<html>", b"\x93NUMPY", b"%PDF")
    return starts[random.integers(len(starts))] + data[4:]


def of_another(contents: list[bytes]) -> Damage:
    """The right name over the content of another format."""

    def other(random: Random, data: bytes) -> bytes:
        return contents[random.integers(len(contents))]

    other.__name__ = "another_format"
    return other


BYTES: tuple[Damage, ...] = (truncate, flip, blank, insert, remove, twice, empty, noise, wrong_magic, truncate, flip)


def token(random: Random, data: bytes) -> bytes:
    """One word of one line becomes a hostile one."""
    lines = data.split(b"\n")
    full = [row for row, line in enumerate(lines) if line.split()]
    row = full[random.integers(len(full))]
    words = lines[row].replace(b",", b" , ").split()
    words[random.integers(len(words))] = TOKENS[random.integers(len(TOKENS))]
    lines[row] = b" ".join(words).replace(b" , ", b",")
    return b"\n".join(lines)


def first_token(random: Random, data: bytes) -> bytes:
    """The first line, which announces a count in most formats."""
    _, newline, rest = data.partition(b"\n")
    return TOKENS[random.integers(len(TOKENS))] + newline + rest


def drop_line(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    del lines[random.integers(len(lines))]
    return b"\n".join(lines)


def repeat_line(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    row = random.integers(len(lines))
    return b"\n".join([*lines[:row], lines[row], *lines[row:]])


def drop_field(random: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    row = random.integers(len(lines))
    words = lines[row].split()
    if words:
        del words[random.integers(len(words))]
    lines[row] = b" ".join(words)
    return b"\n".join(lines)


def carriage_returns(random: Random, data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n" if random.random() < 0.5 else b"\r")


def in_utf16(random: Random, data: bytes) -> bytes:
    return data.decode("utf-8").encode("utf-16")


TEXT: tuple[Damage, ...] = (
    token, token, token, first_token, drop_line, repeat_line, drop_field, carriage_returns, in_utf16, *BYTES
)  # fmt: skip


def deep(depth: int = 100_000) -> bytes:
    return b"[" * depth + b"]" * depth


def damage_json(random: Random, content: dict[str, Any]) -> dict[str, Any]:
    """Somewhere in a nested dictionary a value is replaced, dropped, or gets a stranger beside it."""
    changed = copy.deepcopy(content)
    place: Any = changed
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[random.integers(len(keys))]
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.3:
            break
        place = inner
    what = random.random()
    if what < 0.7:
        place[key] = copy.deepcopy(VALUES[random.integers(len(VALUES))])
    elif what < 0.85 or isinstance(place, list):
        del place[key]
    else:
        place["../stranger"] = inner
    return changed


def json_values(random: Random, data: bytes) -> bytes:
    return json.dumps(damage_json(random, json.loads(data))).encode()


def json_whole(random: Random, data: bytes) -> bytes:
    documents = (b"[]", b"null", b"{}", b'"text"', b"1", deep(), b'{"format":' + deep() + b"}", b"{" * 10)
    return documents[random.integers(len(documents))]


JSON: tuple[Damage, ...] = (json_values, json_values, json_values, json_values, json_whole, *TEXT)

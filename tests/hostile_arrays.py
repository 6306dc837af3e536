"""Ways to damage arrays and the containers that hold them: npy, npz and safetensors files."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from hostile_bytes import Random, damage_json, deep

Arrays = dict[str, np.ndarray]


class Payload:
    """What a pickle would run: it leaves a file behind."""

    marker = ""  # set by the runner

    def __reduce__(self):
        return (open, (Payload.marker, "w"))


def _spoil(random: Random, array: np.ndarray, values: list[float]) -> np.ndarray:
    changed = array.copy()
    if changed.size:
        with np.errstate(all="ignore"):
            changed.reshape(-1)[random.integers(changed.size)] = values[random.integers(len(values))]
    return changed


def not_finite(random: Random, array: np.ndarray) -> np.ndarray:
    numbers = array.astype(np.float64) if array.dtype.kind in "iuf" else np.zeros(array.shape)
    return _spoil(random, numbers, [np.nan, np.inf, -np.inf, 1e300, -1e300, 1e7])


def whole_numbers(random: Random, array: np.ndarray) -> np.ndarray:
    chosen = random.choice([-1, 0, 119, 255, 2**31, 2**32 + 6, 2**62, -(2**63)])
    changed = np.zeros(array.shape, np.int64) if array.dtype.kind not in "iuf" else array.astype(np.int64)
    if changed.size:
        changed.reshape(-1)[random.integers(changed.size)] = chosen
    return changed


def unsigned_wrap(random: Random, array: np.ndarray) -> np.ndarray:
    return np.full(array.shape, 2**64 - 1, np.uint64)


def sum_wraps(random: Random, array: np.ndarray) -> np.ndarray:
    """Four counts of 2^62 add up to 0 in 64 bits."""
    return np.concatenate([np.full(4, 2**62, np.int64), np.zeros(array.size, np.int64) + 1])


def other_type(random: Random, array: np.ndarray) -> np.ndarray:
    kinds = ("U3", "S3", "?", "c16", "M8[s]", "V4", "f2", ">f8", "i1", "f4", [("a", "i4"), ("b", "f8")])
    return np.zeros(array.shape, np.dtype(kinds[random.integers(len(kinds))]))


def other_shape(random: Random, array: np.ndarray) -> np.ndarray:
    if not array.ndim:
        return array[None]
    shapes = (array[:-1], array[None], array[..., None], array.T, array[:0], array.reshape(-1), array[..., :1])
    return shapes[random.integers(len(shapes))]


def no_dimension(random: Random, array: np.ndarray) -> np.ndarray:
    return np.array(1)


def coincident(random: Random, array: np.ndarray) -> np.ndarray:
    return np.zeros_like(array)


def objects(random: Random, array: np.ndarray) -> np.ndarray:
    return np.array([Payload()] * max(len(np.atleast_1d(array)), 1), dtype=object)


ARRAYS: tuple[Callable[[Random, np.ndarray], np.ndarray], ...] = (
    not_finite, whole_numbers, unsigned_wrap, sum_wraps, other_type, other_type, other_shape, other_shape, no_dimension,
    coincident, objects,
)  # fmt: skip


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def npy_header(random: Random, data: bytes) -> bytes:
    """An npy file whose header announces something else than what follows."""
    headers = (
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-3,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f99', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': (3,), }",
        "{'descr': __import__('os').getpid(), 'fortran_order': False, 'shape': (3,), }",
        "(" * 3000,
        "[" * 9000 + "]" * 9000,
        "{'descr': '<f8', 'fortran_order': False, 'shape': 3, 'extra': 1}",
        "\x00\x00",
    )
    text = headers[random.integers(len(headers))].encode() + b"\n"
    version = (1, 2, 3, 9)[random.integers(4)]
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data[-64:]


def zip_of(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    return zip_of({f"{name}.npy": npy(array) for name, array in arrays.items()})


def _one(random: Random, arrays: Arrays) -> str:
    return sorted(arrays)[random.integers(len(arrays))]


def damaged_arrays(random: Random, arrays: Arrays) -> Arrays:
    """One array, or now and then two, of another kind, shape or value."""
    changed = dict(arrays)
    for _ in range(1 + (random.random() < 0.2)):
        name = _one(random, changed)
        changed[name] = ARRAYS[random.integers(len(ARRAYS))](random, np.asarray(changed[name]))
    return changed


def npz_arrays(random: Random, arrays: Arrays) -> bytes:
    return npz(damaged_arrays(random, arrays))


def npz_without_one(random: Random, arrays: Arrays) -> bytes:
    left_out = _one(random, arrays)
    return npz({name: array for name, array in arrays.items() if name != left_out})


def npz_header(random: Random, arrays: Arrays) -> bytes:
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    name = f"{_one(random, arrays)}.npy"
    return zip_of(members | {name: npy_header(random, members[name])})


def npz_bomb(random: Random, arrays: Arrays) -> bytes:
    """Kilobytes that become more than any small archive may."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (80_000_000,)})
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    name = f"{_one(random, arrays)}.npy" if random.random() < 0.5 else "extra.npy"
    return zip_of(members | {name: header.getvalue() + bytes(80_000_000)}, zipfile.ZIP_DEFLATED)


def npz_names(random: Random, arrays: Arrays) -> bytes:
    """Names that would leave the folder if anything were extracted."""
    names = ("../../evil.npy", "/tmp/evil.npy", "a/../../evil.npy", "evil\x00.npy", ".npy", "evil", "positions")
    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    name = names[random.integers(len(names))]
    return zip_of(members | {name: npy(np.arange(3))})


def npz_pickle(random: Random, arrays: Arrays) -> bytes:
    """A bare pickle in place of an array, as torch and old NumPy keep them."""
    import pickle  # noqa: PLC0415

    members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
    name = f"{_one(random, arrays)}.npy"
    extra = {"archive/data.pkl": pickle.dumps(Payload()), "archive/version": b"3\n"}
    return zip_of(members | {name: pickle.dumps(Payload())} if random.random() < 0.5 else members | extra)


def npz_method(random: Random, arrays: Arrays) -> bytes:
    """Flags and methods of the central directory: encrypted, unknown compression, another size."""
    data = bytearray(npz(arrays))
    entry = data.find(b"PK\x01\x02")
    place, value = ((8, b"\x01\x00"), (10, b"\x63\x00"), (24, b"\xff\xff\xff\x7f"), (42, b"\xff\xff\xff\x7f"))[
        random.integers(4)
    ]
    data[entry + place : entry + place + len(value)] = value
    return bytes(data)


NPZ = (
    npz_arrays, npz_arrays, npz_arrays, npz_arrays, npz_arrays, npz_arrays, npz_without_one, npz_header, npz_header,
    npz_names, npz_pickle, npz_method, npz_bomb,
)  # fmt: skip


def safetensors_parts(data: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def safetensors_of(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def safetensors_length(random: Random, data: bytes) -> bytes:
    lengths = (0, 1, 7, 2**62, 2**63, 2**64 - 1, len(data), len(data) - 8, 100_000_001)
    return struct.pack("<Q", lengths[random.integers(len(lengths))]) + data[8:]


def safetensors_entry(random: Random, data: bytes) -> bytes:
    """One tensor's type, shape or place is a lie."""
    header, body = safetensors_parts(data)
    names = [name for name in header if name != "__metadata__"]
    entry = header[names[random.integers(len(names))]]
    lies = (
        {"dtype": "F128"}, {"dtype": "BF16"}, {"dtype": "F8_E4M3"}, {"dtype": "I4"}, {"dtype": "BOOL"}, {"dtype": 3},
        {"dtype": ""}, {"shape": [2**40, 2**40]}, {"shape": [-1]}, {"shape": [2**63]}, {"shape": "3"}, {"shape": []},
        {"shape": [0]}, {"data_offsets": [0, 2**62]}, {"data_offsets": [8, 0]}, {"data_offsets": [0, 16]},
        {"data_offsets": [-8, 8]}, {"data_offsets": [len(body), len(body) + 8]}, {"data_offsets": []},
        {"shape": [10**400]}, {"data_offsets": [0, 0], "shape": [0, 2**60]}, {"dtype": "BF16", "shape": [0]},
    )  # fmt: skip
    entry.update(lies[random.integers(len(lies))])
    return safetensors_of(header, body)


def safetensors_header(random: Random, data: bytes) -> bytes:
    header, body = safetensors_parts(data)
    deeper = b'{"a":' + deep() + b"}"
    wholes = (b"[]", b"null", b"{}", deep(), deeper, b"\xff\xfe", b"{" + b" " * 1000, b'{"a":1,"a":2}')
    chosen = random.integers(len(wholes) + 6)
    return safetensors_of(wholes[chosen] if chosen < len(wholes) else damage_json(random, header), body)


def safetensors_values(random: Random, data: bytes) -> bytes:
    header, body = safetensors_parts(data)
    damaged = bytearray(body)
    damaged[random.integers(len(body))] ^= 0xFF
    return safetensors_of(header, bytes(damaged))


SAFETENSORS = (
    safetensors_length, safetensors_entry, safetensors_entry, safetensors_entry, safetensors_header, safetensors_header,
    safetensors_values,
)  # fmt: skip


def write_npy_folder(random: Random, folder: Path) -> str:
    """One array of a folder of npy files is of another kind; returns what happened."""
    files = sorted(folder.glob("*.npy"))
    file = files[random.integers(len(files))]
    if random.random() < 0.25:
        file.write_bytes(npy_header(random, file.read_bytes()))
        return f"{file.name} header"
    change = ARRAYS[random.integers(len(ARRAYS))]
    array = change(random, np.load(file))
    file.write_bytes(npy(array))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["arrays"][file.stem]["shape"] = list(array.shape)  # or the shape alone would give it away
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return f"{file.name} {change.__name__}"

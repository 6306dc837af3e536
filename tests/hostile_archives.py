"""Tar archives and YAML documents made to harm: names that climb, devices, bombs, tags and endless nesting."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from hostile_bytes import TEXT, Random

BOMB = 80 << 20  # bytes of zeros: more than any small archive may become
PACKERS = {"tar.bz2": bz2.compress, "tar.gz": lambda data: gzip.compress(data, 1), "tar": bytes}


Member = tuple[tarfile.TarInfo, bytes]


def tar_of(files: Mapping[str, bytes], extra: list[Member] | None = None, form: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed archive; ``extra`` members are written as they stand, whatever their headers claim."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member, data in extra or []:
            header = member.tobuf(form, "utf-8", "surrogateescape")
            archive.fileobj.write(header + data + bytes(-len(data) % 512))  # type: ignore[union-attr]
            archive.offset += len(header) + len(data) + -len(data) % 512  # type: ignore[attr-defined]
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


Files = dict[str, bytes]


def names_that_climb(random: Random, files: Files) -> bytes:
    places = ("../../{}", "/tmp/{}", "a/../../../{}", "./../{}", "C:\\{}", "{}\n", "\udce9/{}", "//{}")
    place = places[random.integers(len(places))]
    return tar_of({place.format(name): data for name, data in files.items()})


def links_and_devices(random: Random, files: Files) -> bytes:
    name = next(iter(files))
    others = (
        member(name, tarfile.SYMTYPE, link="/etc/passwd"),
        member(name, tarfile.SYMTYPE, link=name),
        member(name, tarfile.LNKTYPE, link="../../etc/passwd"),
        member(name, tarfile.CHRTYPE),
        member(name, tarfile.BLKTYPE),
        member(name, tarfile.FIFOTYPE),
        member(name, tarfile.DIRTYPE),
        member(name, tarfile.CONTTYPE),
        member("gdb9.sdf", tarfile.SYMTYPE, link="/etc/passwd"),
        member(name, b"Z"),
    )
    chosen = others[random.integers(len(others))]
    return tar_of({} if random.random() < 0.5 else {**files}, [(chosen, b"")])


def sizes_that_lie(random: Random, files: Files) -> bytes:
    size = (10**10, 8**11 - 1, 600, 1 << 21, 1 << 60)[random.integers(5)]
    kinds = (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE)
    name = ("gdb9.sdf", "dsgdb9nsd_000009.xyz", "readme")[random.integers(3)]
    return tar_of(files, [(member(name, kinds[random.integers(len(kinds))], size), b"12 hello\n")], tarfile.GNU_FORMAT)


def extended_headers(random: Random, files: Files) -> bytes:
    texts = (
        b"12 path=abc\n", b"99999999999 path=a\n", b"x path=a\n", b"13 size=-100\n", b"20 size=99999999999\n",
        b"20 GNU.sparse.size=x\n", b"25 GNU.sparse.realsize=9\n", b"\xff\xfe\n", b"-5 a=b\n", b"11 mtime=n\n", b"0 =\n",
        b"30 GNU.sparse.map=0,1,2,3,4,x\n", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n", b"14 path=\x00/../\n",
    )  # fmt: skip
    text = texts[random.integers(len(texts))]
    kind = (tarfile.XHDTYPE, tarfile.XGLTYPE)[random.integers(2)]
    name, data = next(iter(files.items()))
    return tar_of({}, [(member("header", kind, len(text)), text), (member(name, size=len(data)), data)])


def bomb(random: Random, files: Files) -> bytes:
    """Zeros that compress to nothing, where they would be kept, be skipped, or be read as a header."""
    kinds = (("gdb9.sdf", tarfile.REGTYPE), ("readme", tarfile.REGTYPE), ("header", tarfile.XHDTYPE))
    name, kind = kinds[random.integers(len(kinds))]
    return tar_of({} if random.random() < 0.5 else files, [(member(name, kind, BOMB), bytes(BOMB))])


def trailing_bomb(random: Random, files: Files) -> bytes:
    return tar_of(files) + bytes(BOMB)


def damaged_member(random: Random, files: Files) -> bytes:
    names = sorted(files)
    name = names[random.integers(len(names))]
    return tar_of(files | {name: TEXT[random.integers(len(TEXT))](random, files[name])})


def nothing_inside(random: Random, files: Files) -> bytes:
    return tar_of({})


def one_name_twice(random: Random, files: Files) -> bytes:
    return tar_of(files | {f"copy/{name}": data for name, data in files.items()})


TARS: tuple[Callable[[Random, Files], bytes], ...] = (
    damaged_member, damaged_member, names_that_climb, names_that_climb, links_and_devices, links_and_devices,
    links_and_devices, sizes_that_lie, sizes_that_lie, sizes_that_lie, extended_headers, extended_headers,
    extended_headers, nothing_inside, one_name_twice,
)  # fmt: skip
BOMBS = (bomb, trailing_bomb)


def laughs(merge: bool) -> str:
    """Nine levels of nine aliases: a thousand million values, or as many merged keys."""
    lines = ["a0: &a0 {lol: 1}" if merge else "a0: &a0 [lol, lol]"]
    for level in range(1, 10):
        many = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{many}]}}" if merge else f"[{many}]"))
    return "\n".join(lines)


def yaml_documents(marker: str) -> tuple[str, ...]:
    """Whole configurations; ``marker`` is the file that a tag would make if it were obeyed."""
    return (
        f"model: !!python/object/apply:builtins.open ['{marker}', w]",
        "!!python/object/new:type {args: [x, [], {extend: !!python/name:exec }], "
        f"listitems: \"open('{marker}','w')\"}}",
        f"training: {{epochs: !!python/object/apply:os.system ['touch {marker}']}}",
        "model: !!python/module:os", "model: !unknown {features: 8}", "model: !!binary 'not base64!'",
        "training: !!set {epochs}", "training: !!omap [epochs: 1]", "training: {epochs: !!int 'x'}",
        "training: {epochs: !!timestamp '2001-99-99'}", "training: !!pairs [a: b]",
        laughs(merge=False), laughs(merge=True), laughs(merge=False) + "\nmodel: {features: *a9}",
        laughs(merge=False) + "\nmodel: *a9", "model: &m {features: *m}", "&r model: *r", "a: &a [*a]",
        "model: {name: &n [*n]}",
        "[" * 100_000, "{a: " * 100_000, "- " * 100_000, "model: " + "[" * 5000 + "]" * 5000,
        "model: {features: " + "9" * 5000 + "}", "optimizer: {lr: " + "9" * 400 + "}", "optimizer: {lr: 1e999}",
        "training: {epochs: " + "9" * 30 + "}", "run: {seed: 99999999999999999999}", "optimizer: {lr: .nan}",
        "optimizer: {lr: -.inf}", "training: {epochs: true}", "training: {epochs: 1:30}", "training: {epochs: 0b2}",
        "? [a, b]\n: c", "? {a: b}\n: c", "1: 2", "null: {}", "true: {}", "model:\n- features", "---\na\n---\nb",
        "model: {features: 8, features: 9}", "<<: model", "model: {<<: 3}", "model: |\n  features: 8", "\tmodel: {}",
        "%YAML 9.9\n---\nmodel: {}", "%TAG ! x\n---\n!y z", "model: {" + "x" * 100_000 + ": 1}", "x" * 2_000_000,
        "a: b\n" * 400_000, "model: {features: *nothing}", "data: {file: 3}", "data: {file: [a]}", "@", "`", "model: '",
        "model: \"\\x\"", "model: {name: {a: b}}", "model: {name: [" + "a," * 100_000 + "]}", "model: \udce9",
        "run: {output: \"a\\0b\"}", "run: {output: \"two\\nlines\", dtype: 1}", "model: {features: \"two\\nlines\"}",
        "model: {\"two\\nlines\": 1}", "\"two\\nlines\": 1", "model: {name: \"two\\nlines\"}",
    )  # fmt: skip


OVERRIDES = (
    ("model.features", "!!python/object/apply:os.getpid []"), ("model.features", laughs(merge=True)),
    ("model.features", "[" * 50_000), ("model.features", "9" * 5000), ("model", "3"), ("", ""), (".", "."),
    ("model.features.x", "1"), ("optimizer.lr", "9" * 400), ("optimizer.lr", "nan"), ("training.epochs", "1e3"),
    ("model.name", "\n"), ("model.na\nme", "x"), ("model.features", "&a [*a]"), ("model.features", "{a: b"),
    ("\x00.\x00", "\x00"), ("model.features", "\x00"), ("model.features", "x" * 1_000_000), ("mod\nel.a", "1"),
    ("run.seed", "2001-13-45"), ("training.epochs", "0"), ("training.loss", "\u2028"), ("model.cutoff", "-0.0"),
    ("data.split", "*x"), ("run.dtype", "&x"), ("model.cutoff", "1_0"), ("x" * 100_000, "1"),
    ("model." + "x" * 9999, "1"),
)  # fmt: skip


def write_yaml(random: Random, path: Path, documents: tuple[str, ...]) -> None:
    text = documents[random.integers(len(documents))]
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

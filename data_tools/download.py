"""Fetching a published file: mirrors in turn, resumed where a transfer broke off, checked before it gets its name."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_tools.graph import DataError
from data_tools.progress_bar import track
from data_tools.source_files import BLOCK, one_line, sha256_of

TIMEOUT_SECONDS = 30
RESUMES = 5  # in a row, on one mirror, before the next mirror is tried
HEADERS = {"User-Agent": "geospore (data preparation)", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """A file that others publish.

    Attributes:
        name: what it is called on disk.
        mirrors: addresses that serve the same bytes, best first.
        size: bytes, where it is known.
        sha256: hexadecimal digits, where they are known; without them only the contents can be checked.
    """

    name: str
    mirrors: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None


class TransferError(Exception):
    """One mirror did not deliver the file; the message says why."""


class _Answer(NamedTuple):
    """A server's answer, and where in the file it begins and the file ends."""

    response: http.client.HTTPResponse
    start: int
    total: int | None


def fetch(remote: RemoteFile, folder: Path, progress: bool = False) -> Path:
    """Make sure that a published file lies whole in ``folder``; a file that is there already is checked and kept.

    The bytes go to ``NAME.part`` and the name is given last, so a file with its name is a whole file.  After a failure
    the part stays, and the next call goes on from it.

    Args:
        remote: what to fetch, and from where.
        folder: made if it is not there.
        progress: report on stderr.

    Returns:
        The path of the file.

    Raises:
        DataError: no mirror delivered it, with the file to fetch by hand and where to put it; or another file has its
            name.
    """
    target = folder / remote.name
    if target.exists():
        try:
            _verify(remote, target)
        except TransferError as error:
            raise DataError(f"{target}: {error}; move it away and run again to fetch the published file") from None
        return target
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for address in remote.mirrors:
            try:
                part = _fetch_from(address, remote, folder, progress)
            except TransferError as error:
                reasons.append(f"{address}: {error}")
            else:
                os.replace(part, target)
                return target
    except OSError as error:
        raise DataError(f"{target}: cannot write it ({one_line(error)}); choose another folder or free space") from None
    raise DataError(
        f"{remote.name} could not be downloaded ({'; '.join(reasons)}); fetch {remote.mirrors[0]} on a machine with a "
        f"network, put it into {folder} as {remote.name}, and run again"
    )


def _fetch_from(address: str, remote: RemoteFile, folder: Path, progress: bool) -> Path:
    """Fetch from one mirror, going on where a transfer broke off as long as each attempt brings something.

    Raises:
        TransferError: it gives nothing, or not the published file.
    """
    part = folder / f"{remote.name}.part"
    for _ in range(RESUMES):
        before = part.stat().st_size if part.exists() else 0
        total = _transfer(address, part, remote.size, progress)
        received = part.stat().st_size
        if received >= total:
            break
        if received <= before:
            raise TransferError(f"the connection broke after {received:,} of {total:,} bytes")
    else:
        raise TransferError(f"the connection broke {RESUMES} times, at last after {received:,} of {total:,} bytes")
    try:
        _verify(remote, part)
    except TransferError:
        part.unlink()  # wrong bytes must not become the beginning of the next attempt
        raise
    return part


def _transfer(address: str, part: Path, size: int | None, progress: bool) -> int:
    """Append to ``part`` what the server has beyond it, until the end or a break.

    Returns:
        The size of the whole file: as the server states it, or else ``size``.

    Raises:
        TransferError: no connection, no such file, or its length is unknown.
    """
    have = part.stat().st_size if part.exists() else 0
    answer = _request(address, have)
    total = answer.total or size
    if total is None:  # a break could not be told from the end
        answer.response.close()
        raise TransferError("the server does not state the size of the file")
    with answer.response, part.open("ab" if answer.start else "wb") as file:
        blocks = -(-(total - answer.start) // BLOCK)
        for block in track(_blocks(answer.response), f"fetching {part.stem}", "MiB", blocks, progress):
            file.write(block)
    return total


def _request(address: str, have: int) -> _Answer:
    """Ask for the bytes from ``have`` on; a server that knows no ranges sends everything."""
    headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return _request(address, 0)
        raise TransferError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TransferError(one_line(getattr(error, "reason", error))) from None
    length = response.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    span = response.headers.get("Content-Range", "")  # bytes 100-999/1000
    if response.status == http.client.PARTIAL_CONTENT and span.startswith(f"bytes {have}-"):
        return _Answer(response, have, None if size is None else have + size)
    if response.status == http.client.OK:
        return _Answer(response, 0, size)
    response.close()
    raise TransferError(f"the server answers {response.status} {response.reason} instead of the file")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body; a connection that breaks ends it, and the caller sees from the count of bytes that some are missing."""
    while True:
        try:
            block = response.read(BLOCK)
        except (OSError, http.client.HTTPException):
            return
        if not block:
            return
        yield block


def _verify(remote: RemoteFile, path: Path) -> None:
    """Compare size and sha256 with the published ones, where they are known.

    Raises:
        TransferError: they differ.
    """
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        raise TransferError(f"expected {remote.size:,} bytes, got {size:,}")
    if remote.sha256 is not None and (digest := sha256_of(path)) != remote.sha256:
        raise TransferError(f"expected sha256 {remote.sha256}, got {digest}")
    if size == 0:
        raise TransferError("the file is empty")

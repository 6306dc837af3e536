"""Timed steps in a process of their own, on request: both ends of the pipe, for our side and for a torch peer.

The process prints ``ready`` when it is warm, answers each ``go K`` with a JSON list of the seconds of K steps, and ends
at ``quit``.  Where there are several kinds of steps, their names stand in the place of ``go``.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("timed_steps.py is a part of benchmark.py: see python scripts/benchmarks/benchmark.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of so many calls."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def answer(run: Callable[[int], list[float]]) -> None:
    """Print ``ready`` and answer requests ``go K`` until ``quit``.

    Args:
        run: makes K steps and returns the seconds of each.
    """
    answer_by_name({"go": run})


def answer_by_name(runs: Mapping[str, Callable[[int], list[float]]]) -> None:
    """The same with several kinds of steps, which are asked for as ``NAME K``.

    Args:
        runs: by name, as of ``answer``.
    """
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words == ["quit"]:
            return
        if len(words) == 2 and words[0] in runs and words[1].isdigit():
            print(json.dumps(runs[words[0]](int(words[1]))), flush=True)
        elif words:
            raise SystemExit(f"expected `{' K`, `'.join(runs)} K` or `quit`, got {line.strip()!r}")


class Side:
    """The process that a command starts, driven line by line."""

    def __init__(self, command: list[str]):
        self.program = command[1]
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            print(f"error: {command[0]}: expected an interpreter, {error.strerror}; see --help", file=sys.stderr)
            raise SystemExit(2) from None
        answer = self._read()
        if answer != "ready":
            raise SystemExit(f"error: {' '.join(command[:2])} did not start; were the requirements files installed?")

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, steps: int, name: str = "go") -> list[float]:
        """Run K steps of a kind; the seconds of each.

        Raises:
            SystemExit: the process has ended.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {steps}\n")
        self.process.stdin.flush()
        found = self._read()
        if not found:
            raise SystemExit(f"error: {self.program} has ended during `{name} {steps}`; see its message above")
        return json.loads(found)

    def memory(self) -> float:
        """Largest resident memory so far, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.write("quit\n")
        self.process.stdin.close()
        self.process.wait(30)

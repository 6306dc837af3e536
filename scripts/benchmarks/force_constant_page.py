"""The page of ``force_constant_times.py``."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("force_constant_page.py is a part of force_constant_times.py: see its --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[2] / "results" / "force_constants"
NAMES = {"mp-1958": "SrTe, rock salt, Fm-3m", "mp-9819": "RbAsF6, R-3"}
WAYS = {
    "exact": "exact, all rows of the primitive cell, no symmetry used",
    "displacements": "finite displacements of 0.01 A, as few as the space group allows",
    "products": "exact products along the same displacements, and the space group",
}


def paragraph(text: str) -> str:
    """Its lines joined, and cut anew."""
    return textwrap.fill(" ".join(text.split()), 200, break_long_words=False, break_on_hyphens=False)


def page(record: Mapping[str, Any]) -> str:
    """The Markdown page of what the JSON file holds."""
    used = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    end = f"{record['cores']} cores, {record['machine']}" + (f", {record['words']}" if record["words"] else "")
    lines = [
        "# What force constants of a trained potential cost", "", "```text", record["command"], "```", "",
        f"Commit {record['commit']}; {used}; {end}.", "",
        paragraph(
            """Two crystals that no potential has learned from, in supercells of 64, 216 and 512 atoms; float64. Exact:
            all rows of the primitive cell, as `scripts/phonon.py` makes them, three products of the Hessian for each
            of its atoms. Displacements: forces of the same potential by its ASE calculator in phonopy's displaced
            supercells (0.01 A, as few as the space group allows), and phonopy's solver. Every row is a process of its
            own: the whole process is a user's, from its start over imports, weights and compilation to the first
            force constants; computed again in that process they take the next column."""
        ), "", *growing(record["rows"]), "",
    ]  # fmt: skip
    return "\n".join([*lines, *(materials(record["materials"]) if record["materials"] else [])]).rstrip() + "\n"


def growing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Time and memory by size."""
    head = ["crystal", "atoms", "edges", "potentials", "method", "products or forces", "whole process, s",
            "again, s", "memory, GiB", "of it before, GiB", "more: measured, estimated, GiB", "differs by"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        more = f"{row['memory_gib'] - row['before_gib']:.2f}"
        more += "" if row["estimated_gib"] is None else f", {row['estimated_gib']:.2f}"
        cells = [
            NAMES.get(row["crystal"], row["crystal"]), row["atoms"], row["edges"], row["potentials"], row["method"],
            row["evaluations"] * row["potentials"], f"{row['first_seconds']:.1f}", f"{row['seconds']:.2f}",
            f"{row['memory_gib']:.2f}", f"{row['before_gib']:.2f}", more,
            f"{row['difference']:.0e}" if "difference" in row else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    text = """Memory is the largest resident memory of the process until the first force constants. The estimate of
        `physics/memory.py` is of what a batch of products takes beside what the process had before, and is meant to be
        above it. The last column is the relative Frobenius difference from the exact force constants: the error of a
        finite displacement."""
    return [*lines, "", paragraph(text)]


def materials(found: Mapping[str, Any]) -> list[str]:
    """CPU seconds of the test materials by each way."""
    count, cells, rows = len(found["atoms"]), np.array(found["supercells"]), 3 * np.array(found["primitive"])
    lines = [
        f"## {count} unseen materials", "",
        f"The materials of [potentials.md](../force_constants/potentials.md), {min(found['atoms'])} to "
        f"{max(found['atoms'])} atoms, in batches of one process with the first potential in float64.", "",
        "| force constants by | products or forces a material | CPU s a material, with compilation | without | "
        "differs from exact, median, largest | memory, GiB |", "|---" * 6 + "|",
    ]  # fmt: skip
    for way, words in WAYS.items():
        row, evaluations = found["ways"][way], rows if way == "exact" else cells
        apart = "" if way == "exact" else f"{np.median(row['difference']):.0e}, {max(row['difference']):.0e}"
        lines.append(
            f"| {words} | {evaluations.mean():.1f} | {row['cpu_seconds']:.2f} | {row['cpu_seconds_compiled']:.2f} | "
            f"{apart} | {row['memory_gib']:.2f} |"
        )
    return [*lines, "", beside_peers(), "", "## What DFT would compute", "", instead_of_dft(found)]


def beside_peers() -> str:
    """CPU seconds of universal potentials on the same materials, from the pages that have them."""
    own = json.loads((RESULTS / "potentials.json").read_text(encoding="utf-8"))["cpu_seconds"]
    peers = json.loads((RESULTS / "peers.json").read_text(encoding="utf-8"))["potentials"]
    theirs = ", ".join(f"{name} {np.mean(peer['cpu_seconds']):.1f}" for name, peer in peers.items())
    ours = ", ".join(f"{seconds:.1f}" for seconds in own)
    return paragraph(
        f"""Universal potentials took {theirs} CPU s a material for finite displacements of the same materials
        ([peers.md](../force_constants/peers.md)), ours {ours} for exact force constants (potentials.md, with
        compilation). Those figures are of other days, each beside other programs; theirs one supercell at a time in
        PyTorch with one thread and without the time to start, ours in float64 and in batches: they tell an order of
        magnitude, no ratio."""
    )


def instead_of_dft(found: Mapping[str, Any]) -> str:
    """How many supercells DFT would compute."""
    cells, sizes = np.array(found["supercells"]), np.array(found["atoms"])
    each = found["ways"]["exact"]["cpu_seconds"] / cells.mean()
    return paragraph(
        f"""The practice that these force constants stand in for is phonopy's: a self-consistent DFT calculation of
        each displaced supercell. These {len(cells)} materials have {cells.sum()}, {cells.mean():.1f} a material in the
        mean, {np.median(cells):.0f} in the median, {cells.min()} to {cells.max()}, of
        {np.average(sizes, weights=cells):.0f} atoms in the mean. Assumed: phonopy's default displacements (both signs
        only where symmetry does not relate them) and the supercells of phonondb; relaxation and Born charges, which DFT
        computes too, are not counted. What one of these calculations costs depends on code, elements, k-points and
        machine; the published data do not say it and none is assumed here. It would have to end within {each:.2f} CPU
        s, on one core, for DFT to be as fast as the exact force constants with their compilation."""
    )

"""The page of judge_potentials.py and the record of its figures."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("judged_page.py is a part of judge_potentials.py: see python scripts/benchmarks/judge_potentials.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiment.evaluation.force_constant_table import markdown
from experiment.evaluation.force_constants import Judged
from experiment.trained import Trained

INTRODUCTION = """# Potentials that are trained on force constants, beside universal potentials

{count} materials of phonondb that none of ours was trained on, the same and judged in the same way as on
[peers.md](peers.md), where the definitions stand. CHGNet and SevenNet were trained on PBE data that may hold these
compounds; the reference is PBEsol, which is also what ours have learned from.

```bash
{command}
```
"""


class Made(NamedTuple):
    """What was judged, and what it took.

    Attributes:
        members: the potentials.
        card: what they say of themselves; see ``judge_potentials.card_of``.
        seconds: CPU s a material, of each.
        spreads: (M,) relative spread of several for each material; None of one.
        broken: largest violation of sum rule and exchange symmetry, eV/Angstrom^2.
        dtype: of the arithmetic.
    """

    members: Sequence[Trained]
    card: Mapping[str, Any]
    seconds: Sequence[float]
    spreads: np.ndarray | None
    broken: tuple[float, float]
    dtype: str


def page(judged: Judged, made: Made, pictures: Sequence[tuple[str, str]], command: str) -> str:
    """The page.

    Args:
        judged: errors of the potentials, the peers and the baselines.
        made: see there.
        pictures: file and title of each.
        command: that was given.
    """
    card, of_sums, of_exchange = made.card, *made.broken
    lines = [INTRODUCTION.format(count=len(judged.materials), command=command)]
    for number, (member, used) in enumerate(zip(made.members, made.seconds, strict=True), 1):
        size = sum(parameter.size for parameter in member.model.trainable_params())
        lines.append(
            f"Potential {number}: {member.config.model.name}, {size:,} parameters; {used:.1f} CPU s a material for "
            f"exact force constants in {made.dtype}."
        )
    lines += ["", *markdown(judged), ""]
    lines.append(
        f"Without any projection the sum rule is broken by at most {of_sums:.1e} and exchange symmetry by "
        f"{of_exchange:.1e} eV/A^2."
    )
    if "error_over_spread" in card:
        lines.append(
            f"The relative error is {card['error_over_spread']:.2f} times the relative spread of the potentials in the "
            f"median, between {card['lower']:.2f} and {card['upper']:.2f} times for 80 % of the materials; their rank "
            f"correlation is {card['rank_correlation']:.2f}."
        )
    lines += ["", *(f"![{title}]({name})" for name, title in pictures)]
    return "\n".join(lines) + "\n"


def record_of(judged: Judged, made: Made, whose: Sequence[str]) -> dict[str, Any]:
    """Every figure of ours on the page, and the errors of each material."""
    errors = {who: {key: np.round(values, 6).tolist() for key, values in judged.errors[who].items()} for who in whose}
    return {
        "card": dict(made.card),
        "cpu_seconds": list(made.seconds),
        "largest_sum_eV_per_A2": made.broken[0],
        "largest_exchange_eV_per_A2": made.broken[1],
        "materials": list(judged.materials),
        "spread": None if made.spreads is None else np.round(made.spreads, 6).tolist(),
        "predicted_stable": {who: judged.predicted_stable[who].tolist() for who in whose},
        "errors": errors,
    }

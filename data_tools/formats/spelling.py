"""Which name of a file may be the label that is looked for; nothing is renamed here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from data_tools.source_files import shown

SHOWN = 20  # names in a message
#: what other programs put before or behind the name of a label: REF_energy, energy_dft, TotEnergy, E_total
ADDED = re.compile(r"ref(erence)?|dft|qm|mp2|ccsdt?|xtb|mace|tot(al)?|pot(ential)?|free|corrected|interaction")
SHORT = dict.fromkeys(("e", "en", "ener", "epot"), "energy") | dict.fromkeys(("f", "frc", "force"), "forces")
SIMILAR = 0.7


def listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    every = [shown(name) for name in dict.fromkeys(names)]
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more if every else "none"


def advice(label: str, names: Iterable[str]) -> str:
    """Which name of a file is the label's nearest spelling, as an option of the command line; empty where none is."""
    nearest = nearest_names(label, names)
    if not nearest:
        return ""
    name = shown(nearest[0])
    return f'if {name} is the {label} in the unit of the project, say --set data.keys="{label}={name}"'


def nearest_names(label: str, names: Iterable[str]) -> list[str]:
    """Names that may stand for a label, the nearest first: ``REF_energy``, ``energy_dft``, ``E`` for ``energy``."""
    label, scores = label.lower(), {}
    for name in dict.fromkeys(names):
        words = re.sub(r"[^a-z0-9]+", "", name.lower())
        plain = ADDED.sub("", words)
        plain = SHORT.get(plain, plain)
        target = re.sub(r"[^a-z0-9]+", "", label)
        if target in (words, plain) or plain == target.removesuffix("s"):
            scores[name] = 2.0
        elif target in re.split(r"[^a-z0-9]+", name.lower()):
            scores[name] = 1.9
        elif len(target) > 2 and target.removesuffix("s") in words:
            scores[name] = 1.0 + len(target) / len(words)
        else:
            scores[name] = difflib.SequenceMatcher(None, target, words[:80]).ratio()
    return sorted((name for name in scores if scores[name] >= SIMILAR), key=lambda name: -scores[name])

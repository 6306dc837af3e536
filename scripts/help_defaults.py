"""How the options of a script are explained: each with its default."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("help_defaults.py is a part of the programs beside it: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import argparse

NOTHING: tuple = (None, argparse.SUPPRESS, False, [], "")


class Defaults(argparse.HelpFormatter):
    """Names the default of an option whose help does not, also where it has no other help."""

    def add_argument(self, action: argparse.Action) -> None:
        """Complete the help of one option."""
        if action.default not in NOTHING and action.help is not argparse.SUPPRESS:
            words = (action.help or "").replace("%%", "")
            if "default" not in words:
                value = action.default
                shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
                action.help = f"{action.help or ''}{'; ' if action.help else ''}default: {shown.replace('%', '%%')}"
        super().add_argument(action)

"""What a program does before it imports anything else; only the standard library is needed here.

Its first lines are

    from experiment.startup import begin

    if __name__ == "__main__":
        begin()

so that a wrong Python is one line and not the traceback of some import, and Ctrl-C is one line from the beginning.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import util

from training.interruption import watch

BAD_INPUT = 2
HELP = {"-h", "--help"}
OLDEST = (3, 10)
#: what is imported, as in requirements.txt
REQUIREMENTS = {
    "mindspore": "mindspore",
    "numpy": "numpy",
    "scipy": "scipy",
    "rdkit": "rdkit",
    "ase": "ase",
    "phonopy": "phonopy",
    "spglib": "spglib",
    "seekpath": "seekpath",
    "h5py": "h5py",
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "joblib": "joblib",
    "threadpoolctl": "threadpoolctl",
    "tqdm": "tqdm",
    "yaml": "PyYAML",
    "safetensors": "safetensors",
}
DATA = ("numpy", "scipy", "rdkit", "ase", "tqdm")  # of the programs that only read and write data
TORCH = ("torch", "torch_geometric", "numpy", "ase")  # of the programs that run the PyTorch peers
FILE = "requirements.txt"
ENVIRONMENTS = (".venv", ".venv-test")  # as scripts/quickstart.sh and scripts/test.sh make them
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # pathlib would cost time before ``watch``


def begin(needs: Iterable[str] = tuple(REQUIREMENTS), file: str = FILE, interruptible: bool = True) -> None:
    """Leave with one line and exit code 2 if this Python cannot run the program; end with one line on Ctrl-C.

    Args:
        needs: names of modules to be imported.
        file: the file of requirements that has them.
        interruptible: whether to take over SIGINT and SIGTERM, see ``training.interruption.watch``; not for a program
            that only starts others, which would inherit this.
    """
    if interruptible:
        watch()
    fault = unusable(needs, file)
    if fault and file != FILE and HELP.intersection(sys.argv):
        print(f"{sys.modules['__main__'].__doc__}\nNot here: {fault}")  # an environment that few have
        sys.exit(0)
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def unusable(needs: Iterable[str] = tuple(REQUIREMENTS), file: str = FILE) -> str:
    """What this Python lacks and what to do, in one line; empty if it lacks nothing."""
    python = f"this Python ({sys.executable}, {sys.version_info[0]}.{sys.version_info[1]})"
    if sys.version_info < OLDEST:
        return f"{python} is too old, expected 3.10, 3.11 or 3.12; {remedy(file)}"
    missing = [REQUIREMENTS.get(name, name) for name in needs if not installed(name)]
    if missing:
        return f"{python} has no {', '.join(missing)}; {remedy(file)}"
    numpy = version("numpy") if "mindspore" in needs else ""
    if numpy and not numpy.startswith("1."):
        return f"{python} has NumPy {numpy}, expected 1.26: MindSpore's compiled modules need it; {remedy(file)}"
    return ""


def installed(module: str) -> bool:
    """Whether a module can be found; a folder of that name without code is none."""
    try:
        found = util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None


def version(package: str) -> str:
    """The version of a package; empty where it cannot be told."""
    from importlib import metadata  # noqa: PLC0415  slow, and Ctrl-C must be taken over before

    try:
        return metadata.version(package) or ""
    except metadata.PackageNotFoundError:
        return ""


def remedy(file: str) -> str:
    """What to do: the environment that is there, or how to make one."""
    program = f"{sys.argv[0]} ..."
    if file == FILE:
        for name in ENVIRONMENTS:
            folder = os.path.join(ROOT, name)
            python = os.path.join(folder, "bin", "python")
            if os.path.exists(python) and not os.path.samefile(folder, sys.prefix):
                return f"activate the environment (source {folder}/bin/activate) or call {python} {program}"
    return f"activate the environment that has them, or install them: pip install -r {os.path.join(ROOT, file)}"

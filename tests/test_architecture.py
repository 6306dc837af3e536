"""Who may know whom: the imports of every file are read and compared with one table.  Sizes and names of files, too."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import inspect
import json
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from configs.model_sections import WITHOUT_ENERGY
from configs.schema import MODEL_CONFIGS, TargetConfig
from models import DIRECT, MODELS, dimenetpp, heads, schnet

ROOT = Path(__file__).parents[1]
ROOMS = (
    *("experiment", "cloud", "models", "physics", "training", "data_tools", "configs"),
    *("scripts", "examples", "tests"),
)
PAGES = tuple(sorted(path.stem for path in ROOT.glob("*.py")))  # what a room could import by that name
OURS = {*ROOMS, *PAGES}
NETWORKS = MODELS | DIRECT
STANDARD = set(sys.stdlib_module_names) | {"__future__"}
ANYTHING = None
EVERY_ROOM = {"experiment", "cloud", "models", "physics", "training", "data_tools", "configs"}

#: first part of a path: (our modules, other packages) that its files may import; the longest part that fits counts.
ALLOWED: dict[str, tuple[set[str] | None, set[str] | None]] = {
    "models": ({"models"}, {"mindspore", "numpy"}),
    "models/cpu_kernels": ({"models"}, {"mindspore", "numpy", "joblib"}),  # joblib knows how many cores may be used
    "models/e3/irreps.py": (set(), {"numpy"}),
    "models/e3/wigner.py": (set(), {"numpy"}),
    "physics": (
        {
            *("physics", "models.graph_ops", "data_tools.crystals"),
            *("data_tools.graph", "data_tools.graphs", "data_tools.progress_bar"),
        },
        {"mindspore", "numpy", "scipy", "phonopy", "seekpath", "spglib", "ase"},
    ),
    "physics/calculator.py": (
        {
            "physics",
            *("data_tools.graph", "data_tools.graphs.batching", "data_tools.labels.statistics"),
            *("data_tools.coverage.observed", "data_tools.coverage.learned_range", "data_tools.coverage.outside"),
        },
        {"mindspore", "numpy", "ase"},
    ),
    "physics/skin_list.py": ({"data_tools.graph", "data_tools.graphs.batching"}, {"numpy"}),
    "training": (
        {"training", "models", "physics", "data_tools.graph"},
        {"mindspore", "numpy", "safetensors", "tqdm"},
    ),
    "training/interruption.py": (set(), set()),  # before anything else is imported
    "data_tools": ({"data_tools"}, {"numpy", "scipy", "h5py", "rdkit", "ase", "phonopy", "tqdm"}),
    # phonopy reads YAML with a loader that runs code, so its files are parsed with the safe one
    "data_tools/formats/phonopy_cells.py": ({"data_tools"}, {"numpy", "phonopy", "yaml"}),
    "configs": ({"configs"}, {"yaml"}),
    "configs/schema.py": ({"configs.model_sections"}, set()),
    "configs/model_sections.py": (set(), set()),
    "scripts": (ANYTHING, ANYTHING),
    "examples": (ANYTHING, ANYTHING),
    "tests": (ANYTHING, ANYTHING),
    "train.py": (ANYTHING, ANYTHING),
    "eval.py": (ANYTHING, ANYTHING),
    "experiment": (EVERY_ROOM, {"mindspore", "numpy", "matplotlib", "scipy", "sklearn", "threadpoolctl"}),
    "experiment/tensorboard_curves.py": ({"configs", "training.files"}, {"tensorboardX"}),
    "experiment/startup.py": ({"training.interruption"}, set()),
    "cloud": ({"cloud", "data_tools", "configs"}, set()),
}

#: the pages: those who may know everything
PAGES_AND_SCRIPTS = {"train.py", "eval.py", "scripts", "examples", "tests"}

#: guide values, and what is larger for now: an entry may only shrink, and goes when the guide value is reached
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, LINES_OF_A_PAGE = 350, 50, 150
LARGER_FILES = {
    "tests/models/test_bases.py": 365,
    "tests/physics/test_calculator.py": 451,
    "tests/scripts/test_doctor.py": 370,
}
LONGER_FUNCTIONS = {
    "data_tools/formats/extended_xyz.py read_extended_xyz": 58,
    "data_tools/graphs/batching.py pad": 61,
    "scripts/benchmarks/benchmark.py our_steps": 52,
    "scripts/doctor_parts/doctor_operators.py kernels": 54,
}
#: names that two files have, force constants and their evaluation among them: this set may only shrink
SHARED_NAMES = {"triplets.py", "force_constants.py"}

#: The other framework and what is built on it: for the side-by-side runs, and where a .pt file is read.
TORCH = {"torch", "torch_geometric", "torch_scatter", "torch_cluster", "e3nn", "schnetpack", "pytorch_lightning"}
TORCH_FILES = ("scripts/peers/",)
TORCH_INSIDE_A_FUNCTION = ("scripts/weights/weight_files.py",)


@functools.cache
def python_files() -> list[str]:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + list(ROOT.glob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts)


@functools.cache
def imports(file: str, top_level_only: bool = False) -> set[str]:
    """Dotted names of everything that a file imports, also inside functions."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports from the root, not relative ones"
            # `from models import schnet` imports the module models.schnet
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def rule_of(file: str) -> tuple[set[str] | None, set[str] | None]:
    fitting = [part for part in ALLOWED if file == part or file.startswith(f"{part}/")]
    assert fitting, f"{file}: belongs to no room; add it to the table"
    return ALLOWED[max(fitting, key=len)]


@pytest.mark.parametrize("file", python_files())
def test_a_file_knows_only_whom_it_may(file):
    own, others = rule_of(file)
    siblings = {Path(other).stem for other in python_files() if Path(other).parent == Path(file).parent}
    for name in imports(file):
        first = name.split(".")[0]
        if first in STANDARD and first not in OURS:
            continue
        if first in OURS:
            assert own is ANYTHING or within(name, own), f"{file} must not know {name}"
        elif not (file.startswith(("scripts/", "tests/")) and first in siblings):
            assert others is ANYTHING or first in others, f"{file} must not know {name}"


@pytest.mark.parametrize("file", python_files())
def test_torch_is_only_where_it_is_compared_with(file):
    found = {name for name in imports(file) if name.split(".")[0] in TORCH}
    if file.startswith(TORCH_FILES):
        return
    if file in TORCH_INSIDE_A_FUNCTION:
        assert found == {"torch"} and "torch" not in imports(file, top_level_only=True)
        return
    assert not found, f"{file} must not know {found}"


def test_no_model_knows_another():
    files = {model.__module__: model.__module__.replace(".", "/") + ".py" for model in NETWORKS.values()}
    for module, file in files.items():
        others = set(files) - {module}
        assert not [name for name in imports(file) if within(name, others)], f"{file} must not know another model"


def test_no_room_may_know_everything():
    assert {part for part, rule in ALLOWED.items() if ANYTHING in rule} == PAGES_AND_SCRIPTS
    assert {f"{page}.py" for page in PAGES} == {"train.py", "eval.py"}, "no other page at the top"


def test_a_model_chooses_no_kernel():
    """Cells of graph_ops, blocks and radial do: a model file is one readable path of equations."""
    for file in {model.__module__.replace(".", "/") + ".py" for model in NETWORKS.values()}:
        assert not [name for name in imports(file) if within(name, {"models.cpu_kernels"})], file


def functions(file: str) -> dict[str, int]:
    """Lines of every function of a file; methods with the name of their class."""
    found: dict[str, int] = {}

    def visit(node: ast.AST, within_class: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = within_class
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                key = f"{file} {within_class}{child.name}"
                found[key] = max(found.get(key, 0), child.end_lineno - child.lineno + 1)
            elif isinstance(child, ast.ClassDef):
                name = f"{child.name}."
            visit(child, name)

    visit(ast.parse((ROOT / file).read_text(encoding="utf-8")), "")
    return found


def test_files_and_functions_are_short():
    lines = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in python_files()}
    assert not {file: n for file, n in lines.items() if n > LARGER_FILES.get(file, LINES_OF_A_FILE)}
    assert not {f"{page}.py" for page in PAGES if lines[f"{page}.py"] > LINES_OF_A_PAGE}
    found = {name: n for file in python_files() for name, n in functions(file).items()}
    assert not {name: n for name, n in found.items() if n > LONGER_FUNCTIONS.get(name, LINES_OF_A_FUNCTION)}
    done = {file for file in LARGER_FILES if lines.get(file, 0) <= LINES_OF_A_FILE}
    done |= {name for name in LONGER_FUNCTIONS if found.get(name, 0) <= LINES_OF_A_FUNCTION}
    assert not done, "they are short now: take them out of the exceptions"


def test_a_file_name_is_used_once():
    """A page of a search, a traceback or a tab says which file it is."""
    count = collections.Counter(Path(file).name for file in python_files())
    shared = {name for name, times in count.items() if times > 1} - {"__init__.py"}
    assert shared <= SHARED_NAMES


def test_the_table_catches_a_stranger(tmp_path):
    """The reader of imports sees what is inside functions and behind aliases."""
    file = tmp_path / "strange.py"
    file.write_text("import numpy as np\ndef f():\n    from data_tools import graph\n    import torch.nn\n")
    assert imports(str(file)) == {"numpy", "data_tools.graph", "torch.nn"}
    assert imports(str(file), top_level_only=True) == {"numpy"}


def test_every_model_has_a_section_of_the_configuration():
    assert MODEL_CONFIGS.keys() == NETWORKS.keys() and not MODELS.keys() & DIRECT.keys()
    assert WITHOUT_ENERGY == DIRECT.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_hyperparameters_are_those_of_the_constructor(name):
    """The constructor adds what other sections decide, the precisions, and has no defaults of its own."""
    section, constructor = MODEL_CONFIGS[name], inspect.signature(NETWORKS[name]).parameters
    keys = {item.name for item in dataclasses.fields(section)} - {"name"}
    assert keys | {"kinds"} == set(constructor) and section().name == name
    assert all(parameter.default is inspect.Parameter.empty for parameter in constructor.values())
    types, hints = get_type_hints(section), get_type_hints(NETWORKS[name].__init__)
    assert all(types[key] is hints[key] for key in keys)


def test_choices_of_the_configuration_are_those_of_the_model():
    choices = {item.name: item.metadata.get("choices") for item in dataclasses.fields(MODEL_CONFIGS["schnet"])}
    assert choices["convention"] == schnet.CONVENTIONS and choices["filter"] == schnet.FILTERS
    assert choices["elements"] == schnet.ELEMENTS and choices["envelope"] == schnet.ENVELOPES
    assert choices["output_init"] == schnet.OUTPUT_INITS
    choices = {item.name: item.metadata.get("choices") for item in dataclasses.fields(MODEL_CONFIGS["dimenetpp"])}
    assert choices["output_init"] == ("auto", *dimenetpp.OUTPUT_INITS)
    target = {item.name: item.metadata.get("choices") for item in dataclasses.fields(TargetConfig)}
    assert target["readout"] == ("auto", *heads.READOUTS)


def test_figures_beside_pages_are_json_that_every_program_reads():
    """Python writes NaN by itself, which JSON does not have."""

    def refuse(word):
        raise ValueError(word)

    for file in sorted((ROOT / "results").rglob("*.json")):
        json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)

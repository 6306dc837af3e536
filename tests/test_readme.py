"""The pages for users are true: README.md, README_CN.md, those of the rooms and those of the results.

Every command of a shell block is started in a copy of the project, from top to bottom, README.md first (page_walk.py):

- programs that take seconds run whole: eval.py, prepare_qm9.py, convert_weights.py, the examples, printf, python -c;
- a training whose run is read by another command runs whole, with 24 structures, a small network and one epoch;
- every other training runs until it compiles: configuration, data, split, model and trainer are made as they stand;
- shell scripts run whole with a Python that writes down what it shall start, which then goes the way above;
- what needs the network, another device, PyG or minutes (``PARSED``) runs until its arguments are parsed; of the
  requirements of pip each line is parsed.

Blocks of Python run whole.  Commands in code spans and on the pages of results are checked as far as that needs no
run: the program is there and has these options, the configuration loads with these settings.  Beside that: paths,
links, keys of the configuration, sizes, both languages, numbers beside the results they come from, no private place in
any text.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import pytest
from page_walk import Walk, main_of
from pages import (
    PATH,
    READMES,
    RESULTS,
    ROOMS,
    ROOT,
    Command,
    blocks,
    code_spans,
    command_of,
    commands,
    inline_commands,
    links,
    result_rows,
    text_of,
)  # fmt: skip

from configs.loading import ConfigError, load_config
from experiment.data import resolve_task
from experiment.model import build
from experiment.model_set import SHIPPED
from experiment.resolve import with_names
from models import DIRECT, MODELS

LARGEST = 8000  # bytes of README.md
#: made by a user, so they need not exist
MADE = ("runs/", "data/", "npz_data/", "splits/")
#: files of a run folder
OF_A_RUN = {"config.yaml"}
#: the Chinese pages have the same commands, which another test holds
WITH_COMMANDS = [name for name in ROOMS if not name.endswith("_CN.md") and (commands(name) or blocks(name, "python"))]
PAIRS = (READMES, ("cloud/README.md", "cloud/README_CN.md"))
#: a configuration of each model, for keys that stand alone
BASES = (
    "configs/schnet/qm9_mini.yaml", "configs/dimenetpp/qm9_lite.yaml", "configs/segnn/qm9_mini.yaml",
    "configs/graph_attention_transformer/crystals.yaml", "configs/equivariant_potential/crystals.yaml",
    "configs/direct_head/crystals.yaml", "configs/graph_transformer/crystals.yaml",
)  # fmt: skip
#: no number of parameters depends on what a run takes from its data
FROM_DATA = {
    "graph_attention_transformer": [("model.average_degree", "1"), ("model.average_nodes", "1")],
    **{name: [("model.average_degree", "1")] for name in ("equivariant_potential", "direct_head", "graph_transformer")},
}
KEY = re.compile(r"(?:--set )?((?:model|data|target|optimizer|schedule|training|run)\.\w+)(?:=(\S+))?")
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def checked_commands(name: str) -> list[Command]:
    """Commands of Python programs of ours."""
    return [command for command in (*commands(name), *inline_commands(name)) if command.script]


@functools.lru_cache
def flags(script: str) -> frozenset[str]:
    """Every flag of a program; peers need PyTorch, so theirs are read from their text."""
    if script.startswith("scripts/peers/"):
        text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts" / "peers").glob("*.py"))
        return frozenset(f"--{word}" for word in re.findall(r'"(?:--)?(\w+)"', text))
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("sys.stdout.write", printed.append)
        with pytest.raises(SystemExit):
            main_of(script)(["--help"])
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", "".join(printed)))


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """The project in a folder of its own; pages run once."""
    read = {file for name in ROOMS for command in commands(name) for file in command.inputs}
    read |= {
        file for name in ROOMS for block in blocks(name, "python") for file in re.findall(r'"(runs/[^"]+)"', block)
    }
    read |= {str(folder) for file in read for folder in Path(file).parents}
    return Walk(tmp_path_factory.mktemp("house"), read)


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_runs(name, walk, same_mode):
    walk.page(name)


@pytest.mark.parametrize(
    "line",
    [
        "python train.py --config configs/schnet/qm9_lite.yaml --epoch 3",
        "python train.py --config configs/schnet/qm9_lite.yaml --set target.reference=total",
        "python scripts/benchmarks/benchmark.py --profiles none",
        "bash scripts/quickstart.sh --target nothing",
    ],
)
def test_a_mistake_in_a_command_is_seen(line, walk, same_mode):
    command = command_of(line, {})
    with pytest.raises((AssertionError, SystemExit, pytest.fail.Exception)):
        walk.command(command)


def test_the_pages_are_there_and_found_from_the_first():
    """A page that README.md does not lead to is read by nobody."""
    seen: set[str] = set()
    waiting = ["README.md"]
    while waiting:
        name = waiting.pop()
        seen.add(name)
        pages = [path.resolve().relative_to(ROOT).as_posix() for path in links(name) if path.suffix == ".md"]
        waiting += [page for page in pages if page not in seen and (ROOT / page).is_file()]
    assert not {*ROOMS, *RESULTS} - seen and len(seen) > 20
    direct = {path.resolve().relative_to(ROOT).as_posix() for path in links("README.md") if path.suffix == ".md"}
    assert len(direct & set(ROOMS)) >= 10


def test_the_first_page_is_short():
    assert all(len(text_of(name).encode()) <= LARGEST for name in READMES)
    assert len(result_rows("README.md")) == 10


@pytest.mark.parametrize("name", [*ROOMS, *RESULTS])
def test_every_path_exists(name):
    assert not [link for link in links(name) if not link.exists()]
    named = {code for code in code_spans(name) if PATH.fullmatch(code)} - OF_A_RUN
    folder = (ROOT / name).parent
    starts = {path.name for path in ROOT.iterdir()} | {path.name for path in folder.iterdir()}
    named = {path for path in named if path.split("/")[0] in starts or "/" not in path}
    for command in commands(name):
        named |= {word for word in command.words if word.startswith(("configs/", "tests/", "data_tools/"))}
        named |= {word for word in command.words if word.endswith(".sh")}
    named |= {command.script for command in checked_commands(name) if command.script}
    missing = sorted(
        path
        for path in named
        if not path.startswith(MADE) and not (ROOT / path).exists() and not (folder / path).exists()
    )
    assert not missing


@pytest.mark.parametrize("name", [*ROOMS, *RESULTS])
def test_every_option_of_a_program_exists(name):
    programs = checked_commands(name)
    for command in programs:
        assert command.script
        unknown = {word.partition("=")[0] for word in command.words if word.startswith("--")} - flags(command.script)
        assert not unknown, f"{command.script} has no {unknown}"
    if name in ROOMS:
        known = frozenset().union(
            *(flags(script) for script in KNOWN), *(flags(c.script) for c in programs if c.script)
        )
        assert not {code.split()[0].partition("=")[0] for code in code_spans(name) if re.match(r"--\w", code)} - known


#: programs whose options may stand alone on a page
KNOWN = ("train.py", "eval.py", "scripts/convert_weights.py", "scripts/peers/peer_schnet.py")


@pytest.mark.parametrize("name", [*ROOMS, *RESULTS])
def test_every_configuration_of_a_command_loads(name):
    for command in checked_commands(name):
        if "--config" in command.words:
            pairs = [(key, value) for key, _, value in (text.partition("=") for text in command.values("--set"))]
            load_config(ROOT / command.values("--config")[0], pairs)


@pytest.mark.parametrize("name", [*ROOMS, *RESULTS])
def test_every_key_of_the_configuration_exists(name):
    """Also those in code spans, with the value that stands beside them."""
    for span in code_spans(name):
        for key, value in (found.groups() for word in span.split() if (found := KEY.fullmatch(word))):
            if value in ("RUN", "NAME", "..."):
                continue
            refused = []
            for base in BASES:
                try:
                    load_config(ROOT / base, [(key, value)] if value else [(key, "none of these")])
                except ConfigError as error:
                    refused.append(str(error))
            unknown = [words for words in refused if value or "unknown key" in words]
            assert len(unknown) < len(BASES), f"{key}: {refused}"


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_input_of_a_command_is_there_by_then(name):
    """From top to bottom in a fresh copy: files that a command reads ship with the project or were made above it."""
    made: set[str] = set()
    activated = False
    for command in [*(commands("README.md") if name != "README.md" else []), *commands(name)]:
        words = command.words
        activated |= words == ["source", ".venv/bin/activate"]
        assert activated or words[0] != "python", f"{words}: no environment is active yet"
        for path in command.inputs:
            folders = {str(folder) for folder in Path(path).parents}
            there = (ROOT / path).exists() or path in {"data/raw/dsgdb9nsd.xyz.tar.bz2", *SHIPPED}
            assert there or ({path} | folders) & made, f"{words}: where does {path} come from?"
        if "train.py" in words or "scripts/run_standalone_train.sh" in words:
            assert not set(command.outputs) & made, f"{words}: a run goes into a folder that is in use"
        made |= {*command.outputs, *(["runs/quickstart"] if "scripts/quickstart.sh" in words else [])}


@pytest.mark.parametrize("names", PAIRS, ids=lambda names: names[0])
def test_both_languages_agree(names):
    english, chinese = (text_of(name) for name in names)
    assert [command.words for command in commands(names[0])] == [command.words for command in commands(names[1])]
    assert blocks(names[0], "python") == blocks(names[1], "python")
    assert [len(level) for level in re.findall(r"^(#+) ", english, re.MULTILINE)] == [
        len(level) for level in re.findall(r"^(#+) ", chinese, re.MULTILINE)
    ]
    for pattern in (r"^\|.*\|$", r"^(?:-|\d\.) ", r"`configs/[^`]+`", r"https?://[^)\s]+", r"results/[\w/.]+"):
        counts = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert counts[0] == counts[1], pattern
    numbers = [sorted(re.findall(NUMBER, " ".join(re.findall(r"^\|.*\|$", text, re.M)))) for text in (english, chinese)]
    assert numbers[0] == numbers[1] and numbers[0]
    for prose in (r"\d+\.\d+ eV", r"[\d,]{5,}"):
        assert sorted(re.findall(prose, english)) == sorted(re.findall(prose, chinese))


@pytest.mark.parametrize("name", [name for name in ROOMS if result_rows(name)])
def test_the_numbers_are_those_of_the_results(name):
    """Each measured number is one of the page that its row links to, rounded, perhaps in seconds instead of ms."""
    for cells, pages in result_rows(name):
        text = " ".join(page.read_text(encoding="utf-8") for page in pages)
        known = [float(number.replace(",", "")) for number in re.findall(NUMBER, text)]
        measured = re.findall(rf"(?<![\w^])({NUMBER})(?= (?:eV|ms|s|kcal|a0))", cells)
        assert measured, cells
        for number in measured:
            half = 0.5000001 * 10.0 ** -len(number.partition(".")[2])
            assert any(
                abs(value * unit - float(number.replace(",", ""))) <= half for value in known for unit in (1.0, 1e-3)
            ), f"{number} of {cells} is not in {pages}"


@pytest.mark.parametrize("name", tuple(f"configs/{model}/README.md" for model in MODELS | DIRECT))
def test_the_tables_of_configurations_are_true(name):
    """Every configuration of the folder has a row with its parameters, batch and epochs."""
    rows = [re.split(r" *\| *", row)[1:-1] for row in re.findall(r"^\| `configs/.*\|$", text_of(name), re.MULTILINE)]
    assert {row[0].strip("`") for row in rows} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / name).parent.glob("*.yaml")
    }
    for row in rows:
        file = ROOT / row[0].strip("`")
        config = load_config(file, FROM_DATA.get(file.parent.name, []))
        task = resolve_task(config)
        model = build(with_names(config, task), task)
        count = sum(parameter.size for parameter in model.trainable_params())
        expected = [f"{count:,}", str(config.training.batch_size), str(config.training.epochs)]
        assert [row[3], *row[-2:]] == expected, row[0]


def test_every_file_that_the_code_names_exists():
    """In docstrings, comments and messages; the law of the architecture also names files to come."""
    rooms = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name.isidentifier())
    named = re.compile(rf"(?<![\w./:{{-])(?:{rooms})/[\w/]*\w\.(?:py|sh|md|json|txt|yaml|npz|safetensors)\b")
    code = [path for path in text_files() if path.suffix in (".py", ".sh", ".yaml", ".toml")]
    files = [path for path in code if path.name != "test_architecture.py"]
    found = {(path, name) for path in files for name in named.findall(path.read_text(encoding="utf-8"))}
    assert len(found) > 50
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, name in found if not (ROOT / name).exists()]


def text_files() -> list[Path]:
    """Files that git tracks or would track, and that hold text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git repository")
    files = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?<![\w.~$}-])/(?:root|work|home/\w+|Users/\w+)" + "/",
        r"[A-Z]:\\Users\\",
        r"https?://[^/\s\"')]*\.(?:internal|local|lan|corp|intra)\b",
        r"\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b",
        r"--(?:extra-)?index-url\b",
    ],
)
def test_no_machine_in_any_text(pattern):
    own = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in text_files()
        if path.resolve() != own
        for match in re.finditer(pattern, path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found

"""Configurations: complete round trips, what a value means, and errors that name the nearest valid thing."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from typing import get_type_hints

import pytest
import yaml
from tiny_runs import PROFILES, REPOSITORY

from configs import foreign, schema
from configs.foreign import WITHOUT_MEANING
from configs.loading import BOUNDS, ConfigError, config_from_dict, load_config
from configs.rules import check_rules
from configs.schema import MODEL_CONFIGS, Config
from configs.writing import config_to_dict, config_to_yaml
from data_tools.labels.targets import STANDARDISATIONS
from training.loss_scale import LOSS_SCALES
from training.losses import LOSSES
from training.optimizer import DECAY_ON
from training.schedule import SCHEDULES

SECTIONS = {name: kind for name, kind in get_type_hints(Config).items() if name != "model"}
SECTIONS |= {f"model {name}": kind for name, kind in MODEL_CONFIGS.items()}


@pytest.fixture
def write(tmp_path):
    def write_text(text):
        (tmp_path / "config.yaml").write_text(text)
        return tmp_path / "config.yaml"

    return write_text


def changed(**settings):
    """The default configuration with ``section__key`` set as by --set."""
    return config_from_dict({}, overrides=[(key.replace("__", "."), text) for key, text in settings.items()])


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_the_written_configuration_is_complete_and_reads_back(profile, write):
    config = load_config(profile)
    text = config_to_yaml(config)
    assert load_config(write(text)) == config
    content = yaml.safe_load(text)
    for section in get_type_hints(Config):
        assert list(content[section]) == [item.name for item in dataclasses.fields(getattr(config, section))]
    assert config_from_dict(config_to_dict(config)) == config


def test_an_empty_file_is_the_defaults(write):
    assert load_config(write("")) == load_config(write("training:\nmodel: {}\n")) == Config()


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("model.convention", "2017", "2017"),
        ("optimizer.lr", "1e-4", 1e-4),
        ("optimizer.lr", "1", 1.0),
        ("model.cutoff", "10", 10.0),
        ("training.epochs", "7", 7),
        ("run.plots", "false", False),
        ("run.plots", "no", False),
        ("run.output", "", ""),
        ("run.output", "2024", "2024"),
        ("run.output", "on", "on"),
        ("data.file", "a: b", "a: b"),
        ("data.split_file", "null", "null"),
        ("data.train_size", "0x10", 16),
        ("data.train_size", "950", 950),
        ("data.train_size", "1", 1),
        ("data.train_size", "0", 0),
        ("data.train_size", "0.8", 0.8),
        ("data.valid_size", ".05", 0.05),
        ("schedule.milestones", "[0.8, 0.9]", [0.8, 0.9]),
        ("schedule.milestones", "0.8,0.95", [0.8, 0.95]),
        ("schedule.milestones", "0.5", [0.5]),
    ],
)
def test_what_a_value_on_the_command_line_means(key, text, value):
    section, name = key.split(".")
    found = getattr(getattr(config_from_dict({}, overrides=[(key, text)]), section), name)
    assert found == value and type(found) is type(value)


def test_overrides_win_and_leave_the_file_alone(write):
    content = {"training": {"epochs": 3, "batch_size": 4}}
    config = config_from_dict(content, overrides=[("training.epochs", "5"), ("training.epochs", "6")])
    assert (config.training.epochs, config.training.batch_size) == (6, 4)
    assert content == {"training": {"epochs": 3, "batch_size": 4}}


def test_a_heading_with_nothing_below_it_takes_overrides(write):
    assert load_config(write("training:\n"), [("training.epochs", "5")]).training.epochs == 5


def test_a_written_size_reads_back_as_it_was(write):
    config = changed(data__train_size="0.8", data__valid_size="50")
    text = config_to_yaml(config)
    assert "train_size: 0.8\n" in text and "valid_size: 50\n" in text and "test_size: 0\n" in text
    assert load_config(write(text)) == config


PAIR = {"train_file": "sample", "test_file": "sample", "split": "two_files"}
AB = "train_file=A test_file=B"
OWN_PAIR = {"train_file": "a", "test_file": "b"}
SOURCES: dict = {
    "one file instead of two": (PAIR, "file=F", ("F", "", "", "random")),
    "with a split": (PAIR, "file=F split=labelled", ("F", "", "", "labelled")),
    "two that are emptied by hand": (PAIR, "train_file= test_file= file=F split=random", ("F", "", "", "random")),
    "emptied without a split": (PAIR, "train_file= test_file= file=F", ("F", "", "", "random")),
    "the order of options does not matter": (PAIR, "split=file split_file=s file=F", ("F", "", "", "file")),
    "two files that stay": (PAIR, "file=sample split=two_files", ("sample", "sample", "sample", "two_files")),
    "one of the two": (PAIR, "train_file=A", ("sample", "A", "sample", "two_files")),
    "two instead of the shipped one": ({"split": "sample"}, AB, ("sample", "A", "B", "two_files")),
    "two instead of one": ({"file": "F", "split": "random"}, AB, ("sample", "A", "B", "two_files")),
    "two with their split": ({"file": "F"}, f"{AB} split=two_files", ("sample", "A", "B", "two_files")),
    "a contradiction stays": (PAIR, f"{AB} file=F", ("F", "A", "B", "two_files")),
    "another split for two": ({}, f"{AB} split=random", ("sample", "A", "B", "random")),
    "nothing given": (OWN_PAIR | {"file": "F"}, "split_seed=1", ("F", "a", "b", "sample")),
    "one file for another": ({"file": "F", "split": "random"}, "file=G", ("G", "", "", "random")),
    "the shipped molecules": ({"split": "sample"}, "file=G", ("G", "", "", "sample")),
}


@pytest.mark.parametrize("profile, options, found", SOURCES.values(), ids=SOURCES)
def test_data_of_an_option_replace_those_of_the_profile(profile, options, found):
    """One file or two: what an option names is all that is read, and the split is one that fits it."""
    pairs = [(f"data.{key}", text) for key, _, text in (option.partition("=") for option in options.split())]
    settings = config_from_dict({"data": profile}, overrides=pairs).data
    assert (settings.file, settings.train_file, settings.test_file, settings.split) == found


FOREIGN = "training: {label_smoothing: 0.1, drop_path: 0.1, epochs: 3}\nrun: {keep_bn_fp32: true}\n"


def test_keys_of_other_programs_without_meaning_are_ignored_and_named(write, caplog):
    """In a file and as an option alike; a dictionary of a checkpoint is not a person's, so nothing is said."""
    caplog.set_level("INFO", "geospore")
    plain = config_from_dict({"training": {"epochs": 3}})
    assert load_config(write(FOREIGN)) == plain
    assert [line.partition(":")[0] for line in caplog.messages] == [f"ignored {key}" for key in WITHOUT_MEANING]
    assert all(reason in line for reason, line in zip(WITHOUT_MEANING.values(), caplog.messages, strict=True))
    caplog.clear()
    assert config_from_dict(yaml.safe_load(FOREIGN)) == plain and not caplog.messages
    assert changed(run__keep_bn_fp32="x", training__epochs="3") == plain
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("ignored run.keep_bn_fp32: run.amp_level=O2")


def test_keys_of_other_programs_are_none_of_ours():
    ours = {f"{name}.{item.name}" for name, kind in SECTIONS.items() for item in dataclasses.fields(kind)}
    assert not ours & WITHOUT_MEANING.keys() and all(reason for reason in WITHOUT_MEANING.values())
    assert set(foreign.KEYS.values()) <= {key.replace("model schnet", "model") for key in ours}


MISTAKES = {
    "training: {epoch: 3}": "training: unknown key 'epoch'; did you mean 'epochs'",
    "trainings: {epochs: 3}": "unknown section 'trainings'; did you mean 'training'",
    "1: {epochs: 3}": "unknown section 1",
    "training: {1: 3}": "unknown key 1",
    "training: 3": "expected keys and values, got 3",
    "training: 0": "expected keys and values, got 0",
    "training: [epochs]": "expected keys and values",
    "training": "expected sections",
    "training: {epochs: '3'}": "training.epochs: expected int, got '3'",
    "training: {epochs: 3.0}": "expected int, got 3.0",
    "training: {epochs: true}": "expected int, got True",
    "training: {epochs: null}": "expected int, got None",
    "run: {plots: 1}": "expected bool, got 1",
    "model: {convention: 2017}": "expected str, got 2017",
    "optimizer: {lr: .inf}": "expected float, got inf",
    "optimizer: {lr: true}": "expected float, got True",
    "optimizer: {lr: [1]}": "expected float",
    "optimizer: {lr: 0}": "optimizer.lr 0.0: expected more than 0",
    "optimizer: {beta1: 1.0}": "expected less than 1",
    "schedule: {warmup_fraction: 1.01}": "expected at most 1",
    "schedule: {milestones: [0.5, 1.0]}": "schedule.milestones 1.0: expected less than 1",
    "schedule: {milestones: []}": "schedule.milestones: expected numbers such as [0.8, 0.9]",
    "schedule: {milestones: [a]}": "schedule.milestones: expected float, got 'a'",
    "schedule: {milestones: {a: 1}}": "schedule.milestones: expected numbers",
    "model: {features: 1}": "model.features 1: expected at least 2",
    "data: {train_size: 1.0}": "data.train_size: expected a whole number, or a fraction between 0 and 1, got 1.0",
    "data: {train_size: 950.0}": "a whole number, or a fraction",
    "data: {valid_size: 0.0}": "a whole number, or a fraction",
    "data: {valid_size: 1.5}": "a whole number, or a fraction",
    "data: {test_size: -0.1}": "a whole number, or a fraction",
    "data: {test_size: -1}": "at least 0",
    "data: {train_size: .nan}": "a whole number, or a fraction",
    "data: {train_size: true}": "a whole number, or a fraction",
    "data: {train_size: 80%}": "a whole number, or a fraction between 0 and 1, got '80%'",
    "run: {mode: graph}": "did you mean 'GRAPH'",
    "model: {name: shnet}": "did you mean 'schnet'",
    "model: {name: 3}": "expected one of schnet",
    "run: {output: 2024-02-30}": "readable YAML",
    "run: {output: !!python/object/apply:os.getcwd []}": "readable YAML",
}


@pytest.mark.parametrize("text, words", MISTAKES.items(), ids=MISTAKES)
def test_mistakes_are_one_line(text, words, write):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["epochs", "training.", ".epochs", "training.epochs.more", ""])
def test_a_key_is_section_and_name(key):
    with pytest.raises(ConfigError):
        config_from_dict({}, overrides=[(key, "3")])


def test_an_unknown_section_on_the_command_line():
    with pytest.raises(ConfigError, match="did you mean 'training'"):
        changed(trainin__epochs="3")


@pytest.mark.parametrize("kind", SECTIONS.values(), ids=SECTIONS)
def test_every_field_is_explained_and_every_number_has_a_range(kind):
    """A number without a range would be checked late or never; a field without a docstring by nobody."""
    body = ast.parse(inspect.getsource(kind)).body[0].body
    documented = {
        first.target.id
        for first, second in itertools.pairwise(body)
        if isinstance(first, ast.AnnAssign) and isinstance(second, ast.Expr)
    }
    for item in dataclasses.fields(kind):
        assert item.name in documented
        if item.type in ("int", "float", "int | float", "list[float]"):
            assert set(item.metadata) & set(BOUNDS), item.name


def test_choices_of_a_run_are_those_of_the_code():
    choices = {
        (kind, item.name): item.metadata.get("choices")
        for kind in SECTIONS.values()
        for item in dataclasses.fields(kind)
    }
    assert choices[schema.ScheduleConfig, "name"] == SCHEDULES
    assert choices[schema.OptimizerConfig, "decay_on"] == DECAY_ON
    assert choices[schema.TrainingConfig, "loss"] == LOSSES
    assert choices[schema.TrainingConfig, "loss_scale"] == LOSS_SCALES
    assert set(choices[schema.TargetConfig, "standardisation"]) == {"auto", *STANDARDISATIONS}


def test_the_defaults_are_within_their_ranges():
    assert config_from_dict(config_to_dict(Config())) == Config()
    assert dataclasses.is_dataclass(schema.SchNetConfig)


def test_force_constants_are_those_of_a_sum_over_atoms():
    segnn = REPOSITORY / "configs" / "segnn" / "qm9.yaml"
    wished = [("target.name", "force_constants"), ("target.standardisation", "scale")]
    with pytest.raises(ConfigError, match=r"^model\.pooling mean: expected sum, or model\.task=node"):
        check_rules(load_config(segnn, wished))
    for change in (("model.pooling", "sum"), ("model.task", "node")):
        check_rules(load_config(segnn, [*wished, change]))

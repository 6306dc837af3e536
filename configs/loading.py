"""YAML files and ``--set section.key=value`` to a checked ``Config``."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from configs.foreign import SEGNN_PORT_WITHOUT_MEANING, WITHOUT_MEANING, from_segnn_port, is_segnn_port
from configs.precedence import one_or_several, one_source
from configs.schema import MODEL_CONFIGS, Config

log = logging.getLogger("geospore")
#: what the metadata of a field may say about its range, and how an error says it
BOUNDS = {
    "least": (operator.ge, "at least"),
    "most": (operator.le, "at most"),
    "above": (operator.gt, "more than"),
    "below": (operator.lt, "less than"),
}
FOLDER = Path(__file__).parent
LARGEST_FILE = 20_000  # bytes; the complete configuration has 2,000, and brackets take quadratic time
LARGEST_NUMBER = 2**31 - 1  # of whole numbers: seeds, sizes and counts are 32 bits in MindSpore
#: ValueError: not UTF-8, a date that does not exist, a number of thousands of digits
UNREADABLE = (ValueError, yaml.YAMLError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them stand for a thousand million values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases such as *{_shown(self.peek_event().anchor)} are not read; write the value")
        return super().compose_node(parent, index)


def _parse(text: str) -> Any:
    if len(text) > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE} characters")
    return yaml.load(text, _Loader)


def _shown(value: Any) -> str:
    """A value as a message shows it: on one line and short."""
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return "a number of many digits"
    return repr(value)[:80]


class ConfigError(ValueError):
    """A mistake in a configuration: one line with what was expected, what came and what to do."""

    exit_code = 2


def load_config(path: str | Path, overrides: Iterable[tuple[str, str]] = ()) -> Config:
    """Read a YAML file, apply ``(section.key, text)`` overrides and check everything.

    Keys of other programs that mean nothing here are ignored, and a line of the log names each with the reason.  A
    configuration of SEGNN's port to Ascend is read as it is (``configs.foreign.SEGNN_PORT``).

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value has a wrong type, is no choice or is
            out of range.
    """
    if not Path(path).exists():
        raise ConfigError(f"{path}: expected a YAML file, No such file; {_profiles(str(path))}")
    try:
        if not Path(path).is_file():
            raise OSError("it is a folder, a pipe or a device")
        if Path(path).stat().st_size > LARGEST_FILE:
            raise OSError(f"it has more than {LARGEST_FILE} bytes")
        content = _parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, *UNREADABLE) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"{path}: expected a readable YAML file, got: {reason}") from None
    if content is None:
        content = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected sections such as 'model:' and 'training:', got {type(content).__name__}")
    if is_segnn_port(content):
        log.info("%s: keys of SEGNN's port to Ascend, see configs/segnn/README.md", path)
        content, overrides, ignored = from_segnn_port(content, overrides)
        for key in ignored:
            log.info("ignored %s: %s", key, SEGNN_PORT_WITHOUT_MEANING[key])
    for key in _without_meaning(content):
        _say_ignored(key)
    return config_from_dict(content, str(path), overrides)


def _profiles(path: str) -> str:
    """The nearest of the shipped configurations to a path that is not there, and all of them."""
    names = sorted(file.relative_to(FOLDER).as_posix() for file in FOLDER.glob("*/*.yaml"))
    stems = {name.rpartition("/")[2].removesuffix(".yaml"): name for name in reversed(names)}
    folder, _, typed = path.removesuffix(".yml").removesuffix(".yaml").rpartition("/")
    close = [
        *difflib.get_close_matches(f"{folder.rpartition('/')[2]}/{typed}.yaml"[-80:], names, n=1, cutoff=0.8),
        *(stems[stem] for stem in difflib.get_close_matches(typed[:80], stems, n=1, cutoff=0.6)),
    ]
    where = FOLDER.name if (Path(FOLDER.name) / names[0]).exists() else str(FOLDER)
    hint = f"did you mean {where}/{close[0]}? " if close else ""
    folders: dict[str, list[str]] = {}
    for name in names:
        of_model, _, file = name.removesuffix(".yaml").partition("/")
        folders.setdefault(of_model, []).append(file)
    listed = "; ".join(f"{of_model}/{', '.join(files)}" for of_model, files in folders.items())
    return f"{hint}expected a file of yours or one of {where}: {listed} (.yaml)"


def override_of(text: str) -> tuple[str, str]:
    """The (section.key, text) pair of an option ``--set SECTION.KEY=VALUE``.

    Raises:
        ConfigError: it has no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected section.key=value, for example training.epochs=5")
    return key, value


def config_from_dict(
    content: Mapping[str, Any], source: str = "configuration", overrides: Iterable[tuple[str, str]] = ()
) -> Config:
    """Apply overrides to a nested dictionary, which stays as it is, and check it against the schema.

    Keys of ``configs.foreign.WITHOUT_MEANING`` are left out; checkpoints of earlier versions hold them.

    Raises:
        ConfigError: as ``load_config``; ``source`` says where the dictionary comes from.
    """
    sections = {name: dict(values) if isinstance(values, Mapping) else values for name, values in content.items()}
    for section, name in (key.split(".") for key in _without_meaning(content)):
        del sections[section][name]
    given = set()
    for key, text in overrides:
        _override(sections, key, text)
        given.add(key)
    one_source(sections.get("data"), given)
    one_or_several(sections.get("target"), given)
    classes = _section_classes(sections, source)
    _known(sections, classes, source, "section")
    built = {}
    for name, section_class in classes.items():
        values = {} if sections.get(name) is None else sections[name]
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: section {name}: expected keys and values, got {_shown(values)}")
        built[name] = _build(section_class, values, f"{source}: {name}")
    return Config(**built)


def _without_meaning(content: Mapping[str, Any]) -> list[str]:
    """The keys of a nested dictionary that other programs have and that change nothing here."""
    keys = ((key, *key.split(".")) for key in WITHOUT_MEANING)
    sections = {name: values for name, values in content.items() if isinstance(values, Mapping)}
    return [key for key, section, name in keys if name in sections.get(section, ())]


def _say_ignored(key: str) -> None:
    log.info("ignored %s: %s", key, WITHOUT_MEANING[key])


def _section_classes(sections: Mapping[str, Any], source: str) -> dict[str, type]:
    hints = get_type_hints(Config)
    model = sections.get("model") or {}
    name = model.get("name", "schnet") if isinstance(model, Mapping) else "schnet"
    if not isinstance(name, str) or name not in MODEL_CONFIGS:
        raise ConfigError(f"{source}: model.name {_shown(name)}: {_nearest(str(name), MODEL_CONFIGS)}")
    return {**hints, "model": MODEL_CONFIGS[name]}


def _build(section_class: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {item.name: item for item in dataclasses.fields(section_class)}
    hints = get_type_hints(section_class)
    _known(values, fields, where, "key")
    checked = {}
    for key, value in values.items():
        checked[key] = _typed(value, hints[key], f"{where}.{key}")
        choices = fields[key].metadata.get("choices")
        if choices and checked[key] not in choices:
            hint = fields[key].metadata.get("hints", {}).get(str(value).lower()) or _nearest(str(value), choices)
            raise ConfigError(f"{where}.{key} {_shown(value)}: {hint}")
        _in_range(checked[key], fields[key].metadata, f"{where}.{key}")
    return section_class(**checked)


def _in_range(value: Any, metadata: Mapping[str, Any], where: str) -> None:
    for name, (holds, words) in BOUNDS.items():
        for number in value if isinstance(value, list) else [value]:
            if name in metadata and not holds(number, metadata[name]):
                raise ConfigError(f"{where} {_shown(number)}: expected {words} {metadata[name]:g}")


def _typed(value: Any, kind: Any, where: str) -> Any:
    """Accept what is unambiguous (1e-4 without a dot is text in YAML) and refuse what would be guessed."""
    if kind == dict[str, str]:
        return _names(value, where)
    if kind == int | float:
        return _count_or_fraction(value, where)
    if kind == list[float]:
        return _numbers(value, where)
    if kind == list[str]:
        return _words(value, where)
    if kind is float and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = str(value)
    if kind is bool and isinstance(value, str):  # forms of training platforms pass all values as text, in any case
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        raise ConfigError(f"{where}: expected at most {LARGEST_NUMBER}, got {_shown(value)}")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if wrong or (kind is float and not math.isfinite(value)):
        raise ConfigError(f"{where}: expected {kind.__name__}, got {_shown(value)}")
    return value


def _names(value: Any, where: str) -> dict[str, str]:
    """A mapping of names, or its text ``name=other,name=other``."""
    expected = "expected names such as {energy: REF_energy} or energy=REF_energy"
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        if any(not equals for _, equals, _ in pairs):
            raise ConfigError(f"{where}: {expected}, got {_shown(value)}")
        value = {}
        for name, _, other in pairs:
            if name.strip() in value:
                raise ConfigError(f"{where}: {expected}, got {_shown(name.strip())} twice")
            value[name.strip()] = other.strip()
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {expected}, got {_shown(value)}")
    for name, other in value.items():
        if not isinstance(name, str) or not isinstance(other, str) or not name or not other:
            raise ConfigError(f"{where}: {expected}, got {_shown(name)}: {_shown(other)}; write names in quotes")
    return dict(value)


def names_of(text: str, where: str) -> dict[str, str]:
    """The mapping that the text of an option says: ``energy=REF_energy,forces=REF_forces``, or as in YAML.

    Raises:
        ConfigError: it is no such text; ``where`` names the option.
    """
    try:
        value = _parse(text) if text.lstrip().startswith("{") else text
    except UNREADABLE:
        raise ConfigError(f"{where} {_shown(text)}: the value cannot be read") from None
    return _names(value, where)


def _numbers(value: Any, where: str) -> list[float]:
    """Numbers, or their text ``0.8,0.9``; at least one."""
    if isinstance(value, str):
        value = value.split(",")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where}: expected numbers such as [0.8, 0.9] or 0.8,0.9, got {_shown(value)}")
    return [_typed(number, float, where) for number in value]


def _words(value: Any, where: str) -> list[str]:
    """Names, or their text ``gap,homo``; none where there is nothing."""
    if isinstance(value, str):
        value = [word for word in value.split(",") if value.strip()]
    if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
        raise ConfigError(f"{where}: expected names such as [gap, homo] or gap,homo, got {_shown(value)}")
    return [word.strip() for word in value]


def _count_or_fraction(value: Any, where: str) -> int | float:
    """A whole number, or a fraction between 0 and 1; 1.0 could be meant as either."""
    if isinstance(value, float) and 0 < value < 1:
        return value
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{where}: expected a whole number, or a fraction between 0 and 1, got {_shown(value)}")
    return int(_typed(value, int, where))


def _override(sections: dict[str, Any], key: str, text: str) -> None:
    """Put the text of one override where its key says; YAML decides what the text means."""
    if key in WITHOUT_MEANING:
        _say_ignored(key)
        return
    section, _, name = key.partition(".")
    where = f"--set {_shown(key)[1:-1]}={_shown(text)[1:-1]}"
    if not name or "." in name:
        raise ConfigError(f"{where}: expected section.key=value, for example training.epochs=5")
    if sections.get(section) is None:  # absent, or a heading with nothing below it
        sections[section] = {}
    place = sections[section]
    if not isinstance(place, dict):
        raise ConfigError(f"{where}: section {section} holds no keys")
    try:
        value = _parse(text) if text else ""
    except UNREADABLE:
        raise ConfigError(f"{where}: the value cannot be read") from None
    hint = _type_of(sections, section, name)
    place[name] = (
        text
        if hint is str
        or (hint == list[str] and not isinstance(value, list))
        or (hint == dict[str, str] and not isinstance(value, Mapping))
        else value
    )


def _type_of(sections: Mapping[str, Any], section: str, name: str) -> type | None:
    """The declared type of a key, so that text stays text (``2017``, ``on``); unknown keys are reported later."""
    classes = _section_classes(sections, "--set")
    return get_type_hints(classes[section]).get(name) if section in classes else None


def _known(given: Iterable[Any], valid: Iterable[str], where: str, what: str) -> None:
    for name in given:
        if name not in set(valid):
            raise ConfigError(f"{where}: unknown {what} {_shown(name)}; {_nearest(str(name), valid)}")


def _nearest(name: str, valid: Iterable[str]) -> str:
    names = {str(choice).lower(): str(choice) for choice in valid}
    name = name[:80]  # the search takes quadratic time
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[close[0]]!r}? " if close else ""
    return f"{hint}expected one of {', '.join(names.values())}"

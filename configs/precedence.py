"""Keys of which one stands for others: what options name takes the place of what the file names."""

from __future__ import annotations

from typing import Any

TWO_FILES = {"train_file", "test_file"}  # of the section data, instead of its file


def one_source(settings: Any, given: set[str]) -> None:
    """Data that options name take the place of those that the file names, be it one file or two.

    Options that contradict each other stay as they are; who opens the data refuses them.

    Args:
        settings: the section ``data``, which is changed; whatever else stands there is left alone.
        given: ``section.key`` of the options.
    """
    if not isinstance(settings, dict):
        return
    named = {name for name in (*TWO_FILES, "file", "split") if f"data.{name}" in given and settings.get(name)}
    two = settings.get("split") == "two_files"
    if "file" in named and not named & TWO_FILES and (two or any(settings.get(name) for name in TWO_FILES)):
        dropped, split = TWO_FILES, "random"
    elif "file" not in named and named & TWO_FILES:
        dropped, split = {"file"}, "two_files"
    else:
        return
    if "split" not in named or two == (split == "two_files"):
        for name in dropped:
            settings.pop(name, None)
        settings["split"] = settings["split"] if "split" in named else split


def one_or_several(settings: Any, given: set[str]) -> None:
    """A target, or several, that options name take the place of the one, or several, that the file names.

    Options that name both stay as they are; ``check_rules`` refuses them.

    Args:
        settings: the section ``target``, which is changed; whatever else stands there is left alone.
        given: ``section.key`` of the options.
    """
    one, several = (f"target.{name}" in given for name in ("name", "names"))
    if isinstance(settings, dict) and one != several:
        settings.pop("names" if one else "name", None)

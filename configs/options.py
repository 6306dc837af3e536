"""What a command line knows of the configuration: options that stand for keys, their help, and what was meant."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

from configs.schema import MODEL_CONFIGS, Config

#: names that other programs have for an option, without dashes
SYNONYMS = {
    "learning_rate": "lr", "init_lr": "lr", "base_lr": "lr", "max_lr": "lr",
    "num_epochs": "epochs", "max_epochs": "epochs", "n_epochs": "epochs", "epoch_size": "epochs", "epoch": "epochs",
    "bs": "batch_size", "train_batch_size": "batch_size", "per_device_batch_size": "batch_size",
    "device": "device_target", "accelerator": "device_target", "gpu": "device_id", "gpu_id": "device_id",
    "gpus": "device_num", "num_gpus": "device_num", "num_devices": "device_num", "nproc": "device_num",
    "devices": "device_num", "precision": "dtype", "property": "target", "label": "target", "task": "target",
    "out": "output", "output_dir": "output", "out_dir": "output", "save_dir": "output", "log_dir": "output",
    "work_dir": "output", "ckpt_path": "ckpt", "checkpoint": "ckpt", "ckpt_file": "ckpt", "model_path": "ckpt",
    "weights": "ckpt", "resume_from": "resume", "resume_from_checkpoint": "resume", "cfg": "config",
    "config_file": "config", "config_path": "config", "yaml": "config", "random_seed": "seed", "n_train": "subset_size",
    "num_train": "subset_size", "train_size": "subset_size", "force": "overwrite", "smi": "smiles",
}  # fmt: skip
#: the same for a key of the configuration
KEY_SYNONYMS = {
    "wd": "optimizer.weight_decay", "data_path": "data.file", "data_dir": "data.file", "data_file": "data.file",
    "dataset": "data.file", "dataset_path": "data.file", "data": "data.file", "root": "data.file",
    "model": "model.name", "arch": "model.name", "network": "model.name", "hidden_channels": "model.features",
    "hidden_dim": "model.features", "hidden_size": "model.features", "num_filters": "model.filters",
    "num_interactions": "model.blocks", "n_interactions": "model.blocks", "num_layers": "model.blocks",
    "num_blocks": "model.blocks", "num_gaussians": "model.gaussians", "r_cut": "model.cutoff",
    "cutoff_radius": "model.cutoff", "radius": "model.cutoff", "rc": "model.cutoff", "ema": "optimizer.ema_decay",
    "clip": "optimizer.clip_norm", "grad_clip": "optimizer.clip_norm", "gradient_clip": "optimizer.clip_norm",
    "max_grad_norm": "optimizer.clip_norm", "scheduler": "schedule.name", "lr_scheduler": "schedule.name",
    "warmup": "schedule.warmup_steps", "amp": "run.amp_level", "fp16": "run.amp_level",
    "mixed_precision": "run.amp_level", "pretrained_ckpt": "training.pretrained", "patience": "training.early_stop",
    "loss_fn": "training.loss", "criterion": "training.loss", "split_ratio": "data.train_size",
}  # fmt: skip
ALIKE = 0.72  # how similar names must be


def help_of(key: str, words: str, default: str | None = None) -> str:
    """The help of an option: what it is, its key, the choices and the default.

    Args:
        key: ``section.key``.
        words: what it is.
        default: None: that of the schema.
    """
    section, _, name = key.partition(".")
    field = next(item for item in dataclasses.fields(get_type_hints(Config)[section]) if item.name == name)
    choices = field.metadata.get("choices")
    parts = [key, *([f"one of {', '.join(choices)}"] if choices else [])]
    shown = str(field.default) if default is None else default
    return f"{words} ({'; '.join(parts)}; default: {shown or 'none'})".replace("%", "%%")


def meant(option: str, known: Iterable[str], settable: bool, similarity: float = ALIKE) -> str:
    """What an unknown option was meant to be, ``--lr`` or ``--set data.file=VALUE``; empty if nobody knows.

    Args:
        option: as it was typed, without a value.
        known: the options of the program, with their dashes.
        settable: whether the program has ``--set``.
        similarity: how alike names must be, 1 for the same.
    """
    typed = option.lstrip("-").replace("-", "_").lower()[:80]
    options = {name.lstrip("-"): name for name in known if name.startswith("--")}
    meanings = {other: options[name] for other, name in SYNONYMS.items() if name in options}
    if settable:
        meanings = _keys() | meanings
    meanings |= {name.lower(): option for name, option in options.items()}
    if typed in meanings:
        return meanings[typed]
    close = difflib.get_close_matches(typed, meanings, n=1, cutoff=similarity)
    return meanings[close[0]] if close else ""


def _keys() -> dict[str, str]:
    """Every key of the configuration by its name alone, and by the names of others."""
    sections: Mapping[str, Any] = {**get_type_hints(Config), "model": None}
    names: dict[str, str] = {}
    for section, section_class in sections.items():
        classes = MODEL_CONFIGS.values() if section == "model" else [section_class]
        for item in (item for one in classes for item in dataclasses.fields(one)):
            if item.name not in ("name", "file"):  # of several sections, or too short to be meant
                names.setdefault(item.name, f"--set {section}.{item.name}=VALUE")
    return names | {other: f"--set {key}=VALUE" for other, key in KEY_SYNONYMS.items()}

"""Other programs' names: what they call an option or a key of ours, and their keys that mean nothing here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: names that other programs have for an option, without dashes
OPTIONS = {
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
KEYS = {
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
#: keys of other programs that change nothing here, with the reason; a configuration may hold them
WITHOUT_MEANING = {
    "training.label_smoothing": "it mixes the classes of a classifier, and labels here are numbers",
    "training.drop_path": "each block adds its share to the prediction, and a dropped block leaves its share out",
    "run.keep_bn_fp32": "run.amp_level=O2 keeps float32 where it is needed, in batch normalisation too",
}

#: keys of the configuration of SEGNN's port to Ascend (MindChemistry): ours, and those values that are called otherwise
#: here; model.task, model.ncon_dtype and optimizer.weight_decay are ours too
SEGNN_PORT: dict[str, tuple[str, dict[Any, str]]] = {
    "run_mode": ("run.run_mode", {}),
    "profiling": ("run.profiling", {}),
    "profiling_step": ("run.profiling_step", {}),
    "log_file": ("run.log_file", {}),
    "model.ckpt_file": ("run.ckpt_file", {}),
    "model.num_layers": ("model.blocks", {}),
    "model.hidden_features": ("model.features", {}),
    "model.lmax_h": ("model.lmax", {}),
    "model.subspace_type": ("model.subspace", {}),
    "model.norm_type": ("model.norm", {"None": "none", None: "none"}),
    "model.pool_type": ("model.pooling", {"avg": "mean", "add": "sum"}),
    "optimizer.num_epoch": ("training.epochs", {}),
    "optimizer.learning_rate": ("optimizer.lr", {}),
    "data.dataset_dir": ("data.file", {}),
    "data.batch_size": ("training.batch_size", {}),
    "data.target": ("target.name", {}),
    "data.radius": ("model.cutoff", {}),
    "data.lmax_attr": ("model.lmax_attributes", {}),
    "data.feature_type": ("model.node_features", {}),
}
#: what its program does without a key
SEGNN_PORT_RECIPE: dict[str, Any] = {
    "model.name": "segnn", "data.split": "cormorant", "target.standardisation": "mean_mad", "training.loss": "mae",
    "schedule.name": "milestones", "schedule.decay_rate": 0.1, "schedule.milestones": [0.8, 0.9],
}  # fmt: skip
#: its keys that change nothing here, with the reason
SEGNN_PORT_WITHOUT_MEANING = {
    "eval_interval": "each epoch ends with a validation, which chooses the best checkpoint",
    "data.pre_process_file": "nothing is unpickled; data.dataset_dir may be a folder of graphs, which "
    "scripts/prepare_qm9.py writes once",
}


def is_segnn_port(content: Mapping[str, Any]) -> bool:
    """Whether a configuration speaks the language of SEGNN's port to Ascend: its model has ``hidden_features``."""
    model = content.get("model")
    return isinstance(model, Mapping) and "hidden_features" in model and model.get("name", "segnn") == "segnn"


def from_segnn_port(
    content: Mapping[str, Any], overrides: Iterable[tuple[str, str]]
) -> tuple[dict[str, Any], list[tuple[str, str]], list[str]]:
    """A configuration of SEGNN's port to Ascend in our keys, with its recipe where it says nothing.

    Keys of ours may stand beside its keys; where both name the same, its key stays and is unknown to the schema.

    Args:
        content: of the file.
        overrides: ``(section.key, text)`` in our keys or in its keys.

    Returns:
        The configuration, the overrides in our keys, and its keys that change nothing here.
    """
    sections = {name: dict(values) if isinstance(values, Mapping) else values for name, values in content.items()}
    found, ignored = {}, []
    for key in (*SEGNN_PORT, *SEGNN_PORT_WITHOUT_MEANING):
        section, _, name = key.rpartition(".")
        place = sections.get(section) if section else sections
        if not isinstance(place, dict) or name not in place:
            continue
        if key in SEGNN_PORT_WITHOUT_MEANING:
            del place[name]
            ignored.append(key)
        elif not _holds(content, SEGNN_PORT[key][0]):
            ours, values = SEGNN_PORT[key]
            value = place.pop(name)
            found[ours] = values.get(value, value) if value is None or isinstance(value, str) else value
    changes = []
    for key, text in overrides:
        ours, values = SEGNN_PORT.get(key, (key, {}))
        changes.append((ours, values.get(text, text)))
    recipe = SEGNN_PORT_RECIPE.copy()
    if {"data.file": found.get("data.file"), **dict(changes)}["data.file"] == "sample":
        del recipe["data.split"]  # of the shipped molecules, which have their own
    for ours, value in (recipe | found).items():
        section, _, name = ours.partition(".")
        if sections.get(section) is None:
            sections[section] = {}
        if isinstance(sections[section], dict):
            sections[section].setdefault(name, value)
    return sections, changes, ignored


def _holds(content: Mapping[str, Any], key: str) -> bool:
    section, _, name = key.partition(".")
    return isinstance(content.get(section), Mapping) and name in content[section]

"""Other programs' names: what they call an option or a key of ours, and their keys that mean nothing here."""

from __future__ import annotations

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
    "run.keep_bn_fp32": "no model here has batch normalisation; run.amp_level=O2 keeps float32 where it is needed",
}

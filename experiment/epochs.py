"""The epochs of a run, with what happens beside them: profiler, copy of the best, TensorBoard, upload of a job."""

from __future__ import annotations

from cloud.job import Job
from configs.schema import Config
from experiment.named_files import copy_best
from experiment.run_folder import PROFILE
from experiment.tensorboard_curves import TensorboardCurves
from training.loop import Trainer
from training.profiling import StepProfiler


def train(config: Config, trainer: Trainer, job: Job) -> None:
    """Train to the end.

    Args:
        config: of the run.
        trainer: where it stands.
        job: of a platform, which takes the results out.

    Raises:
        LossError, Stopped: as ``Trainer.run``.
    """
    run, progress, is_main = config.run, trainer.progress, trainer.ranks.is_main
    units = {quantity.key: quantity.unit for quantity in trainer.quantities}
    curves = TensorboardCurves(trainer.folder if run.tensorboard and is_main else None, units, progress.history)

    def after_save() -> None:
        if is_main and progress.best_epoch == progress.epoch:
            copy_best(trainer.folder, run)
        curves.add(progress.history)
        job.upload()

    steps = run.profiling_step if run.profiling else 0
    with (
        curves,
        StepProfiler(steps, trainer.folder / PROFILE, lambda: trainer.meter.collect(progress.step)) as profiler,
    ):
        trainer.run(after_save, profiler.after_step)

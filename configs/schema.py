"""Every hyperparameter, spelled once: frozen dataclasses with a docstring under each field.

A YAML file holds some of these keys; the rest keep the defaults below.  An unknown key, a wrong type or a value outside
its choices or its range is an error that names the nearest valid one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from configs.model_sections import (
    MODEL_CONFIGS,
    ZERO_OUTPUT,
    DimeNetPlusPlusConfig,
    DirectHeadConfig,
    EquivariantPotentialConfig,
    GraphAttentionTransformerConfig,
    GraphTransformerConfig,
    SchNetConfig,
    SegnnConfig,
    bounded,
)

__all__ = [
    "MODEL_CONFIGS",
    "ZERO_OUTPUT",
    "Config",
    "DataConfig",
    "DimeNetPlusPlusConfig",
    "DirectHeadConfig",
    "EquivariantPotentialConfig",
    "GraphAttentionTransformerConfig",
    "GraphTransformerConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "SchNetConfig",
    "ScheduleConfig",
    "SegnnConfig",
    "TargetConfig",
    "TrainingConfig",
]

SCHEDULES = ("constant", "cosine", "one_cycle", "exponential", "step", "plateau", "physics_aware", "milestones")
DEVICES = ("CPU", "GPU", "Ascend")
#: usual names of a device whose nearest by its letters is another
DEVICE_HINTS = {
    name: f"did you mean {device!r}? expected one of {', '.join(DEVICES)}"
    for name, device in (("npu", "Ascend"), ("cuda", "GPU"))
}
FLOAT16_HINTS = {
    **dict.fromkeys(
        ("float16", "fp16", "half", "16", "16-mixed", "mixed"),
        "expected float32 or float64, the precision of the weights; for arithmetic in float16 set run.amp_level=O2",
    ),
    **dict.fromkeys(
        ("bfloat16", "bf16", "bf16-mixed"),
        "expected float32 or float64; there is no bfloat16, for arithmetic in float16 set run.amp_level=O2",
    ),
}


@dataclass(frozen=True)
class DataConfig:
    """What is learned from."""

    file: str = "sample"
    """A file or folder that the readers know, or what ships with the project: ``sample``, 22,807 QM9 molecules, or
    ``crystals``, about a hundred materials of phonondb with their force constants.
    As an option it replaces the two files of a profile, and the split is then ``random`` unless an option names one."""
    train_file: str = ""
    """Instead of ``file``: what to learn from; ``sample`` is the shipped ethanol of rMD17.  As options the two files
    replace the one of a profile, and the split is then ``two_files`` unless an option names one."""
    test_file: str = ""
    """What to measure on, with ``train_file`` and the split ``two_files``."""
    keys: dict[str, str] = field(default_factory=dict)
    """Labels under other names: label -> its name in the file, ``{energy: REF_energy, forces: REF_forces}``, or as text
    ``energy=REF_energy,forces=REF_forces``; see ``data_tools.formats.label_keys``."""
    split: str = field(
        default="sample",
        metadata={"choices": ("sample", "random", "110k", "cormorant", "labelled", "two_files", "file")},
    )
    """How rows are divided into train, valid and test; see ``data_tools.labels.splits``."""
    split_seed: int = bounded(0, least=0)
    """Seed of the splits ``random``, ``110k`` and ``two_files``."""
    split_file: str = ""
    """Index file of the split ``file``."""
    train_size: int | float = bounded(0, least=0)
    """Use only the first so many training rows; 0 means all.  This and the two sizes below are whole numbers, 1 being
    one row, or fractions between 0 and 1 such as 0.8: of the file for ``random``, of the file that it is taken from for
    ``two_files``, else of the training rows.  1.0 is refused, for it may mean one row or all.  Whole numbers of a
    profile that are more than the data hold shrink to them; those given as options are refused."""
    valid_size: int | float = bounded(0, least=0)
    """Validation rows of the splits ``random`` and ``two_files``; 0 means a tenth."""
    test_size: int | float = bounded(0, least=0)
    """Test rows of the split ``random``, where 0 means a tenth, and of ``two_files``, where it means all."""
    shapes: int = bounded(4, least=1)
    """The most static shapes of a training batch; each is compiled once."""
    augment_rotations: bool = False
    """Rotate or reflect every structure of a training batch at random, with its labels: a control, for the models here
    are invariant and learn the same but for rounding."""
    noise: float = bounded(0.0, least=0.0, most=0.5)
    """Standard deviation, Angstrom, of normal noise on each coordinate of the structures of a training batch, other
    noise in each epoch; for targets that are numbers of a structure, not for its derivatives.  Labels and neighbours
    stay those of the positions without noise; see ``data_tools.graphs.noise``."""


@dataclass(frozen=True)
class TargetConfig:
    """The property to predict and how labels become what the network learns; see ``data_tools.labels.targets``."""

    name: str = "gap"
    """One of the 12 QM9 targets, ``energy``, whose gradient is learned where the data have forces,
    ``force_constants``, the second derivatives of the energy of crystals, or what your own data call a property of
    theirs; see ``data_tools.labels.own_property``."""
    readout: str = field(
        default="auto",
        metadata={"choices": ("auto", "sum", "mean", "dipole", "electronic_spatial_extent", "attention")},
    )
    """How atom values become the molecule's; ``auto`` takes the target's own.  ``attention``: a mean whose weights are
    learned, for homo, lumo, gap and properties of your own that do not grow with the structure."""
    reference: str = field(default="auto", metadata={"choices": ("auto", "none", "atomisation", "total")})
    """Label definition: ``atomisation`` subtracts the free atoms from an energy; ``auto`` takes the target's own."""
    standardisation: str = field(
        default="auto",
        metadata={"choices": ("auto", "none", "per_molecule", "mean_mad", "per_atom", "per_element", "scale")},
    )
    """What of the training labels is taken out per molecule, atom or element; ``auto`` is the target's recommended."""
    names: list[str] = field(default_factory=list)
    """Several properties instead of one, ``[gap, homo, lumo]`` or as text ``gap,homo,lumo``: outputs of one network,
    each with its own readout and standardisation; structures may lack some of the labels."""
    units: dict[str, str] = field(default_factory=dict)
    """Units of properties of your own among ``names``: name -> unit."""
    readouts: dict[str, str] = field(default_factory=dict)
    """Readouts of some of ``names``, name -> readout, instead of that of ``readout``; not ``attention``, which all
    outputs of a network have or none."""
    unit: str = ""
    """Unit of a property of your own, ``log(mol/L)``, which logs, tables, pictures and the checkpoint carry; empty:
    ``no unit``.  Built-in targets have theirs."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with bias correction (Loshchilov and Hutter, 2019)."""

    lr: float = bounded(1e-4, above=0)
    """Learning rate: the constant one, or the highest of a schedule."""
    weight_decay: float = bounded(0.01, least=0)
    """Decoupled weight decay."""
    decay_on: str = field(default="all", metadata={"choices": ("all", "matrices")})
    """Which weights decay: all, or those of two and more axes (matrices, embeddings), and neither biases nor the gains
    of norms nor any other row of numbers."""
    beta1: float = bounded(0.9, least=0, below=1)
    """Decay of the first moment."""
    beta2: float = bounded(0.999, least=0, below=1)
    """Decay of the second moment."""
    epsilon: float = bounded(1e-8, least=1e-30)
    """Added to the root of the second moment."""
    clip_norm: float = bounded(0.0, least=0)
    """Largest norm of the whole gradient; 0 means no clipping."""
    ema_decay: float = bounded(0.0, least=0, below=1)
    """Decay of the exponential moving average of the weights, used for evaluation; 0 means no average."""
    layer_decay: float = bounded(1.0, above=0, most=1)
    """Factor of the learning rate from each part of the network to the one before it: the head has the whole rate, the
    last block this share of it, the one before the share of that, and so on to the embedding.  For ``pretrained``."""
    amsgrad: bool = False
    """Divide by the root of the largest second moment so far (Reddi et al., ICLR 2018)."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate as a function of the step."""

    name: str = field(
        default="constant",
        metadata={"choices": SCHEDULES},
    )
    """Shape of the decay after the warm-up; see ``training.schedule``.  ``physics_aware``, of force constants, halves
    the rate after every epoch in which they are not symmetric, and multiplies it by 1.05 after every other that is the
    best so far."""
    warmup_steps: int = bounded(0, least=0)
    """Steps of linear warm-up from ``warmup_lr``; not used by ``one_cycle``."""
    warmup_epochs: float = bounded(0.0, least=0)
    """The same in epochs, instead of steps."""
    cooldown_epochs: float = bounded(0.0, least=0)
    """Epochs at ``min_lr`` at the end of the run; the schedule ends before them."""
    warmup_lr: float = bounded(0.0, least=0)
    """Learning rate that the warm-up starts from: its k-th of n steps has k / n of the way to the highest rate."""
    min_lr: float = bounded(0.0, least=0)
    """The rate never falls below this."""
    decay_rate: float = bounded(0.5, above=0, most=1)
    """Factor of ``exponential`` (per ``decay_steps``), ``step`` (at each of them), ``plateau`` (each time) and
    ``milestones`` (at each)."""
    decay_steps: int = bounded(10000, least=1)
    """Steps over which, or at whose multiples, ``exponential`` and ``step`` apply ``decay_rate``."""
    patience: int = bounded(10, least=1)
    """``plateau``: epochs without a better validation MAE before the rate falls."""
    warmup_fraction: float = bounded(0.3, least=0, most=1)
    """``one_cycle``: share of all steps in which the rate rises."""
    milestones: list[float] = field(default_factory=lambda: [0.8, 0.9], metadata={"above": 0, "below": 1})
    """``milestones``: the shares of the steps between warm-up and cool-down after which the rate falls, ``[0.8, 0.9]``
    or as text ``0.8,0.9``."""


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    epochs: int = bounded(20, least=1)
    """Passes through the training structures."""
    batch_size: int = bounded(16, least=1)
    """Molecules in a training batch, over all devices."""
    eval_batch_size: int = bounded(128, least=1)
    """Molecules in an evaluation batch."""
    loss: str = field(
        default="mse",
        metadata={"choices": ("mse", "mae", "huber", "norm", "adaptive", "frobenius_norm", "frequency")},
    )
    """Loss on standardised labels; ``huber`` turns linear beyond 1, ``norm`` is the length of the error of a vector,
    ``adaptive`` the logarithm of the mean of these in each structure, so that every structure and term is weighted by
    its own error.  For the target ``force_constants`` also ``frequency``, which is ``norm`` of mass-weighted force
    constants, and ``frobenius_norm``, the relative error of norms: a control, blind to signs and directions."""
    energy_weight: float = bounded(1.0, least=0)
    """Weight of the labels in the loss; other than 1 only beside forces or stress."""
    force_weight: float = bounded(0.0, least=0)
    """Weight of the mean over force components in the loss, for the target ``energy``; 0 learns no forces.  For the
    target ``force_constants`` these are the forces at the structure of the data, which should be 0."""
    stress_weight: float = bounded(0.0, least=0)
    """Weight of the mean over the nine components of the stress in the loss, for the target ``energy`` of crystals; 0
    learns no stress.  Stresses are in eV/Angstrom^3, where numbers are a hundred times smaller than those of forces.
    For the target ``force_constants`` it is the stress at the structure of the data, which should be 0."""
    equivariance_weight: float = bounded(0.0, least=0)
    """For the target ``force_constants``, a control: how much it weighs beside their error that the product of a
    structure and a probe, both rotated at random, is not the rotated product.  An equivariant model needs none."""
    probes: str = field(default="columns", metadata={"choices": ("columns", "directions", "rows", "thermal")})
    """What of a structure's force constants an epoch learns: a random column, the product with a random direction, all
    rows of its primitive atoms, each once and in a step of its own among those of other structures, or the product with
    a random wave of its own phonons, in which soft modes are as large as heat makes them."""
    task_weights: list[float] = field(default_factory=lambda: [1.0], metadata={"above": 0})
    """Weights of several targets in the loss on standardised labels, in the order of ``target.names``; one number: of
    each of them."""
    task_weighting: str = field(default="fixed", metadata={"choices": ("fixed", "uncertainty")})
    """``uncertainty``: the weights of several targets are learned too, each the inverse of the width of its errors
    (A. Kendall, Y. Gal, R. Cipolla, CVPR 2018)."""
    loss_scale: str = field(default="none", metadata={"choices": ("none", "dynamic")})
    """``dynamic`` skips steps that are not finite and adapts the scale of the loss; ``none`` stops the run at one."""
    early_stop: int = bounded(0, least=0)
    """Stop after so many epochs without a better validation MAE; 0 means never."""
    pretrained: str = ""
    """A checkpoint of the same architecture whose weights the run starts from."""
    fresh: str = ""
    """What of the network begins anew instead of with ``pretrained``: ``embedding``, ``blocks``, ``block0`` and so on,
    ``head``, or beginnings of parameters' names, with commas between them, or ``none``.  Empty: the head, where the
    checkpoint predicts another target, in another unit, or has another readout."""
    freeze: str = ""
    """What of the network stays as ``pretrained`` has it, in the same words."""


@dataclass(frozen=True)
class RunConfig:
    """The machine, the folder and the log."""

    mode: str = field(default="GRAPH", metadata={"choices": ("GRAPH", "PYNATIVE")})
    """MindSpore's execution mode."""
    device_target: str = field(default="CPU", metadata={"choices": DEVICES, "hints": DEVICE_HINTS})
    """Where the model runs."""
    device_id: int = bounded(0, least=0)
    """Which of the devices."""
    dtype: str = field(default="float32", metadata={"choices": ("float32", "float64"), "hints": FLOAT16_HINTS})
    """Precision of parameters and arithmetic."""
    amp_level: str = field(default="O0", metadata={"choices": ("O0", "O2", "O3")})
    """``O2``: float16 on edges and triplets; ``O3``: float16 everywhere; see ``models.precision``.  Not for forces."""
    seed: int = bounded(0, least=0)
    """Seed of the weights and of the order of structures."""
    output: str = ""
    """The run folder; empty means ``runs/<config name>_<target>_seed<seed>``."""
    log_every: int = bounded(100, least=1)
    """Steps between two lines of the log."""
    save_minutes: float = bounded(10.0, least=0.0)
    """Most minutes between two checkpoints; there is one after each epoch in any case."""
    keep: int = bounded(2, least=1)
    """How many of the newest checkpoints to keep, besides the best."""
    plots: bool = True
    """Draw predictions, loss curve and t-SNE at the end."""
    run_mode: str = field(default="train", metadata={"choices": ("train", "infer")})
    """``infer``: measure ``ckpt_file`` on the test structures of the configuration instead of training."""
    ckpt_file: str = ""
    """``train``: the best checkpoint goes also here; ``infer``: the checkpoint or run folder that is measured."""
    log_file: str = ""
    """A second file that the log is appended to."""
    tensorboard: bool = False
    """Write the curves also as event files of TensorBoard, into the run folder; needs the package tensorboardX."""
    profiling: bool = False
    """MindSpore's profiler looks at the first ``profiling_step`` steps and writes to ``profile`` in the run folder."""
    profiling_step: int = bounded(50, least=1)
    """Steps that the profiler looks at."""


ModelConfig = (
    SchNetConfig
    | DimeNetPlusPlusConfig
    | SegnnConfig
    | GraphAttentionTransformerConfig
    | EquivariantPotentialConfig
    | DirectHeadConfig
    | GraphTransformerConfig
)


@dataclass(frozen=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=SchNetConfig)
    """The network."""
    data: DataConfig = field(default_factory=DataConfig)
    """The molecules."""
    target: TargetConfig = field(default_factory=TargetConfig)
    """The property."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The loop."""
    run: RunConfig = field(default_factory=RunConfig)
    """The machine."""

"""The hyperparameters of each model: the sections ``model`` of a configuration, of which it has one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: targets for which the original DimeNet++ starts its last layers from zero
ZERO_OUTPUT = ("mu", "homo", "lumo", "zpve")


def bounded(default: Any, **bounds: float) -> Any:
    """A number with a range: ``least`` and ``most`` belong to it, ``above`` and ``below`` do not."""
    return field(default=default, metadata=bounds)


@dataclass(frozen=True)
class SchNetConfig:
    """Hyperparameters of ``models.schnet.SchNet``."""

    name: str = "schnet"
    """The model."""
    features: int = bounded(64, least=2)
    """Size of an atom's feature vector."""
    filters: int = bounded(64, least=1)
    """Size of a convolution filter."""
    blocks: int = bounded(2, least=1)
    """Number of interaction blocks."""
    gaussians: int = bounded(25, least=2)
    """Number of radial basis functions."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom."""
    convention: str = field(default="pyg", metadata={"choices": ("pyg", "schnetpack", "2017")})
    """Whose head and filter: torch_geometric, schnetpack or the first paper."""
    filter: str = field(default="elementwise", metadata={"choices": ("elementwise", "matrix")})
    """Elementwise filters (paper), or a full matrix per edge (ablation)."""
    elements: str = field(default="free", metadata={"choices": ("free", "described")})
    """What an atom begins with: a vector of its element (paper), or besides a function of the element's place in the
    periodic table and its radius, for data with few examples of each."""
    envelope: str = field(default="cosine", metadata={"choices": ("cosine", "polynomial")})
    """What takes a filter to zero at the cutoff: the cosine of the paper, whose curvature jumps there, or a polynomial
    with continuous second derivatives, for Hessians.  The convention ``2017`` has neither."""
    output_init: str = field(default="glorot", metadata={"choices": ("glorot", "zeros")})
    """Initial weights of the last layer; with ``zeros`` an untrained network predicts the references alone."""
    outputs: int = bounded(1, least=1)
    """Values of an atom; a run has as many as targets."""


@dataclass(frozen=True)
class DimeNetPlusPlusConfig:
    """Hyperparameters of ``models.dimenetpp.DimeNetPlusPlus``; the original's name stands in parentheses."""

    name: str = "dimenetpp"
    """The model."""
    features: int = bounded(128, least=1)
    """Size of a message (hidden_channels, emb_size)."""
    blocks: int = bounded(4, least=1)
    """Number of interaction blocks (num_blocks)."""
    interaction_features: int = bounded(64, least=1)
    """Size of a message while it is multiplied with the spherical basis (int_emb_size)."""
    basis_features: int = bounded(8, least=1)
    """Size between the two layers that a basis passes through (basis_emb_size)."""
    output_features: int = bounded(256, least=1)
    """Size of the hidden layers of an output block (out_emb_channels, out_emb_size)."""
    spherical: int = bounded(7, least=1)
    """Number of degrees of the spherical basis (num_spherical)."""
    radial: int = bounded(6, least=1)
    """Number of radial functions, also for each degree (num_radial)."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom."""
    envelope_exponent: int = bounded(5, least=1)
    """Exponent of the polynomial that falls to zero at the cutoff."""
    layers_before_skip: int = bounded(1, least=0)
    """Residual layers of a block before its skip connection (num_before_skip)."""
    layers_after_skip: int = bounded(2, least=0)
    """Residual layers of a block after its skip connection (num_after_skip)."""
    output_layers: int = bounded(3, least=0)
    """Hidden layers of an output block (num_output_layers, num_dense_output)."""
    outputs: int = bounded(1, least=1)
    """Values for each molecule (out_channels, num_targets); a run trains one."""
    output_init: str = field(default="auto", metadata={"choices": ("auto", "zeros", "orthogonal")})
    """Initial weights of the last layers; ``auto``: zeros for mu, homo, lumo and zpve, as in the original."""
    reference_bugs: bool = False
    """The faults of the original's bases, which its published weights have learned with."""


@dataclass(frozen=True)
class SegnnConfig:
    """Hyperparameters of ``models.segnn.SEGNN``; the original's name stands in parentheses."""

    name: str = "segnn"
    """The network."""
    features: int = bounded(128, least=1)
    """Size of the hidden irreps: 128 are 36x0e+36x1o+36x2e (hidden_features)."""
    blocks: int = bounded(7, least=1)
    """Number of layers (layers, num_layers)."""
    lmax: int = bounded(2, least=0, most=4)
    """Largest degree of the hidden irreps (lmax_h)."""
    lmax_attributes: int = bounded(3, least=0, most=6)
    """Largest degree of the spherical harmonics (lmax_attr)."""
    cutoff: float = bounded(2.0, above=0)
    """Angstrom; pairs closer than this are joined (radius)."""
    subspace: str = field(default="weight_balanced", metadata={"choices": ("weight_balanced", "balanced")})
    """How ``features`` become irreps (subspace_type)."""
    norm: str = field(default="instance", metadata={"choices": ("instance", "batch", "none")})
    """Normalisation after each layer (norm)."""
    task: str = field(default="graph", metadata={"choices": ("graph", "node")})
    """``graph``: nodes are pooled, and a network reads the result, whatever ``target.readout`` says; ``node``: each
    node has a value of its own and ``target.readout`` joins them, as in the other models (task)."""
    pooling: str = field(default="mean", metadata={"choices": ("mean", "sum")})
    """How nodes are pooled for the task ``graph`` (pool: avg, sum)."""
    node_features: str = field(default="one_hot", metadata={"choices": ("one_hot", "cormorant", "gilmer")})
    """What a node begins with (feature_type)."""
    outputs: int = bounded(1, least=1)
    """Values for each molecule; a run trains one."""
    ncon_dtype: str = field(default="auto", metadata={"choices": ("auto", "float16", "float32", "float64")})
    """Precision of the products with the attributes; ``auto`` is that of the model."""


@dataclass(frozen=True)
class GraphAttentionTransformerConfig:
    """Hyperparameters of ``models.graph_attention_transformer``; the original's name stands in parentheses."""

    name: str = "graph_attention_transformer"
    """The network."""
    irreps: str = "128x0e+32x0o+32x1e+32x1o+16x2e+16x2o"
    """Irreps of a node (irreps_node_embedding).  Even ones of odd degree, such as 1e, without any odd one beside them
    break the mirror: harmonics then count as even, and mirror images differ in energy."""
    irreps_head: str = "32x0e+8x0o+8x1e+8x1o+4x2e+4x2o"
    """Irreps of an attention head (irreps_head)."""
    irreps_mlp: str = "384x0e+96x0o+96x1e+96x1o+48x2e+48x2o"
    """Irreps between the two layers of a feed-forward network (irreps_mlp_mid)."""
    irreps_features: str = "512x0e"
    """Scalars of a node after the last block (irreps_feature)."""
    blocks: int = bounded(6, least=1)
    """Number of blocks of attention and feed-forward network (num_layers)."""
    heads: int = bounded(4, least=1)
    """Number of attention heads (num_heads)."""
    lmax: int = bounded(2, least=0, most=6)
    """Largest degree of the spherical harmonics (irreps_sh)."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom (max_radius)."""
    basis: str = field(default="gaussian", metadata={"choices": ("gaussian", "bessel")})
    """Radial functions (basis_type)."""
    radial: int = bounded(128, least=1)
    """Number of radial functions (number_of_basis)."""
    radial_features: int = bounded(64, least=1)
    """Size of the hidden layers between radial functions and weights of a product (fc_neurons)."""
    radial_layers: int = bounded(2, least=1)
    """How many there are."""
    norm: str = field(default="layer", metadata={"choices": ("layer", "smooth", "none")})
    """Normalisation before each layer (norm_layer).  ``layer`` is the original's, whose second derivatives are 1e5
    times too large and more where an atom is at an inversion centre; ``smooth`` is for crystals, see
    ``models.e3.norm``."""
    envelope: str = field(default="polynomial", metadata={"choices": ("polynomial", "none")})
    """What takes messages and attention to zero at the cutoff: a polynomial with continuous second derivatives, or
    nothing, as in the original, where an energy jumps when an atom crosses the cutoff."""
    elements: str = field(default="free", metadata={"choices": ("free", "described")})
    """What an atom begins with: a vector of its element, or besides a function of the element's place in the periodic
    table and its radius, for data with few examples of each."""
    values: str = field(default="nodes", metadata={"choices": ("nodes", "edges")})
    """What has a value that ``target.readout`` reduces: atoms, or edges whose values an atom adds up: a control."""
    recompute: bool = False
    """Keep nothing of a block for its derivative and compute it again, on a CPU without the C++ kernels: a control."""
    average_degree: float = bounded(15.57930850982666, least=0)
    """Average number of neighbours, for the scale of their sum; 0 takes that of the training structures."""
    average_nodes: float = bounded(18.03065905448718, least=0)
    """Average number of atoms, for the scale of an energy; 0 takes that of the training structures.  Both are those of
    the original for QM9 with a cutoff of 5 Angstrom."""
    alpha_drop: float = bounded(0.2, least=0, below=1)
    """Dropout of attention weights."""
    proj_drop: float = bounded(0.0, least=0, below=1)
    """Dropout of the irreps of an update."""
    out_drop: float = bounded(0.0, least=0, below=1)
    """Dropout of the features that the energy is read from."""
    drop_path: float = bounded(0.0, least=0, below=1)
    """Probability that a structure skips an update (drop_path_rate)."""


@dataclass(frozen=True)
class EquivariantPotentialConfig:
    """Hyperparameters of ``models.equivariant_potential.EquivariantPotential``."""

    name: str = "equivariant_potential"
    """The network."""
    irreps: str = "64x0e+32x1o+16x2e"
    """Features of an atom between layers; scalars, 0e, first."""
    blocks: int = bounded(2, least=1)
    """Number of layers."""
    lmax: int = bounded(2, least=1, most=4)
    """Largest degree of the spherical harmonics."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom."""
    bessel: int = bounded(8, least=1)
    """Radial functions of the distance."""
    gaussians: int = bounded(8, least=2)
    """Radial functions of the distance over the sum of the covalent radii."""
    average_degree: float = bounded(0.0, least=0)
    """Average number of neighbours, by whose root sums are divided; 0 takes that of the training structures."""


@dataclass(frozen=True)
class DirectHeadConfig:
    """Hyperparameters of ``models.direct_head.DirectHead``."""

    name: str = "direct_head"
    """The network."""
    irreps: str = "64x0e+32x1o+16x2e"
    """Features of an atom between layers; scalars, 0e, first."""
    blocks: int = bounded(2, least=1)
    """Number of layers."""
    lmax: int = bounded(2, least=2, most=4)
    """Largest degree of the spherical harmonics."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom."""
    bessel: int = bounded(8, least=1)
    """Radial functions of the distance."""
    gaussians: int = bounded(8, least=2)
    """Radial functions of the distance over the sum of the covalent radii."""
    channels: int = bounded(4, least=0)
    """Products of two edges of an atom, of which blocks that are not symmetric consist; 0: pairs alone."""
    average_degree: float = bounded(0.0, least=0)
    """Average number of neighbours, by whose root sums are divided; 0 takes that of the training structures."""


@dataclass(frozen=True)
class GraphTransformerConfig:
    """Hyperparameters of ``models.graph_transformer.GraphTransformer``, a control that is not equivariant."""

    name: str = "graph_transformer"
    """The network."""
    features: int = bounded(64, least=1)
    """Size of an atom's feature vector, a multiple of the heads."""
    blocks: int = bounded(3, least=1)
    """Number of blocks of convolution, attention and feed-forward network."""
    heads: int = bounded(4, least=1)
    """Number of attention heads."""
    cutoff: float = bounded(5.0, above=0)
    """Neighbours closer than this interact, Angstrom."""
    gaussians: int = bounded(25, least=2)
    """Number of radial basis functions."""
    average_degree: float = bounded(0.0, least=0)
    """Average number of neighbours, by whose root sums are divided; 0 takes that of the training structures."""


#: models of force constants themselves, which have no energy and hence no forces
WITHOUT_ENERGY = frozenset({"direct_head", "graph_transformer"})
#: The dataclass of each model's section; a later model adds a line.
MODEL_CONFIGS: dict[str, type] = {
    "schnet": SchNetConfig,
    "dimenetpp": DimeNetPlusPlusConfig,
    "segnn": SegnnConfig,
    "graph_attention_transformer": GraphAttentionTransformerConfig,
    "equivariant_potential": EquivariantPotentialConfig,
    "direct_head": DirectHeadConfig,
    "graph_transformer": GraphTransformerConfig,
}

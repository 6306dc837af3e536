"""The kernels as differentiable cells: every gradient is made of kernels again, so that all orders stay fused.

The modules have the names of the headers that they call: (1) activations, (2) pairs, (3) triplets, (4) products,
(5) distances, (6) row_blocks, (7) mixtures, (8) gates, (10) couplings, (11) mixed_products, (12) to (14) envelopes and
(15) harmonics; (9) row_functions are the derivatives of (8) and (15).
(2) to (4), (6), (7), (10) and (11) are linear in each factor.
Contracted with g each is one number, sum g c w x, sum g x (W r) or sum g (W x); its gradient in any factor is linear in
all the others, so three kernels each (and the sum for b) serve every order: the cells are each other's gradients.

They take float32 and float64.  Arrays are dense, indices int32 and in range.
"""

from __future__ import annotations

from models.cpu_kernels.activations import shifted_softplus, swish
from models.cpu_kernels.couplings import coupled
from models.cpu_kernels.distances import cosine_cutoff, gaussians, lengths, pair_vectors
from models.cpu_kernels.envelopes import Envelope, EnvelopedBasis
from models.cpu_kernels.gates import Gate
from models.cpu_kernels.harmonics import Harmonics
from models.cpu_kernels.mixed_products import mixed_products
from models.cpu_kernels.mixtures import mixed, mixed_without_bias
from models.cpu_kernels.pairs import pair_sum
from models.cpu_kernels.products import linear, linear_inputs, linear_without_bias
from models.cpu_kernels.row_blocks import block_product, block_transpose
from models.cpu_kernels.triplets import triplet_sum

__all__ = [
    "Envelope",
    "EnvelopedBasis",
    "Gate",
    "Harmonics",
    "block_product",
    "block_transpose",
    "cosine_cutoff",
    "coupled",
    "gaussians",
    "lengths",
    "linear",
    "linear_inputs",
    "linear_without_bias",
    "mixed",
    "mixed_products",
    "mixed_without_bias",
    "pair_sum",
    "pair_vectors",
    "shifted_softplus",
    "swish",
    "triplet_sum",
]

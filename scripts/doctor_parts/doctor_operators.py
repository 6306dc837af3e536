"""The operators that the models are made of, each beside its formula in NumPy."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_operators.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import numpy as np
from mindspore import Tensor, ops
from mindspore import dtype as mstype
from scipy.special import eval_legendre, spherical_jn

from models import DTYPES
from models.angular import SphericalBesselBasis, ZonalHarmonics, spherical_bessel_zeros
from models.blocks import AddBias, Dense, ShiftedSoftplus, Softplus
from models.cpu_kernels import load
from models.graph_ops import edge_vectors, gather, safe_norm, segment_mean, segment_sum
from models.radial import BesselBasis, CosineCutoff, GaussianBasis, PolynomialEnvelope, TrainedGaussians
from models.swish import Swish, SwishOnDevice
from scripts.doctor_parts.doctor_e3 import e3
from scripts.doctor_parts.doctor_formulas import Operator, positive, sigmoid, signed

ZERO_LAST = np.array([[1.0], [1.0], [1.0], [0.0]])


def operators(dtype: str) -> list[Operator]:
    """All of them."""
    return [
        *elementwise(dtype),
        *products(dtype),
        *rearrangements(),
        *on_graphs(dtype),
        *layers(dtype),
        *directional(dtype),
        *e3(dtype),
        *kernels(),
    ]


def elementwise(dtype: str) -> list[Operator]:
    """Functions of one number."""

    def choose(x):
        return ops.where(x > 0, x * x, x)

    def larger(x):
        return ops.maximum(x, x + x)

    def widened(x):
        wide = ops.cast(x, mstype.float64)
        return ops.cast(wide * wide, DTYPES[dtype])

    def smaller(x):
        return ops.minimum(x, x + x)

    def stepped(x):
        return x * x * ops.stop_gradient(floor(x))

    x, floor = signed(4, 4), ops.Floor()
    between = np.arange(16).reshape(4, 4) % 3 + 0.2 + 0.6 * (positive(4, 4) - 0.4) / 1.2  # whole numbers
    return [
        Operator("floor", stepped, lambda x: x * x * np.floor(x), between),
        Operator("exp", ops.exp, np.exp, x),
        Operator("log1p", ops.log1p, np.log1p, positive(4, 4)),
        Operator("sqrt", ops.sqrt, np.sqrt, positive(4, 4)),
        Operator("cos", ops.cos, np.cos, x),
        Operator("sin", ops.sin, np.sin, x),
        Operator("tanh", ops.tanh, np.tanh, x),
        Operator("sigmoid", ops.sigmoid, sigmoid, x),
        Operator("silu", SwishOnDevice(), lambda x: x * sigmoid(x), x),
        Operator("swish", Swish(), lambda x: x * sigmoid(x), x),
        Operator("softplus", Softplus(DTYPES[dtype]), lambda x: np.log1p(np.exp(x)), x),
        Operator("shifted softplus", ShiftedSoftplus(DTYPES[dtype]), lambda x: np.log(np.exp(x) / 2 + 0.5), x),
        Operator("abs", ops.abs, np.abs, x),
        Operator("relu", ops.relu, lambda x: np.maximum(x, 0), x),
        Operator("where", choose, lambda x: np.where(x > 0, x * x, x), x),
        Operator("maximum", larger, lambda x: np.maximum(x, 2 * x), x),
        Operator("cast", widened, lambda x: x * x, x),
        Operator("minimum", smaller, lambda x: np.minimum(x, 2 * x), x),
    ]


def products(dtype: str) -> list[Operator]:
    """Arithmetic of two arrays and sums."""
    first, second = slice(0, 2), slice(2, 4)  # columns of x
    transposed, batches = ops.MatMul(transpose_b=True), ops.BatchMatMul(transpose_b=True)
    add_bias, add = AddBias(), ops.AddN()
    three, two = Tensor(3.0, DTYPES[dtype]), Tensor(2.0, DTYPES[dtype])

    def arithmetic(x):
        return (x[:, first] + x[:, second]) * (x[:, first] - three) / x[:, second]

    def numpy_arithmetic(x):
        return (x[:, first] + x[:, second]) * (x[:, first] - 3) / x[:, second]

    def broadcast(x):
        return x * x[0:1] + two * x[:, 0:1]

    def with_bias(x):
        return add_bias(x * x, x[0] * x[0])

    def matrix_product(x):
        return ops.matmul(x[:3], x)

    def with_transpose(x):
        return transposed(x, x)

    def batched(x):
        matrices = x.reshape(2, 2, 4)
        return ops.bmm(batches(matrices, matrices), matrices)

    def added(x):
        return add((x, x * x, x))

    def sums(x):
        return x.sum(-1, keepdims=True) * x.sum() + x.sum(0)

    x = positive(4, 4)
    return [
        Operator("+ - * /", arithmetic, numpy_arithmetic, x),
        Operator("broadcasting", broadcast, lambda x: x * x[0:1] + 2 * x[:, 0:1], x),
        Operator("bias", with_bias, lambda x: x * x + x[0] * x[0], x),
        Operator("matmul", matrix_product, lambda x: x[:3] @ x, x),
        Operator("MatMul, transposed", with_transpose, lambda x: x @ x.T, x),
        Operator("bmm", batched, lambda x: np.einsum("bij,bkj,bkl->bil", *3 * [x.reshape(2, 2, 4)]), x),
        Operator("AddN", added, lambda x: x + x * x + x, x),
        Operator("sum", sums, lambda x: x.sum(-1, keepdims=True) * x.sum() + x.sum(0), x),
    ]


def rearrangements() -> list[Operator]:
    """What moves numbers without computing."""
    pad, halves, rows = ops.Pad(((0, 1), (2, 0))), ops.Split(1, 2), ops.Unstack()

    def join(x):
        return ops.concat((x, x * x), 0)

    def divide(x):
        first, second = halves(x)
        return first * second * second

    def take_apart(x):
        first, second, third, fourth = rows(x)
        return first * second * third * fourth

    def pile(x):
        return ops.stack((x, x * x), 1)

    def exchange(x):
        return ops.transpose(x, (1, 0)) * x

    def shape(x):
        return x.reshape(-1, 2).expand_dims(1).squeeze(1)

    def piece(x):
        return x[1:3, 2:] * x[1, 1]

    x = signed(4, 4)
    return [
        Operator("concat", join, lambda x: np.concatenate((x, x * x)), x),
        Operator("split", divide, lambda x: x[:, :2] * x[:, 2:] ** 2, x),
        Operator("unstack", take_apart, lambda x: np.prod(x, axis=0), x),
        Operator("stack", pile, lambda x: np.stack((x, x * x), 1), x),
        Operator("transpose", exchange, lambda x: x.T * x, x),
        Operator("reshape", shape, lambda x: x.reshape(-1, 2), x),
        Operator("slice", piece, lambda x: x[1:3, 2:] * x[1, 1], x),
        # of parameters only, whose derivatives end at the first; MindSpore 2.10 has none of order 3 here
        Operator("Pad", pad, lambda x: np.pad(x, ((0, 1), (2, 0))), x, orders=1),
    ]


def on_graphs(dtype: str) -> list[Operator]:
    """``models.graph_ops``: x is (4, 3), four vectors or the positions of four atoms."""
    senders, receivers = np.array([0, 1, 2, 1, 3], np.int32), np.array([1, 0, 1, 2, 1], np.int32)
    segments = np.array([0, 2, 0, 2], np.int32)  # segment 1 is empty
    shifts = positive(5, 3)
    sending, receiving, segment = Tensor(senders), Tensor(receivers), Tensor(segments)
    images, mask = Tensor(shifts, DTYPES[dtype]), Tensor([1, 1, 1, 0], DTYPES[dtype])

    def rows(x):
        return gather(x, sending) * gather(x, receiving)

    def summed(x):
        return segment_sum(x * x, segment, x[:3])

    def averaged(x):
        return segment_mean(x, segment, mask, x[:3])

    def edges(x):
        return edge_vectors(x, sending, receiving, images)

    def totals(x):
        result = np.zeros((3, x.shape[1]))
        np.add.at(result, segments, x)
        return result

    def means(x):  # the mask hides the last row, so every segment has two rows or one or none
        return totals(x * np.array([1, 1, 1, 0])[:, None]) / np.array([2, 1, 1])[:, None]

    x = signed(4, 3)
    return [
        Operator("gather", rows, lambda x: x[senders] * x[receivers], x),
        Operator("segment_sum", summed, lambda x: totals(x * x), x),
        Operator("segment_mean", averaged, means, x),
        Operator("edge_vectors", edges, lambda x: x[senders] + shifts - x[receivers], x),
        Operator("safe_norm", safe_norm, lambda x: np.sqrt((x * x).sum(-1, keepdims=True)), x),
        Operator("safe_norm at zero", safe_norm, lambda x: np.sqrt((x * x).sum(-1, keepdims=True)), x * ZERO_LAST),
    ]


def layers(dtype: str) -> list[Operator]:
    """Parts of models: x is (4, 1), distances in Angstrom, or features."""
    kind = DTYPES[dtype]
    centres, width, cutoff = np.array([0.0, 0.75, 1.5]), -0.5 / 0.75**2, 2.0
    basis, envelope, dense = GaussianBasis(centres, width, kind), CosineCutoff(cutoff, kind), Dense(4, 3, kind)
    trained, weight = TrainedGaussians(3, cutoff, kind), signed(3, 4)
    means, widths = np.array([[0.1, 0.4, 0.9]]), np.array([[0.3, -0.5, 1.0]])
    trained.mean.set_data(Tensor(means, kind))
    trained.std.set_data(Tensor(widths, kind))
    dense.weight.set_data(Tensor(weight, kind))

    def gaussians(d):
        return np.concatenate((np.exp(width * (d - centres) ** 2), np.ones_like(d)), 1)

    def densities(d):
        s = np.abs(widths) + 1e-5
        return np.exp(-(((d / cutoff - means) / s) ** 2) / 2) / (s * np.sqrt(2 * 3.14159))

    return [
        Operator("TrainedGaussians", trained, densities, positive(4, 1)),
        Operator("GaussianBasis", basis, gaussians, positive(4, 1)),
        Operator("CosineCutoff", envelope, lambda d: (np.cos(np.pi * d / cutoff) + 1) / 2, positive(4, 1)),
        Operator("Dense", dense, lambda x: x @ weight.T, signed(4, 4)),
    ]


def directional(dtype: str) -> list[Operator]:
    """The bases of DimeNet++: x is (4, 1), distances in Angstrom or cosines."""
    kind, cutoff, degrees, count = DTYPES[dtype], 2.0, 3, 2
    zeros = spherical_bessel_zeros(degrees, count)
    orders = np.arange(degrees)

    def envelope(d):  # exponent 5
        x = d / cutoff
        return 1 - 28 * x**6 + 48 * x**7 - 21 * x**8

    def bessel(d):
        x = d / cutoff
        return envelope(d) / x * np.sin(np.pi * np.arange(1, count + 1) * x)

    def spherical(d):
        norms = np.sqrt(2) / np.abs(spherical_jn(orders[:, None] + 1, zeros))  # (L, N)
        waves = spherical_jn(orders[:, None], zeros * (d / cutoff)[:, :, None]) * norms  # (4, L, N)
        return envelope(d) * waves.reshape(len(d), -1)

    def zonal(cosines):
        return np.sqrt((2 * orders + 1) / (4 * np.pi)) * eval_legendre(orders, cosines)

    d = positive(4, 1)
    return [
        Operator("PolynomialEnvelope", PolynomialEnvelope(cutoff, 5, kind), envelope, d),
        Operator("BesselBasis", BesselBasis(count, cutoff, 5, kind), bessel, d),
        Operator("SphericalBesselBasis", SphericalBesselBasis(degrees, count, cutoff, 5, False, kind), spherical, d),
        Operator("ZonalHarmonics", ZonalHarmonics(degrees, 1, kind), zonal, signed(4, 1) / 2),
    ]


def kernels() -> list[Operator]:
    """What ``models.cpu_kernels`` has beside swish and softplus; nothing where there are no kernels."""
    fused = load()
    if fused is None:
        return []
    first, second = np.array([0, 1, 2, 0], np.int32), np.array([1, 2, 3, 3], np.int32)
    ends = Tensor(first), Tensor(second)

    def layer(x):
        return fused.linear(x, x * x, x[0])

    def pairs(x):
        return fused.pair_sum(x, x * x, x[:, :1], *ends)

    def numpy_pairs(x):
        result, filters = np.zeros_like(x), x * x * x[:, :1]
        np.add.at(result, first, filters * x[second])
        np.add.at(result, second, filters * x[first])
        return result

    def triplets(x):
        return fused.triplet_sum(x, x * x, x + x, *ends)

    def numpy_triplets(x):
        result = np.zeros_like(x)
        np.add.at(result, second, x[first] * (x * x @ (x + x).T))
        return result

    def lengths(x):
        return fused.lengths(fused.pair_vectors(x, x * x, *ends))

    def numpy_lengths(x):
        return np.linalg.norm(x[second] + x * x - x[first], axis=1, keepdims=True)

    offsets, coefficients, frequency = np.array([0.5, 1.0, 2.0]), np.array([-1.0, -2.0, -0.5]), 0.6

    def gaussians(d):
        return fused.gaussians(d, Tensor(offsets, d.dtype), Tensor(coefficients, d.dtype))

    def numpy_gaussians(d):
        return np.exp(coefficients * (d - offsets) ** 2)

    def cutoff(d):
        return fused.cosine_cutoff(d, Tensor(frequency, d.dtype))

    x, d = positive(4, 4), positive(4, 1)
    return [
        Operator("kernel: distances", lengths, numpy_lengths, positive(4, 3)),
        Operator("kernel: Gaussians", gaussians, numpy_gaussians, d),
        Operator("kernel: cosine cutoff", cutoff, lambda d: np.cos(frequency * d) / 2 + 0.5, d),
        Operator("kernel: linear", layer, lambda x: x @ (x * x).T + x[0], x),
        Operator("kernel: sum over pairs", pairs, numpy_pairs, x),
        Operator("kernel: sum over triplets", triplets, numpy_triplets, x),
    ]

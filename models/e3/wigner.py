"""Real Wigner 3j symbols and rotation matrices of the real irreps of O(3), in NumPy's float64.

The real basis is e3nn's.  The components of degree 1 are (x, y, z), and the components m = -l ... l of degree l belong
to functions on the sphere whose axis is y, with phi from z to x:

    (1)  Y_lm ~ sin(|m| phi) for m < 0, 1 for m = 0, cos(m phi) for m > 0

A 3j symbol C_(l1 l2 l3) (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) is the one invariant tensor of its three degrees, of norm 1:

    (2)  sum_ijk D1_ai D2_bj D3_ck C_ijk = C_abc     for every rotation

It is Racah's formula for complex Clebsch-Gordan coefficients, taken to the real basis by unitary matrices Q_l with a
phase (-i)^l, which makes every C real.  Rotation matrices of higher degrees follow from those of degree 1 by (2):

    (3)  D_(l+1) = (2 l + 3) sum C_(l 1 l+1) D_l D_1 C_(l 1 l+1)
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from math import factorial

import numpy as np


@cache
def wigner_3j(l1: int, l2: int, l3: int) -> np.ndarray:
    """C of equation (2), (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), read-only.

    Raises:
        ValueError: the degrees violate |l1 - l2| <= l3 <= l1 + l2.
    """
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"degrees {l1}, {l2}, {l3}: expected |l1 - l2| <= l3 <= l1 + l2")
    complex_ones = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(max(-l2, -l3 - m1), min(l2, l3 - m1) + 1):
            complex_ones[l1 + m1, l2 + m2, l3 + m1 + m2] = _clebsch_gordan(l1, m1, l2, m2, l3)
    q1, q2, q3 = (_real_to_complex(degree) for degree in (l1, l2, l3))
    real = np.einsum("ia,jb,kc,ijk->abc", q1, q2, q3.conj(), complex_ones)
    result = real.real / np.linalg.norm(real.real)
    result.setflags(write=False)
    return result


def wigner_D(degree: int, rotation: np.ndarray) -> np.ndarray:  # noqa: N802  the letter of every paper
    """The matrix D (2 l + 1, 2 l + 1) by which the components of a degree change under a rotation.

    For a rotation with a reflection, of determinant -1, it is D of -R: the parity of an irrep is a factor of its own.

    Args:
        degree: l.
        rotation: (3, 3) orthogonal, acts on (x, y, z).

    Raises:
        ValueError: it is not orthogonal.
    """
    rotation = np.asarray(rotation, np.float64)
    if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-8):
        raise ValueError("rotation: expected an orthogonal matrix (3, 3)")
    proper = rotation * np.sign(np.linalg.det(rotation))
    result = np.ones((1, 1))
    for below in range(degree):
        coupling = wigner_3j(below, 1, below + 1)
        result = (2 * below + 3) * np.einsum("iac,ij,ab,jbd->cd", coupling, result, proper, coupling)  # (3)
    return result


def representation(irreps: Iterable[tuple[int, tuple[int, int]]], matrix: np.ndarray) -> np.ndarray:
    """The matrix (dim, dim) by which a feature of irreps changes under an orthogonal matrix, reflections included.

    Args:
        irreps: of the feature, (multiplicity, (l, p)) each.
        matrix: (3, 3) orthogonal, acts on (x, y, z).

    Raises:
        ValueError: it is not orthogonal.
    """
    reflected = np.linalg.det(matrix) < 0
    copies = [(mul, wigner_D(degree, matrix) * (p if reflected else 1)) for mul, (degree, p) in irreps]
    dim = sum(mul * len(one) for mul, one in copies)
    result, start = np.zeros((dim, dim)), 0
    for mul, one in copies:
        end = start + mul * len(one)
        result[start:end, start:end] = np.kron(np.eye(mul), one)
        start = end
    return result


def _clebsch_gordan(l1: int, m1: int, l2: int, m2: int, l3: int) -> float:
    """<l1 m1 l2 m2 | l3 m1+m2> by Racah's formula, exact but for the last root."""
    m3 = m1 + m2
    squared = Fraction(
        (2 * l3 + 1) * factorial(l3 + l1 - l2) * factorial(l3 - l1 + l2) * factorial(l1 + l2 - l3)
        * factorial(l3 + m3) * factorial(l3 - m3) * factorial(l1 - m1) * factorial(l1 + m1)
        * factorial(l2 - m2) * factorial(l2 + m2),
        factorial(l1 + l2 + l3 + 1),
    )  # fmt: skip
    total = Fraction(0)
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        terms = (k, l1 + l2 - l3 - k, l1 - m1 - k, l2 + m2 - k, l3 - l2 + m1 + k, l3 - l1 - m2 + k)
        total += Fraction((-1) ** k, int(np.prod([factorial(term) for term in terms], dtype=object)))
    root = float(squared * total * total) ** 0.5
    return root if total > 0 else -root


@cache
def _real_to_complex(degree: int) -> np.ndarray:
    """Q: complex component m (row) of real component m (column), (2 l + 1, 2 l + 1)."""
    q = np.zeros((2 * degree + 1, 2 * degree + 1), complex)
    q[degree, degree] = 1.0
    for m in range(1, degree + 1):
        q[degree - m, degree + m], q[degree - m, degree - m] = 0.5**0.5, -1j * 0.5**0.5
        q[degree + m, degree + m], q[degree + m, degree - m] = (-1) ** m * 0.5**0.5, 1j * (-1) ** m * 0.5**0.5
    return (-1j) ** degree * q

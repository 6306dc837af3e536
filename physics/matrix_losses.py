"""Losses of whole force-constant matrices that published recipes train on; each is blind to what it does not compare.

A is the prediction for B, both symmetric (n, n) in eV/Angstrom^2, with eigenvalues in ascending order.

    (1)  squared      mean_ij (A_ij - B_ij)^2
    (2)  norm         | |A| - |B| | / |B|                           Frobenius norms
    (3)  eigenvalue   mean_k (lambda_k(A) - lambda_k(B))^2

(2) is 0 for A = -B, a crystal that is unstable in every mode, and (2) and (3) are 0 for A = Q B Q^T with any orthogonal
Q, whose modes are others at the same frequencies; so are their gradients, with which a training stays there.  (1) is
what training compares here, of the products A v with probes v (``training.losses``); (2) is there as a control.

The eigenvectors of a degenerate eigenvalue are any basis of its space: a loss that compares vectors one by one is not 0
for A = B.  (3) has the gradient 2/n sum_k (lambda_k(A) - lambda_k(B)) u_k u_k^T with eigenvectors u_k of A, which needs
the whole matrix of a crystal in one step; MindSpore 2.10 has eigenvalues with a gradient on a CPU alone.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-14  # norms that differ by no more, relatively, are equal: on which side of the kink they lie says nothing


def squared_loss(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, np.ndarray]:
    """Equation (1) and its gradient (n, n) with respect to the prediction."""
    difference = predicted - reference
    return float((difference**2).mean()), 2 * difference / difference.size


def norm_loss(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, np.ndarray]:
    """Equation (2) and its gradient (n, n) with respect to the prediction; 0 at equal norms, where it has a kink."""
    size, published = np.linalg.norm(predicted), np.linalg.norm(reference)
    wrong = (size - published) / published
    side = np.sign(wrong) if abs(wrong) > ROUNDING else 0.0
    return float(abs(wrong)), side * predicted / (size * published)


def eigenvalue_loss(predicted: np.ndarray, reference: np.ndarray) -> tuple[float, np.ndarray]:
    """Equation (3) and its gradient (n, n) with respect to the prediction."""
    values, vectors = np.linalg.eigh(predicted)
    wrong = values - np.linalg.eigvalsh(reference)
    return float((wrong**2).mean()), 2 / len(wrong) * (vectors * wrong) @ vectors.T

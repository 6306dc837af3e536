"""Probes that move all atoms of a crystal as a wave of its own phonons does when it is warm, soft modes farthest.

For a wave vector q that fits the supercell, with R_j the lattice vector to j from the atom of p2s like it,

    (1)  D_kl = sum_j Phi_kj exp(i q R_j) / sqrt(m_k m_l)         k of p2s; j runs over the translations of l
    (2)  D e_s = lambda_s e_s,   e = sum_s c_s e_s / sqrt(|lambda_s| + lambda_0)      c_s complex normal numbers
    (3)  v_j = Re(exp(i q R_j) e_l) / sqrt(m_l),   (Phi v)_j = Re(exp(i q R_j) (D e)_l) sqrt(m_l)

In (2) classical harmonic motion gives a mode an amplitude of 1 / sqrt(lambda); lambda_0, a part of the mean of
|lambda|, keeps modes near zero from outgrowing the others.  Translations of the crystal, three modes at q = 0 whose
product is 0 by construction, are left out where there are others.  Every q of the supercell has the same probability.
"""

from __future__ import annotations

import numpy as np

LEAST = 0.05  # lambda_0 over the mean of |lambda|


def thermal_probe(
    blocks: np.ndarray,
    translations: np.ndarray,
    primitive_of: np.ndarray,
    masses: np.ndarray,
    supercell: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A probe and the product with it, (n, 3) each; the probe has the length sqrt(n / p).

    Args:
        blocks: (p, n, 3, 3) compact force constants, eV/Angstrom^2.
        translations: (n, 3) R_j in lattice vectors of the primitive cell, whole numbers.
        primitive_of: (n,) l of each atom, a place in p2s.
        masses: (p,) of the atoms of p2s.
        supercell: (3, 3) its lattice vectors as rows, in those of the primitive cell, whole numbers.
        random: what q and c_s are drawn from.
    """
    p, n = blocks.shape[:2]
    wave = np.linalg.solve(supercell, random.integers(n // p, size=3)) if n > p else np.zeros(3)
    phases = np.exp(2j * np.pi * (translations @ wave))  # (n,)
    roots = np.sqrt(masses)
    summed = np.zeros((p, p, 3, 3), complex)
    np.add.at(summed.transpose(1, 0, 2, 3), primitive_of, (blocks * phases[:, None, None]).transpose(1, 0, 2, 3))
    dynamical = (summed / np.outer(roots, roots)[:, :, None, None]).transpose(0, 2, 1, 3).reshape(3 * p, 3 * p)  # (1)
    values, vectors = np.linalg.eigh((dynamical + dynamical.conj().T) / 2)
    still = 3 if p > 1 and np.allclose(phases, 1) else 0  # a crystal of one atom has no other modes at q = 0
    moving = np.argsort(np.abs(values))[still:]
    sizes = np.sqrt(np.abs(values[moving]) + LEAST * np.abs(values[moving]).mean())
    drawn = random.normal(size=(2, len(moving))).T @ (1, 1j) / np.where(sizes > 0, sizes, 1)
    wave_of_one = vectors[:, moving] @ drawn  # (3 p,)  (2)
    force_of_one = dynamical @ wave_of_one

    def everywhere(of_one: np.ndarray) -> np.ndarray:
        return (phases[:, None] * of_one.reshape(p, 3)[primitive_of]).real

    root = roots[primitive_of][:, None]
    probe, product = everywhere(wave_of_one) / root, everywhere(force_of_one) * root  # (3)
    factor = np.sqrt(n / p) / np.linalg.norm(probe)
    return factor * probe, factor * product

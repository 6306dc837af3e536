"""Triplets k -> j -> i of directional models, from the pairs of a structure, a crystal or a whole batch.

A triplet is an edge that ends where another one begins: ``triplet_in`` k -> j and ``triplet_out`` j -> i.  Left out is
only the way straight back, the in edge that is the reverse of the out edge (by the law of pairs edge e +- P).  In a
molecule that means k != i.  In a crystal the image counts: i and k may be one atom in two cells, and an atom may
neighbour its own images.  A structure therefore has the sum over its atoms of degree (degree - 1) triplets.

The lists are made again for each batch, for those of QM9 at 5 Angstrom would take 4 GB (540 million triplets) and a
batch of 32 of its molecules (132,000) takes 2 ms.
"""

from __future__ import annotations

import numpy as np

from data_tools.graph import DataError
from data_tools.graphs.neighbors import index_dtype

MOST = 2**31 - 1  # int32 edge numbers, and the sums over as many triplets on a device
PAIRS_AT_ONCE = 2_000_000  # of which neighbours are counted: about 30 MB of temporaries


def pair_triplets(receivers: np.ndarray, senders: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """All triplets between the edges of P pairs.

    The edges that end at an atom stand together once they are sorted by receiver.  Each out edge takes that list of its
    sender, without its own reverse, whose place in the list is known: no candidate is made that is left out again.

    Args:
        receivers, senders: (P,) the first half of the edges; edge e + P is the reverse of edge e.
        nodes: N, more than any atom number.

    Returns:
        triplet_in, triplet_out (T,) int32 edge numbers below 2 P; the out edges ascend, and for each the in edges.

    Raises:
        DataError: more triplets than an int32 can count.
    """
    pairs = len(receivers)
    sources, ends_at = np.concatenate((senders, receivers)), np.concatenate((receivers, senders))  # (E,)
    degrees = np.bincount(ends_at, minlength=nodes)  # (N,)
    counts = degrees[sources] - 1  # (E,) at least 0: the reverse of an edge ends where the edge begins
    total = int(counts.sum())
    if total > MOST:
        raise DataError(
            f"{nodes} atoms with {2 * pairs} edges: expected at most {MOST} triplets in a batch, found {total}; use a "
            "smaller batch or a shorter cutoff"
        )
    by_end = np.argsort(ends_at.astype(index_dtype(nodes)), kind="stable").astype(np.int32)  # a radix sort if small
    place = np.empty(2 * pairs, np.int32)
    place[by_end] = np.arange(2 * pairs, dtype=np.int32)
    place_of_reverse = np.concatenate((place[pairs:], place[:pairs]))
    first = (np.cumsum(degrees) - degrees)[sources]  # (E,) where the list of the sender begins
    before = np.cumsum(counts) - counts
    chosen = np.arange(total, dtype=np.int32) + np.repeat((first - before).astype(np.int32), counts)  # (T,)
    chosen += chosen >= np.repeat(place_of_reverse, counts)  # step over the reverse
    return by_end[chosen], np.repeat(np.arange(2 * pairs, dtype=np.int32), counts)


def count_triplets(n_atoms: np.ndarray, n_pairs: np.ndarray, receivers: np.ndarray, senders: np.ndarray) -> np.ndarray:
    """How many triplets each of M structures has, without making them: the sum over its atoms of d (d - 1).

    Args:
        n_atoms, n_pairs: (M,) atoms and pairs of each structure.
        receivers, senders: (P,) atom numbers inside their structure.

    Returns:
        (M,) int64.
    """
    last_atoms, last_pairs = np.cumsum(n_atoms, dtype=np.int64), np.cumsum(n_pairs, dtype=np.int64)
    counts: np.ndarray = np.zeros(len(n_atoms), np.int64)
    start = 0
    while start < len(n_atoms):  # a few million pairs at a time, and at least one structure
        pair, atom = int(last_pairs[start] - n_pairs[start]), int(last_atoms[start] - n_atoms[start])
        stop = max(start + 1, int(np.searchsorted(last_pairs, pair + PAIRS_AT_ONCE, side="right")))
        these, pairs = slice(start, stop), slice(pair, int(last_pairs[stop - 1]))
        before = np.repeat(last_atoms[these] - n_atoms[these] - atom, n_pairs[these])
        size = int(last_atoms[stop - 1]) - atom
        degrees = np.bincount(before + receivers[pairs], minlength=size)
        degrees += np.bincount(before + senders[pairs], minlength=size)
        sums = np.concatenate(([0], np.cumsum(degrees * (degrees - 1))))
        ends = last_atoms[these] - atom
        counts[these] = sums[ends] - sums[ends - n_atoms[these]]
        start = stop
    return counts

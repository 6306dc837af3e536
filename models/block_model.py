"""A model of force constants themselves: a network that describes pairs of atoms, and the product with a probe.

Force constants Phi of a structure are a quadratic form of displacements v.  It does not change where the whole
structure is moved, so it is one of the differences d_e = v_j - v_i along the edges e from an atom i to its neighbour j:

    (1)  E_2 = -1/4 sum_e d_e B_e d_e + sum_i sum_c p_ic q_ic         in all, Phi v = dE_2 / dv
    (2)  p_ic = sum_j a_ec d_e,    q_ic = sum_j M_ec d_e              of the neighbours j of i, for channels c
    (3)  (Phi v)_i = sum_e B_e d_e + sum_j g_(j i) - sum_j g_(i j),   g_e = sum_c (a_ec q_ic + M_ec^T p_ic)

Whatever the network says, (3) obeys the sum rule, Phi v = 0 for equal v, and exchange symmetry,
Phi_ij = Phi_ji^T.  Signs: of B alone, Phi_ij = B_ij and Phi_ii = -sum_j B_ij.

B is symmetric, and B_ij = B_ji.  An antisymmetric part of B is a vector b_ij = -b_ji, and drops out of (1); put into
(3) alone it would need sum_j b_ij = 0, or the block Phi_ii were not symmetric.  So what is antisymmetric in a block of
force constants comes from at least two edges of one atom, which are the terms with M: a general 3 x 3 matrix.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from models.graph_ops import gather, opposite_ways, segment_sum, to_type

SENDERS, RECEIVERS = 2, 3  # places among the graph inputs


class BlockProduct(nn.Cell):
    """Equation (3)."""

    def construct(self, blocks: tuple, v: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """The product with a probe, (N, 3).

        Args:
            blocks: B (P, 9) of each pair, symmetric, by rows; and, where there are channels, a (E, C) and M (E, 9 C).
            v: (N, 3).
            senders, receivers: (E,).
        """
        pairs = senders.shape[0] // 2
        of_pairs = gather(v, senders[:pairs]) - gather(v, receivers[:pairs])  # d: (P, 3)
        along = ops.bmm(blocks[0].reshape(-1, 3, 3), of_pairs.expand_dims(2)).reshape(-1, 3)
        product = segment_sum(opposite_ways(along), receivers, v)  # (N, 3)
        if len(blocks) == 1:
            return product
        factors, d = blocks[1].expand_dims(2), opposite_ways(of_pairs)  # (E, C, 1), (E, 3)
        channels = factors.shape[1]
        matrices = blocks[2].reshape(-1, 3 * channels, 3)  # (E, 3 C, 3)
        p = segment_sum((factors * d.expand_dims(1)).reshape(-1, 3 * channels), receivers, v)  # (N, 3 C)  (2)
        q = segment_sum(ops.bmm(matrices, d.expand_dims(2)).reshape(-1, 3 * channels), receivers, v)  # (N, 3 C)
        of_q = (factors * gather(q, receivers).reshape(-1, channels, 3)).sum(1)  # (E, 3)
        of_p = ops.bmm(gather(p, receivers).expand_dims(1), matrices).reshape(-1, 3)  # (E, 3)
        g = of_q + of_p
        return product + segment_sum(g, senders, v) - segment_sum(g, receivers, v)  # (3)


class BlockModel(nn.Cell):
    """Graph inputs and a probe v (N, 3) to Phi v (N, 3); there is no energy.

    Args:
        network: graph inputs to what ``BlockProduct`` takes.
    """

    def __init__(self, network: nn.Cell):
        super().__init__()
        self.network, self.product = network, BlockProduct()

    def construct(self, *arguments: Tensor) -> Tensor:
        """The ten graph inputs, as of ``GraphModel``, and v to Phi v."""
        return self.hessian_product(*arguments)

    def hessian_product(self, *arguments: Tensor) -> Tensor:
        """What ``physics.derivatives`` asks for in place of second derivatives; arguments as of ``construct``."""
        graph, v = arguments[:-1], arguments[-1]
        blocks = self.network(*graph)
        return self.product(blocks, to_type(v, blocks[0].dtype), graph[SENDERS], graph[RECEIVERS])

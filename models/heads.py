"""From values on atoms to one value per graph: sum, mean, |dipole| and electronic spatial extent."""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype

from models.atomic_masses import ATOMIC_MASSES
from models.graph_ops import gather, safe_norm, segment_mean, segment_sum, to_type

READOUTS = ("sum", "mean", "dipole", "electronic_spatial_extent")


class Readout(nn.Cell):
    """Reduce atom values q_i to one value per graph.

    sum: y = sum_i q_i.    mean: y = sum_i q_i / n.
    dipole: y = |sum_i q_i (r_i - r_c)| with the centre of mass r_c (Schuett et al., JCTC 15, 448, 2019).
    electronic_spatial_extent: y = sum_i q_i |r_i - r_c|^2 (the same paper).

    Args:
        kind: one of ``READOUTS``.
        dtype: of the result.
    """

    def __init__(self, kind: str, dtype: mstype.Type = mstype.float32):
        super().__init__()
        if kind not in READOUTS:
            raise ValueError(f"readout {kind!r}: expected one of {', '.join(READOUTS)}")
        self.kind = kind
        if kind in ("dipole", "electronic_spatial_extent"):
            kept = mstype.float32 if dtype == mstype.float16 else dtype
            self.masses = Parameter(Tensor(ATOMIC_MASSES, kept), name="masses", requires_grad=False)

    def construct(
        self,
        values: Tensor,
        numbers: Tensor,
        positions: Tensor,
        node_graph: Tensor,
        node_mask: Tensor,
        graph_mask: Tensor,
    ) -> Tensor:
        """(N, 1) atom values and the graph inputs of the same names to (G,); sum and mean also (N, C) to (G, C)."""
        if self.kind in ("sum", "mean"):
            if self.kind == "sum":
                result = segment_sum(values, node_graph, graph_mask)
            else:
                result = segment_mean(values, node_graph, node_mask, graph_mask)
            return result.reshape(-1) if values.shape[1] == 1 else result
        masses = to_type(gather(self.masses, numbers), positions.dtype).reshape(-1, 1)
        # the ghost graph has no mass: give it 1 so that its centre is finite
        total_mass = segment_sum(masses, node_graph, graph_mask) + (1 - graph_mask).reshape(-1, 1)  # (G, 1)
        centre = segment_sum(masses * positions, node_graph, graph_mask) / total_mass  # (G, 3)
        relative = positions - gather(centre, node_graph)  # (N, 3)
        if self.kind == "dipole":
            return safe_norm(segment_sum(values * relative, node_graph, graph_mask)).reshape(-1)
        squared = (relative * relative).sum(-1, keepdims=True)  # (N, 1)
        return segment_sum(values * squared, node_graph, graph_mask).reshape(-1)

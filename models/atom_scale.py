"""A factor for each atom on what a network reads of its element: how much depends on that atom.

Whatever table of elements a network has, an atom i begins as alpha_i a[Z_i].  At alpha = 1 the network is itself, at
alpha = 0 no atom has an element.  Where a network reads atomic numbers besides (centres of mass, radii of pairs, the
shares of the Cormorant features of SEGNN), those stay.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn

from models.element_descriptions import DescribedElements
from models.elements import ElementEmbedding

TABLES = (ElementEmbedding, DescribedElements)


def scale_elements(model: nn.Cell, nodes: int) -> Parameter:
    """Give the atoms of a network factors, before anything of it is compiled.

    Args:
        model: the network; it computes with the factors from here on and takes batches of ``nodes`` nodes alone.
        nodes: N of these batches.

    Returns:
        alpha (N, 1), all 1; ``set_data`` changes it without a compilation.

    Raises:
        ValueError: the network has no table of elements.
    """
    tables = [cell for _, cell in model.cells_and_names() if isinstance(cell, TABLES)]
    if not tables:
        raise ValueError("expected a network with a table of elements, found none")
    alpha = Parameter(Tensor(np.ones((nodes, 1)), tables[0].table.dtype), name="alpha")
    for table in tables:
        table.scale = alpha
    return alpha

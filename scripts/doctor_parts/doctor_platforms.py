"""On which platforms an operator runs, by MindSpore's own documentation: the docstrings of primitives and functions.

A primitive's docstring declares its platforms, or refers to a function whose docstring does.  The gradient of an
operator has no page of its own as a rule: it is declared where the operator is.
"""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("doctor_platforms.py is a part of doctor.py: see python scripts/doctor.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

import re
from typing import NamedTuple

from mindspore import ops
from mindspore.ops import auto_generate, operations
from mindspore.ops.operations import _grad_ops, _inner_ops

TARGETS = ("Ascend", "GPU")
PRIMITIVES = (operations, auto_generate, _inner_ops, _grad_ops)
SECTION = re.compile(r"Supported Platforms:\s*\n\s*(``.*)")
REFERENCE = re.compile(r"Refer to :func:`mindspore\.ops\.(\w+)`")
GRADIENT, VARIANTS = "Grad", ("Ext", "V2", "V3")


class Declared(NamedTuple):
    """The platforms that documentation names; None where there is none.

    Attributes:
        primitive: in the docstring of the operator itself.
        function: in that of the function which uses it.
        source: the page that speaks of the function, for example "ops.sum" or "gradient of Softplus".
    """

    primitive: frozenset[str] | None
    function: frozenset[str] | None
    source: str

    def for_targets(self) -> bool:
        """Whether something declares the operator for Ascend and GPU, and nothing contradicts."""
        pages = [page for page in (self.primitive, self.function) if page is not None]
        return bool(pages) and all(page.issuperset(TARGETS) for page in pages)


def declared(name: str) -> Declared:
    """What MindSpore documents about an operator of a graph."""
    primitive = next((found for module in PRIMITIVES if (found := getattr(module, name, None)) is not None), None)
    own = platforms_of(primitive)
    for function in functions_of(name, primitive):
        page = platforms_of(getattr(ops, function, None))
        if page is not None:
            return Declared(own, page, f"ops.{function}")
    if own is None and GRADIENT in name:
        return of_gradient(name.partition(GRADIENT)[0])
    return Declared(own, None, "")


def of_gradient(name: str) -> Declared:
    """What is documented about the operator whose gradient this is."""
    spellings = [known for module in PRIMITIVES[:2] for known in dir(module) if known.lower() == name.lower()]
    for known in dict.fromkeys(spellings):
        found = declared(known)
        page = found.function if found.primitive is None else found.primitive
        if page is not None:
            return Declared(None, page, f"gradient of {known}")
    return Declared(None, None, "")


def functions_of(name: str, primitive: object) -> list[str]:
    """Names of the functions that an operator may belong to: that of its reference, and its own in small letters."""
    reference = REFERENCE.search(getattr(primitive, "__doc__", None) or "")
    plain = name
    for variant in VARIANTS:
        plain = plain.removesuffix(variant)
    names = [reference[1]] if reference else []
    return [*names, *(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).lower() for word in (name, plain)), plain.lower()]


def platforms_of(page: object) -> frozenset[str] | None:
    """The platforms that a docstring lists."""
    found = SECTION.search(getattr(page, "__doc__", None) or "")
    return frozenset(re.findall(r"``(\w+)``", found[1])) if found else None

"""models/e3/irreps.py: the notation of irreps, and the places of their components in a feature."""

from __future__ import annotations

import numpy as np
import pytest

from models.e3.irreps import Irrep, Irreps, IrrepsError, MulIrrep

HIDDEN = "128x0e+64x1o+32x2e"


@pytest.mark.parametrize(
    ("text", "name", "dim"),
    [
        (HIDDEN, HIDDEN, 128 + 3 * 64 + 5 * 32),
        (" 8 x 0e + 1o ", "8x0e+1x1o", 11),
        ("2x3y+2y", "2x3o+1x2e", 19),  # the parity of spherical harmonics
        ("0x4e+1x0o", "0x4e+1x0o", 1),
        ("", "", 0),
    ],
)
def test_text(text, name, dim):
    irreps = Irreps(text)
    assert (str(irreps), irreps.dim) == (name, dim)
    assert Irreps(str(irreps)) == irreps == Irreps(list(irreps)) and Irreps(irreps) is irreps
    assert eval(repr(irreps)) == irreps


@pytest.mark.parametrize("text", ["1z", "x0e", "-1x0e", "1o+", "+", "1x1x0e", "1.5x0e", "e", "2x", "0e,1o", "1o 1o"])
def test_what_is_no_text_of_irreps(text):
    with pytest.raises(IrrepsError) as error:
        Irreps(text)
    assert repr(text) in str(error.value) and "expected irreps like" in str(error.value)
    assert "\n" not in str(error.value) and error.value.exit_code == 2


@pytest.mark.parametrize("pairs", [[(-1, "0e")], [(1.0, "0e")], [(True, "0e")], [(1, "2x0e")], [(1, "o")]])
def test_what_are_no_pairs(pairs):
    with pytest.raises(IrrepsError, match="expected a"):
        Irreps(pairs)


def test_places_in_a_feature():
    irreps = Irreps("3x0e+0x5o+2x1o+1x2e")
    places = irreps.slices()
    assert [(place.start, place.stop) for place in places] == [(0, 3), (3, 3), (3, 9), (9, 14)]
    assert np.concatenate([np.arange(irreps.dim)[place] for place in places]).tolist() == list(range(irreps.dim))
    assert (irreps.num_irreps, irreps.lmax, [part.dim for part in irreps]) == (6, 2, [3, 0, 6, 5])


def test_order():
    """By degree, odd before even; the places say which component of the former feature stands where."""
    irreps = Irreps("1x1e+2x0e+3x1o+1x0o+4x0e")
    ordered = irreps.sort()
    assert str(ordered.irreps) == "1x0o+2x0e+4x0e+3x1o+1x1e"
    assert [irreps[place] for place in ordered.former] == list(ordered.irreps)
    assert [ordered.irreps[place] for place in ordered.places] == list(irreps)
    assert str(ordered.irreps.simplify()) == "1x0o+6x0e+3x1o+1x1e"
    assert str(Irreps("2x0e+0x1o+3x0e+1o").simplify()) == "5x0e+1x1o", "nothing stands between the scalars"


def test_sums_and_multiples():
    irreps = Irreps("2x0e") + "1o" + Irreps([(3, Irrep(2, 1))])
    assert str(irreps) == "2x0e+1x1o+3x2e"
    assert str(2 * Irreps("0e+1o")) == str(Irreps("0e+1o") * 2) == "1x0e+1x1o+1x0e+1x1o"
    assert (irreps.count("2e"), irreps.count("2o")) == (3, 0)
    assert "1o" in irreps and "1e" not in irreps and "1o" not in Irreps("0x1o")


def test_filter_and_harmonics():
    assert str(Irreps(HIDDEN).filter("0e+2e")) == "128x0e+32x2e"
    assert str(Irreps(HIDDEN).filter("0x0e+1o")) == "64x1o"
    assert str(Irreps.spherical_harmonics(3)) == "1x0e+1x1o+1x2e+1x3o"
    assert str(Irreps.spherical_harmonics(2, 1)) == "1x0e+1x1e+1x2e"
    with pytest.raises(IrrepsError, match="expected at least one"):
        _ = Irreps("0x3e").lmax


def test_products():
    """Dimensions and parities of both sides agree."""
    for left in (Irrep(degree, p) for degree in range(4) for p in (1, -1)):
        for right in (Irrep(degree, p) for degree in range(4) for p in (1, -1)):
            terms = left.products(right)
            assert sum(term.dim for term in terms) == left.dim * right.dim
            assert {term.p for term in terms} == {left.p * right.p}
    assert [str(term) for term in Irrep.of("1o").products(Irrep.of("2e"))] == ["1o", "2o", "3o"]
    assert Irrep.of("0e").is_scalar and not Irrep.of("0o").is_scalar
    assert MulIrrep(3, Irrep.of("2e")).dim == 15

"""Groups of molecules outside of what models of QM9 have learned: of SMILES, and molecules of QM9 that were moved."""

from __future__ import annotations

if __name__ == "__main__":
    from sys import argv, exit

    print("out_of_range.py is a part of shipped_models.py: see python scripts/benchmarks/shipped_models.py --help")
    exit(0 if {"-h", "--help"} & set(argv) else 2)

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_tools.formats.smiles import make_molecules
from data_tools.formats.smiles_records import records_of_words
from data_tools.graph import Structure, StructureTable
from data_tools.tables import structure_of_row, table_of_structures

#: of molecules like those of QM9, with the geometry that the groups have
LIKE_QM9 = "like QM9, geometry of a force field (control)"
#: of each group the SMILES; those for which RDKit finds no geometry are left out
WORDS = {
    LIKE_QM9: """
        CC1CC(C)(O)C1 CCC(=O)C(C)C CCC1CCCO1 CC(O)C1CCC1 CCCC(=O)OC N#CCCC(C)O CC1CCC(=O)C1 CC(C)CC(C)O OC1CCCCC1
        CC1=CC(=O)OC1 Cc1ccoc1C CCn1ccnc1 Cc1nnc(C)o1 CC(=O)NC(C)C CN1CCCC1=O CC1(C)CC1CO C#CCC(C)CO CCC(C)(C)C#N
        OCC1CCCO1 CCOC(=O)CC NC(=O)C1CCC1 CC1CC1C(C)O CC1OC1(C)C=O OCC1OCCC1=O Cc1cc[nH]c1C CC1CN1C(C)=O CCCCCCCC
        CCCC(O)CC CC(=O)C=C(C)C COCC(C)OC""",
    "fewer than 5 heavy atoms": """
        C N O C#N C=O C#C CC CO C=C CN CC#N CCO COC CCC CC=O NC=O C=C=C CC#C C1CC1 C1CO1 CF CC(C)=O CC(C)C CCCC NC(N)=O
        O=CC=O O=C=O FCF OO NN""",
    "12 to 20 heavy atoms": """
        CCCCCCCCCCCC c1ccccc1-c1ccccc1 c1ccc2cc3ccccc3cc2c1 c1cc2ccc3cccc4ccc(c1)c2c34 c1ccc2c(c1)[nH]c1ccccc12
        Cn1cnc2c1c(=O)n(C)c(=O)n2C Cn1cnc2c1c(=O)[nH]c(=O)n2C CC(C)Cc1ccc(cc1)C(C)C(=O)O CC(=O)Oc1ccccc1C(=O)O
        CN1CCCC1c1cccnc1 CCN(CC)CC(=O)Nc1c(C)cccc1C COc1ccc2cc(ccc2c1)C(C)C(=O)O CC(=O)NCCc1c[nH]c2ccc(OC)cc12
        NC(Cc1c[nH]c2ccccc12)C(=O)O CNCC(O)c1ccc(O)c(O)c1 OCC1OC(O)C(O)C(O)C1O CC(C)C1CCC(C)CC1OC(C)=O
        O=C(c1ccccc1)c1ccccc1 C(=Cc1ccccc1)c1ccccc1 O=C(OCc1ccccc1)c1ccccc1 NCCc1c[nH]c2ccc(O)cc12 CCOc1ccc(cc1)NC(C)=O
        CCCCCCCC(=O)OCC OCCOCCOCCOCCO CC(C)(C)c1ccc(O)c(c1)C(C)(C)C C1CCC(CC1)C1CCCCC1 N#Cc1ccc(cc1)-c1ccncc1
        CC1=CC(=O)CC(C)(C)C1CCC(C)=O""",
    "ions and zwitterions": """
        [NH3+]CC(=O)[O-] C[NH2+]CC(=O)[O-] CC([NH3+])C(=O)[O-] [NH3+]CCC(=O)[O-] C[N+](C)(C)CC(=O)[O-]
        [NH3+]CCCC([O-])=O [O-]C(=O)C1CCC[NH2+]1 CCCC[NH3+] CCCC(=O)[O-] c1cc[nH+]cc1 [O-]c1ccccc1 C[N+](C)(C)C
        CC(C)(C)[O-] CCC(C)[O-] C1CC[NH2+]CC1 C1COCC[NH2+]1 Cc1c[nH+]c[nH]1 CNC(N)=[NH2+] CC(=O)C([O-])=O
        [O-]C(=O)c1ccccc1 C[NH+](C)CCO CC#CC[NH3+] OCC(O)C[NH3+] N#CCC(=O)[O-] CC(C)C[NH3+] OCCC([O-])=O""",
    "radicals": """
        CC[CH]CC C[C](C)C [CH2]CCCC [CH2]c1ccccc1 CCCC[O] C1CC[CH]C1 C=C[CH]C=C CC(C)(C)[O] [CH2]C1CC1 C[C]1CCCC1
        CCC[NH] CC(C)[CH]O [O]c1ccccc1 CN(C)C[CH2] CC(=O)C[CH2] OCC[CH]C C#CC[CH2] C1C[CH]CCO1 CCOC[CH2] N#CC[CH]C""",
    "strained rings and cages": """
        C12C3C1C23 C12C3C4C1C5C2C3C45 C1C23CC12C3 C1C2CC12 C1CC12CC2 C1CCC#CC1 C1CCC#CCC1 C1C=C1 CC1=CC1 C1=CC=C1
        C1CC2=C1CC2 C1C2C3C1C23 C1C2C3C2C4C3C14 C1CC2(C1)CC2 C12CC1C2 CC12CC1C2 OC12CC1C2 N#CC12CC(C1)C2 C1C2CC1C2
        O1C2CC12        C1OC11CO1 C1=C2CC2=C1 C1CC11CC12CC2 C12C3C1N23 C1C2C1O2 C1N2CC12 O=C1C=C1 C1CC=C=CCC1""",
    "many atoms of fluorine": """
        FC(F)(F)F FC(F)(F)C(F)(F)F Fc1c(F)c(F)c(F)c(F)c1F FC(F)=C(F)F OC(=O)C(F)(F)F FC(F)(F)C#N CC(F)(F)F FCC(F)F
        FC(F)(F)OC(F)(F)F FC(F)(F)CO FC1(F)C(F)(F)C1(F)F FC(F)C(F)F FC#CF FC(F)(F)C(F)(F)C(F)(F)F FC(F)(F)C=O
        FC(F)(F)N(C(F)(F)F)C(F)(F)F Fc1cc(F)cc(F)c1 FC(F)(F)C=C Fc1c(F)c(F)nc(F)c1F CC(=O)C(F)(F)F""",
}
COUNT = 100  # of the molecules that are moved
SOURCE = Path("out_of_range")


def groups(table: StructureTable, rows: np.ndarray) -> dict[str, StructureTable]:
    """The groups; those that are made of molecules of a data set come last.

    Args:
        table: of that data set, molecules.
        rows: (K,) of it, which the models have not seen.
    """
    found = {}
    for name, words in WORDS.items():
        made = make_molecules(SOURCE, records_of_words(words.split()), name).table
        assert made is not None, name
        found[name] = made
    generator = np.random.default_rng(0)
    chosen = rows[np.linspace(0, len(rows) - 1, min(COUNT, len(rows))).astype(int)]
    molecules = [structure_of_row(table, row) for row in chosen.tolist()]

    def noise(size: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda positions: positions + size * generator.normal(size=positions.shape)

    for name, move in {
        "test molecules, atoms moved by 0.1 A": noise(0.1),
        "test molecules, atoms moved by 0.3 A": noise(0.3),
        "test molecules, compressed to 0.85": lambda positions: 0.85 * positions,
        "test molecules, stretched to 1.2": lambda positions: 1.2 * positions,
    }.items():
        moved = [Structure(one.numbers, move(one.positions), None, str(k)) for k, one in enumerate(molecules)]
        found[name] = table_of_structures(SOURCE, moved, name)
    small = sorted((structure_of_row(table, row) for row in rows.tolist()), key=lambda one: len(one.numbers))[
        : 2 * COUNT
    ]
    pairs = [_beside(small[k], small[k + 1], str(k)) for k in range(0, len(small) - 1, 2)]
    found["two test molecules, 2 A apart"] = table_of_structures(SOURCE, pairs, "pairs")
    return found


def _beside(first: Structure, second: Structure, name: str, gap: float = 2.0) -> Structure:
    """Two molecules along x whose nearest atoms are ``gap`` Angstrom apart."""
    positions, places, along = first.positions, second.positions, np.array([1.0, 0.0, 0.0])
    offset = places - places.mean(axis=0) + positions.mean(axis=0)
    low, high = 0.0, 50.0
    for _ in range(50):
        middle = (low + high) / 2
        nearest = np.linalg.norm(positions[:, None] - offset - middle * along, axis=-1).min()
        low, high = (middle, high) if nearest < gap else (low, middle)
    numbers = np.concatenate([first.numbers, second.numbers])
    return Structure(numbers, np.concatenate([positions, offset + high * along]), None, name)

"""Functions that are equivariant under rotations and inversions of space, with the conventions of e3nn."""

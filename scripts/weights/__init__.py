"""Weights of other programs: one module an origin, and the comparison with parity files."""

"""Structures to padded batches: neighbours, triplets, packed files, static shapes."""

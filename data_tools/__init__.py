"""Structures, targets and padded graph batches in NumPy; no MindSpore import anywhere in this room."""

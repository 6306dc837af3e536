"""Structures, targets and padded graph batches in NumPy; no import of MindSpore."""

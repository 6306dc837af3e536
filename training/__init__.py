"""Losses, optimiser, compiled steps, the loop, checkpoints and plots."""

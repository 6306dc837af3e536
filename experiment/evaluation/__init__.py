"""Predictions, baselines, metrics and figures."""

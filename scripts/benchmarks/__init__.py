"""Measurements whose output is committed under results/."""

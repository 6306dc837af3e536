"""The measurements of scripts/ncon_precision.py."""

"""Attention under a plan: backends that carry it out, found by name in `BACKENDS`."""

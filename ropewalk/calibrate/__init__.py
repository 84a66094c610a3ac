"""Calibration: what a method needs to know of one model, found on text and prompts, and kept as a profile."""

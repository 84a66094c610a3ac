"""Benchmarks: ratios in one interleaved run, after the equality test passed in the same run."""

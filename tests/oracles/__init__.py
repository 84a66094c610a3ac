"""Independent oracles, written from the papers' formulas: nothing here may import `ropewalk`, which they check."""

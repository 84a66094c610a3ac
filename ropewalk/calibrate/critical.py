"""Critical pairs: where the rotary pairs begin that training did not turn often enough."""

import numpy as np

from ropewalk.rotary import RotarySpec

# LongRoPE2 looks for its critical pair from the first that turned fewer than ten times on.
WELL_TRAINED = 10


def first_turning_less(spec: RotarySpec, turns: float) -> int:
    """The first pair that turns `turns` times or less in the trained window; the number of pairs where none does.

    With turns = 1 this is LongRoPE2's theoretical critical dimension, ceil((d / 2) log_b(L / 2 pi)), and with 10 its
    d_10, ceil((d / 2) log_b(L / 20 pi)) (arXiv 2502.20082, section 3), here for any table that slows down from pair to
    pair.
    """
    return int(np.searchsorted(spec.wavelengths * turns, spec.pretrained_length, side="left"))


def critical_pair(spec: RotarySpec) -> int:
    """LongRoPE2's theoretical critical dimension."""
    return first_turning_less(spec, 1)


def critical_range(spec: RotarySpec) -> range:
    """Where LongRoPE2 looks for the real critical dimension: its d_10 up to the theoretical one, both included.

    The real one is lower, because slow pairs are under-trained: 25 of Phi3-mini's 31 and 30 of LLaMA3-8B's 35.
    """
    last = min(critical_pair(spec), spec.pairs - 1)
    return range(min(max(1, first_turning_less(spec, WELL_TRAINED)), last), last + 1)

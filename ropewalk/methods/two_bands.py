"""What the methods with a window share: exact distances inside it, given maps beyond it."""

from ropewalk.methods.base import Choice
from ropewalk.plan import Band, PositionMap, Region
from ropewalk.rotary import RotarySpec

USED = 2 / 3  # share of the trained window that compressed distances may fill (the authors: 1/2 to 2/3)


def two_bands(window: int, query: PositionMap, key: PositionMap) -> tuple[Band, ...]:
    """Plain distances below `window` tokens, the given maps from there on."""
    return Band(Region(0, window)), Band(Region(window), query, key)


def compression(spec: RotarySpec, target_length: int, window: int) -> float:
    """Divisor that brings the farthest distance of the target to two thirds of the trained window, at least 1."""
    room = max(1.0, USED * spec.pretrained_length - window)
    return max(1.0, (target_length - window) / room) if target_length > spec.pretrained_length else 1.0


def local_window(spec: RotarySpec, target_length: int) -> Choice:
    """The window in which distances stay exact: an eighth of the trained window, at most 1,024 tokens.

    1,024 is what the authors of DPE release for models trained on 8k to 128k.
    """
    window = max(1, min(1024, spec.pretrained_length // 8, target_length))
    return window, "an eighth of the trained window, at most 1024"

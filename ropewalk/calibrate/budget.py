"""What a calibration may read: tokens, or minutes that are turned into tokens once."""

import re
from dataclasses import dataclass

from ropewalk.errors import EvaluationError, RopewalkError
from ropewalk.lengths import parse_length

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
# Of the time that is given; the rest is for attaching methods, writing and a machine that slows down.
USED = 0.9


@dataclass(frozen=True)
class Budget:
    """Either tokens or seconds."""

    tokens: int | None = None
    seconds: float | None = None

    def readings(self, length: int, *, seconds: float, spent: float, used: int) -> int:
        """Documents of `length` tokens that it holds, one that was read to time it included.

        Args:
            seconds: that one reading took.
            spent: seconds since the start.
            used: tokens that were read before, for other ends.
        """
        if self.tokens is not None:
            return max(0, self.tokens - used) // length
        assert self.seconds is not None
        return 1 + max(0, int(USED * (self.seconds - spent) / seconds))


def parse_budget(text: str) -> Budget:
    """A budget such as 20min, 2h, 90s, or in tokens 500000, 512k, 2m.

    Raises:
        EvaluationError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip().lower())
    if match and float(match[1]) > 0:
        return Budget(seconds=float(match[1]) * _SECONDS[match[2]])
    try:
        return Budget(tokens=parse_length(text))
    except RopewalkError:
        raise EvaluationError(f"{text!r} is no budget; give minutes (20min, 2h) or tokens (512k, 2m)") from None

"""Lengths in tokens, as people write them: 4096, 4k (4,096), 1m (1,048,576)."""

import re

from ropewalk.errors import RopewalkError

UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_length(text: str, error: type[RopewalkError] = RopewalkError) -> int:
    """Tokens named by `text`; raises `error` for anything but a positive whole number of tokens, k or m."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", text.strip().lower().replace("_", "").replace(",", ""))
    tokens = float(match[1]) * UNITS[match[2]] if match else 0.0
    if tokens < 1 or tokens != int(tokens):
        raise error(f"{text!r} is not a length; write a whole number of tokens such as 4096, 4k or 1m")
    return int(tokens)


def format_length(tokens: int) -> str:
    """The shortest exact spelling: 4096 -> 4k, 5000 -> 5000."""
    for unit in ("m", "k"):
        if tokens >= UNITS[unit] and tokens % UNITS[unit] == 0:
            return f"{tokens // UNITS[unit]}{unit}"
    return str(tokens)

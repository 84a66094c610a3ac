"""What calibration turns: one axis for every group of rotary pairs, and for the window and the gain when asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ropewalk.errors import EvaluationError
from ropewalk.methods.base import extension_factor
from ropewalk.methods.grammar import format_value
from ropewalk.methods.two_bands import local_window
from ropewalk.rotary import RotarySpec

SHORTEST = 1024  # tokens, the shortest effective length that the authors try
FAST = 1 / 6  # wavelength / trained window up to which `dpe` without a profile leaves pairs alone
LARGEST = 8.0  # a default grid goes this far even where twice the baseline is less: inside the window it is 4
# Borders of groups, wavelength / trained window, from fine to coarse. Pairs below FAST are those that `dpe` leaves
# alone by itself, so that its rule is one of the settings. On SmolLM2 they did not care or wanted scale 1, those from
# 0.24 on wanted to be scaled, and each factor of four above the window something of its own (docs/calibration.md).
BORDERS: tuple[tuple[float, ...], ...] = (
    (1 / 24, FAST, 1.0, 4.0, 16.0),
    (FAST, 1.0, 4.0, 16.0),
    (FAST, 1.0, 4.0),
    (FAST, 4.0),
    (FAST,),
)
SEARCHABLE = ("window", "logit_scale")

Setting = tuple[float, ...]  # a value for every axis


@dataclass(frozen=True)
class Axis:
    """One thing that is varied while all others stay at their base.

    Attributes:
        field: of the method: "scales", "window" or "logit_scale".
        label: for people.
        values: candidates, those that are preferred among equals first.
        base: the value that it has while others are varied; one of `values`, or not (the authors' grid).
        pairs: first and last + 1 of the rotary pairs of a group, or None.
    """

    field: str
    label: str
    values: tuple[float, ...]
    base: float
    pairs: tuple[int, int] | None = None


def base_setting(axes: Sequence[Axis]) -> Setting:
    """Every axis at its base: the uniform profile."""
    return tuple(axis.base for axis in axes)


def varied(axes: Sequence[Axis], index: int, value: float) -> Setting:
    """The base with one axis at another value."""
    return tuple(value if at == index else axis.base for at, axis in enumerate(axes))


def groups_by_count(spec: RotarySpec, count: int) -> list[tuple[int, int]]:
    """`count` groups of equally many neighbouring pairs, as published (8 of 8).

    Raises:
        EvaluationError: a number that does not divide the pairs.
    """
    if count < 1 or spec.pairs % count:
        raise EvaluationError(f"{spec.pairs} rotary pairs do not make {count} equal groups; give a divisor")
    size = spec.pairs // count
    return [(first, first + size) for first in range(0, spec.pairs, size)]


def groups_by_wavelength(spec: RotarySpec, borders: Sequence[float]) -> list[tuple[int, int]]:
    """Neighbouring pairs whose wavelengths lie between the same borders; empty groups are left out.

    Args:
        borders: wavelength / trained window, ascending; a wavelength on a border belongs below it.

    Raises:
        EvaluationError: borders that do not ascend.
    """
    if not borders or any(a >= b for a, b in pairwise([0.0, *borders])):
        raise EvaluationError(f"borders {list(borders)} do not ascend from above 0; give such as 1/4,1,4,16")
    place = np.searchsorted(np.array(borders), spec.wavelengths / spec.pretrained_length)
    cuts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), spec.pairs]
    return list(pairwise(cuts))


def baseline(spec: RotarySpec, target_length: int) -> float:
    """The scale of the groups that are not varied, 2 x target / trained, as published."""
    return 2 * extension_factor(spec, target_length)


def plain_rule(axes: Sequence[Axis], spec: RotarySpec, target_length: int) -> Setting | None:
    """What `dpe` does without a profile for a target beyond the trained window.

    None where a group holds pairs that the rule treats apart.
    """
    slow = baseline(spec, target_length)
    fast = spec.wavelengths <= FAST * spec.pretrained_length
    setting = []
    for axis in axes:
        if axis.pairs is None:
            setting.append(axis.base)
        elif len(told := set(np.where(fast[slice(*axis.pairs)], 1.0, slow).tolist())) == 1:
            setting.append(told.pop())
        else:
            return None
    return tuple(setting)


def doublings(last: float) -> tuple[float, ...]:
    """1, 2, 4, ... up to `last`."""
    return tuple(2.0**power for power in range(int(math.log2(last)) + 1))


def scale_axes(
    spec: RotarySpec, target_length: int, groups: Sequence[tuple[int, int]], values: tuple[float, ...]
) -> tuple[Axis, ...]:
    """An axis for each group; smaller scales, which change the model less, are preferred."""
    base = baseline(spec, target_length)
    return tuple(Axis("scales", _label(spec, first, last), values, base, (first, last)) for first, last in groups)


def default_values(spec: RotarySpec, target_length: int) -> tuple[float, ...]:
    """Doubling from 1 to twice the baseline, at least to LARGEST, and the baseline."""
    base = baseline(spec, target_length)
    return tuple(sorted({*doublings(max(2 * base, LARGEST)), base}))


def paper_values(target_length: int) -> tuple[float, ...]:
    """target / l for the effective lengths l = target, target / 2, ... down to 1,024 tokens, as published."""
    return doublings(max(1.0, target_length / SHORTEST))


def extra_axes(spec: RotarySpec, target_length: int, names: Sequence[str]) -> tuple[Axis, ...]:
    """Axes for the window (its default, half and twice of it) and the gain (none, and YaRN's for the factor).

    Raises:
        EvaluationError: a name that cannot be searched.
    """
    axes = []
    for name in names:
        if name == "window":
            window, _ = local_window(spec, target_length)
            values = {window, window // 2, min(2 * window, spec.pretrained_length, target_length)} - {0}
            order = sorted(values, key=lambda value: abs(value - window))
            axes.append(Axis("window", "window", tuple(map(float, order)), float(window)))
        elif name == "logit_scale":
            gain = (0.1 * math.log(max(2.0, extension_factor(spec, target_length))) + 1) ** 2
            axes.append(Axis("logit_scale", "logit scale", (1.0, round(gain, 4)), 1.0))
        else:
            raise EvaluationError(f"{name!r} cannot be searched; give one of {', '.join(SEARCHABLE)}")
    return tuple(axes)


def method_fields(axes: Sequence[Axis], setting: Setting, spec: RotarySpec) -> dict[str, object]:
    """The fields of `dpe` that a setting stands for: its scales in the fewest equal groups, window and gain."""
    scales = [1.0] * spec.pairs
    fields: dict[str, object] = {}
    for axis, value in zip(axes, setting, strict=True):
        if axis.pairs is not None:
            scales[slice(*axis.pairs)] = [value] * (axis.pairs[1] - axis.pairs[0])
        else:
            fields[axis.field] = int(value) if axis.field == "window" else value
    return {"scales": _fewest(scales)} | fields


def describe(axes: Sequence[Axis], setting: Setting) -> str:
    """A setting in words: what differs from the base, or "uniform"."""
    told = [
        f"{axis.label} at {format_value(value)}"
        for axis, value in zip(axes, setting, strict=True)
        if value != axis.base
    ]
    return ", ".join(told) or f"uniform at {format_value(axes[0].base)}"


def _fewest(scales: list[float]) -> tuple[float, ...]:
    count = len(scales)
    for groups in range(1, count + 1):
        size = count // groups
        if count % groups == 0 and all(len(set(scales[at : at + size])) == 1 for at in range(0, count, size)):
            return tuple(scales[::size])
    raise AssertionError("as many groups as pairs always fit")


def _label(spec: RotarySpec, first: int, last: int) -> str:
    shortest, longest = spec.wavelengths[first], spec.wavelengths[last - 1]
    where = f"pair {first}" if last == first + 1 else f"pairs {first}-{last - 1}"
    return f"{where} (wavelengths {shortest:,.0f}-{longest:,.0f})"

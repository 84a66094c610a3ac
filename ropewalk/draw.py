"""A plan as text or as a figure: the relative-position matrix that every paper of this field prints, pair by pair.

What is drawn is the equivalent distance p_i(m, n) * theta'_i / theta_i: the distance at which the untouched model sees,
in pair i, the angle that the plan makes of query position m and key position n. Bands change p_i and tables change
theta'_i, so both kinds of method can be read in one unit: inside the trained window means seen in training.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ropewalk.grid import Grid
from ropewalk.plan import Plan, PositionMap, Region
from ropewalk.rotary import RotarySpec

ROWS, COLUMNS = 24, 48  # a terminal cell is about twice as high as wide
PIXELS = 256  # per side of a heat map


def middle_and_ends(spec: RotarySpec) -> tuple[int, ...]:
    """The fastest, the middle and the slowest rotary pair of a model."""
    return tuple(sorted({0, spec.pairs // 2, spec.pairs - 1}))


def equivalent_distance(
    plan: Plan, spec: RotarySpec, query_positions: Tensor, key_positions: Tensor, *, pair: int, layer: int = 0
) -> Tensor:
    """p_i(m, n) * theta'_i / theta_i at chosen positions, for one pair, one layer and its first head.

    A pair that the model itself does not turn (theta_i = 0) has no equivalent distance; p_i is given as it is.

    Args:
        query_positions: m, tokens, [M].
        key_positions: n, tokens, [N].

    Returns:
        float64 [M, N], in tokens; NaN above the diagonal.
    """
    m, n = query_positions[:, None], key_positions[None, :]
    distance = torch.full((len(query_positions), len(key_positions)), torch.nan, dtype=torch.float64)
    for band in plan.bands:
        query, key = band.query(query_positions, layer)[0], band.key(key_positions, layer)[0]
        query, key = (x[:, min(pair, x.shape[1] - 1)] for x in (query, key))
        distance = torch.where(band.region.contains(m, n), query[:, None] - key[None, :], distance)
    own = spec.inv_freq[pair]
    return distance * (plan.table.theta(layer)[pair] / own) if own else distance


def text(plan: Plan, spec: RotarySpec, length: int, *, pair: int | None = None, layer: int = 0) -> str:
    """The relative-position matrix in characters, and a table of the bands.

    Args:
        length: tokens from side to side.
        pair: the rotary pair that is drawn; the slowest one when None.
    """
    pair = spec.pairs - 1 if pair is None else pair
    window = spec.pretrained_length
    rows = (torch.arange(1, ROWS + 1) * length // ROWS - 1).clamp(min=0)
    columns = torch.arange(COLUMNS) * length // COLUMNS
    matrix = equivalent_distance(plan, spec, rows, columns, pair=pair, layer=layer)
    lines = [
        f"pair {pair} of {spec.pairs} (wavelength {spec.wavelengths[pair]:,.0f} tokens), layer {layer}: query from top,"
        f" key from left, {length:,} tokens each",
        *(f"{m:>10,} {''.join(_symbol(value, window) for value in row)}" for m, row in zip(rows, matrix, strict=True)),
        f"0-9: equivalent distance in tenths of the trained window ({window:,} tokens)   #: beyond it   -: negative",
        "",
        *_table(plan, spec, length, layer),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _symbol(distance: Tensor, window: int) -> str:
    value = distance.item()
    if np.isnan(value):
        return " "
    if value < 0:
        return "-"
    return "#" if value >= window else str(int(10 * value / window))


def _table(plan: Plan, spec: RotarySpec, length: int, layer: int) -> list[str]:
    """One row per band: where it holds, its maps, and the largest equivalent distance that the last query sees."""
    pairs = middle_and_ends(spec)
    keys = torch.arange(length)
    queries = torch.tensor([0, length - 1] if plan.bidirectional else [length - 1])
    seen = {p: equivalent_distance(plan, spec, queries, keys, pair=p, layer=layer).abs() for p in pairs}
    rows = [("region", "query position", "key position", *(f"pair {p}" for p in pairs))]
    legend: dict[str, str] = {}
    for number, band in enumerate(plan.bands, start=1):
        inside = band.region.contains(queries[:, None], keys)
        furthest = (f"{seen[p][inside].max():,.0f}" if inside.any() else "not met" for p in pairs)
        query = _formula(band.query, "m", f"{number}", layer, legend)
        key = _formula(band.key, "n", f"{number}", layer, legend)
        rows.append((_condition(band.region), query, key, *furthest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    end = "first or last" if plan.bidirectional else "last"
    lines.append(f"the last columns: largest equivalent distance that the {end} query sees in the band, tokens")
    lines += [f"{name}: {values}" for name, values in legend.items()]
    gain = plan.table.attention_scaling**2 * plan.logit_scale
    if gain != 1:
        lines.append(f"logits of rotated dimensions times {gain:.4f}")
    if plan.log_n is not None:
        lines.append(f"queries times max(1, ln({'N' if plan.bidirectional else 'm + 1'}) / ln {plan.log_n:,})")
    if any(grid.array.shape[1] > 1 for grid in _grids(plan)):
        lines.append("query heads differ; head 0 is drawn")
    return lines


def _grids(plan: Plan) -> list[Grid]:
    return [grid for band in plan.bands for one in (band.query, band.key) for grid in (one.scale, one.offset)]


def _condition(region: Region) -> str:
    chunk = "" if region.chunk == 1 else f"//{region.chunk}"
    first, second = "nm" if region.side == "future" else "mn"
    what = f"{first}{chunk} - {second}{chunk}"
    what = f"|{what}|" if region.side == "both" else what
    if region.hi is None and not region.lo:
        return {"past": "all m >= n", "future": "all n > m", "both": "all m and n"}[region.side]
    if region.hi is None:
        return f"{what} >= {region.lo:,}"
    return f"{what} < {region.hi:,}" if region.lo == 0 else f"{region.lo:,} <= {what} < {region.hi:,}"


def _formula(one: PositionMap, letter: str, band: str, layer: int, legend: dict[str, str]) -> str:
    """The map in symbols; numbers that differ between pairs get a name, and their values go into `legend`."""
    scale, offset = one.scale.layer(layer)[0], one.offset.layer(layer)[0]
    inner = letter if one.modulus is None else f"({letter} mod {one.modulus:,})"
    if np.isinf(scale).all():
        inner = ""
    elif (scale != 1).any():
        inner += f"/{_number(scale, f's{band}', legend)}"
        inner = f"floor({inner})" if one.floor else inner
    shift = _number(offset, f"o{band}{letter}", legend) if (offset != 0).any() or not inner else ""
    result = f"{inner} + {shift}" if inner and shift else inner or shift
    result = result.replace("+ -", "- ") if one.cap is None else f"min({result}, {one.cap:,.0f})"
    if not one.retained:
        return result
    stretch = _number(one.stretch.layer(layer)[0], f"t{band}", legend)
    return f"{letter} < {one.retained:,}: {letter} * {stretch}, else {result}"


def _number(values: np.ndarray, name: str, legend: dict[str, str]) -> str:
    if (values == values[0]).all():
        return f"{values[0]:,.6g}"
    runs, start = [], 0
    for value, run in groupby(values.tolist()):
        stop = start + len(list(run))
        runs.append(f"{value:,.6g} (pair {start})" if stop == start + 1 else f"{value:,.6g} (pairs {start}-{stop - 1})")
        start = stop
    legend[name] = ", ".join(runs)
    return name


def figure(
    plan: Plan,
    spec: RotarySpec,
    length: int,
    *,
    path: str | Path,
    pairs: Sequence[int] | None = None,
    layer: int = 0,
    title: str = "",
) -> None:
    """Save a picture: the equivalent distance of some pairs as heat maps, and theta of every pair before and after.

    The trained window is the colour limit; distances beyond it are red.

    Args:
        length: tokens from side to side.
        path: file to write; its ending chooses the format (png, pdf, svg).
        pairs: rotary pairs to draw; the fastest, the middle and the slowest when None.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    pairs = middle_and_ends(spec) if pairs is None else tuple(pairs)
    side = min(PIXELS, length)
    positions = (torch.arange(side) + 1) * length // side - 1
    extent = (0, length, length, 0)
    colours = colormaps["viridis"].with_extremes(over="tab:red", under="tab:pink", bad="white")
    canvas = Figure(figsize=(3.4 * (len(pairs) + 1), 3.8), layout="constrained")
    axes = canvas.subplots(1, len(pairs) + 1)
    for axis, pair in zip(axes, pairs, strict=False):
        matrix = equivalent_distance(plan, spec, positions, positions, pair=pair, layer=layer)
        image = axis.imshow(matrix.numpy(), cmap=colours, vmin=0, vmax=spec.pretrained_length, extent=extent)
        axis.set(title=f"pair {pair}, wavelength {spec.wavelengths[pair]:,.0f}", xlabel="key position n")
        axis.ticklabel_format(style="plain")
        axis.locator_params(nbins=4)
    axes[0].set_ylabel("query position m")
    label = "equivalent distance, tokens (red: beyond the trained window)"
    canvas.colorbar(image, ax=axes[: len(pairs)], extend="max", location="bottom", shrink=0.6, label=label)
    axes[-1].semilogy(spec.inv_freq, label="model")
    axes[-1].semilogy(plan.table.theta(layer).numpy(), "--", label="plan")
    axes[-1].set(title="theta, radians per token", xlabel="rotary pair")
    axes[-1].legend()
    canvas.suptitle(title or f"{length:,} tokens, trained window {spec.pretrained_length:,}, layer {layer}")
    canvas.savefig(path, dpi=120)

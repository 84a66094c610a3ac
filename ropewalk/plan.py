"""Plan: what a method makes of a model, as data.

Attention between query position m and key position n sees, in rotary pair i, the angle theta_i * p_i(m, n). A plan says
what theta_i is (a FrequencyTable) and what p_i is (bands: disjoint regions of the causal triangle, each with a query
map a_i(m) and a key map b_i(n), p_i = a_i(m) - b_i(n)). In an encoder, whose tokens see both sides, the regions cover
the whole square and p_i(m, n) = -p_i(n, m). A plan is frozen, hashable, saved as JSON and drawn as a picture.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.rotary import FrequencyTable

VERSION = 1

Side = Literal["past", "future", "both"]


@dataclass(frozen=True)
class PositionMap:
    """p -> min(f((p mod modulus) / scale) + offset, cap), with f the floor or the identity; retained: p -> p * stretch.

    Attributes:
        scale: tokens that share one position, >= 1 or infinity (then the map is the constant `offset`); a Grid.
        offset: positions; a Grid.
        floor: take the floor of the quotient.
        modulus: positions start anew every so many tokens, or None.
        cap: largest position, or None.
        retained: tokens at the start of a text that have positions of their own, p * stretch.
        stretch: positions in a token for these; a Grid that layers and heads share.
    """

    scale: Grid = field(default_factory=lambda: Grid(1.0))
    offset: Grid = field(default_factory=lambda: Grid(0.0))
    floor: bool = False
    modulus: int | None = None
    cap: float | None = None
    retained: int = 0
    stretch: Grid = field(default_factory=lambda: Grid(1.0))

    def __post_init__(self) -> None:
        for name in ("scale", "offset", "stretch"):
            object.__setattr__(self, name, Grid.of(getattr(self, name)))
        if self.retained < 0 or self.stretch.array.shape[:2] != (1, 1):
            raise MethodError(
                f"retained tokens are 0 or more, and one stretch serves all layers and heads; got {self.retained} and "
                f"a stretch of shape {self.stretch.array.shape}"
            )

    def __call__(self, positions: Tensor, layer: int = 0) -> Tensor:
        """Map token positions [N] to float64 [heads or 1, N, pairs or 1] for one layer."""
        scale = torch.tensor(self.scale.layer(layer), device=positions.device)[:, None, :]
        offset = torch.tensor(self.offset.layer(layer), device=positions.device)[:, None, :]
        p = positions.double()[None, :, None]
        if self.modulus is not None:
            p = torch.remainder(p, self.modulus)
        p = p / scale
        if self.floor:
            p = p.floor()
        p = p + offset
        p = p if self.cap is None else p.clamp(max=self.cap)
        if not self.retained:
            return p
        plain = positions.double()[None, :, None]
        stretch = torch.tensor(self.stretch.layer(layer), device=positions.device)[:, None, :]
        return torch.where(plain < self.retained, plain * stretch, p)

    @property
    def identity(self) -> bool:
        """True when every position maps to itself."""
        plain = self.scale.equals(1) and self.offset.equals(0) and self.modulus is None and self.cap is None
        return plain and (not self.retained or self.stretch.equals(1))

    @property
    def per_layer(self) -> bool:
        """True when layers differ."""
        return max(self.scale.array.shape[0], self.offset.array.shape[0]) > 1

    @property
    def per_head(self) -> bool:
        """True when query heads differ, so that grouped keys cannot be shared."""
        return max(self.scale.array.shape[1], self.offset.array.shape[1]) > 1

    def to_json(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        value = {
            "scale": self.scale.to_json(arrays),
            "offset": self.offset.to_json(arrays),
            "floor": self.floor,
            "modulus": self.modulus,
            "cap": self.cap,
        }
        # Only where there are any: hashes of plans stand in stored rows.
        kept = {"retained": self.retained, "stretch": self.stretch.to_json(arrays)} if self.retained else {}
        return value | kept

    @classmethod
    def from_json(cls, value: dict[str, Any], arrays: dict[str, np.ndarray]) -> "PositionMap":
        scale, offset, *stretch = (
            Grid.from_json(value[name], arrays) for name in ("scale", "offset", "stretch") if name in value
        )
        plain = cls(scale, offset, value["floor"], value["modulus"], value["cap"])
        return replace(plain, retained=value["retained"], stretch=stretch[0]) if stretch else plain


@dataclass(frozen=True)
class Region:
    """The pairs (m, n) with n <= m and lo <= floor(m / chunk) - floor(n / chunk) < hi.

    chunk = 1 makes it a band of distances in tokens; hi = None means no upper bound. side = "future" has the pairs with
    n > m whose mirror image (n, m) is such a pair, "both" has these and those.
    """

    lo: int = 0
    hi: int | None = None
    chunk: int = 1
    side: Side = "past"

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.lo < 0 or (self.hi is not None and self.hi <= self.lo):
            raise MethodError(f"an empty region: wanted 0 <= lo < hi and chunk >= 1, got {self}")
        if self.side not in get_args(Side):
            raise MethodError(f"a region has side {', '.join(get_args(Side))}; got {self.side!r}")

    @property
    def sides(self) -> "tuple[Region, ...]":
        """The one-sided regions that it is made of."""
        return (replace(self, side="past"), replace(self, side="future")) if self.side == "both" else (self,)

    def contains(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Bool tensor over the broadcast of both position tensors."""
        difference = query_positions // self.chunk - key_positions // self.chunk
        if self.side == "past":
            inside = (difference >= self.lo) & (key_positions <= query_positions)
        elif self.side == "future":
            difference = -difference
            inside = (difference >= self.lo) & (key_positions > query_positions)
        else:
            difference = difference.abs()
            inside = difference >= self.lo
        return inside if self.hi is None else inside & (difference < self.hi)


@dataclass(frozen=True)
class Band:
    """A region with the position maps that hold in it."""

    region: Region = Region()
    query: PositionMap = PositionMap()
    key: PositionMap = PositionMap()


@dataclass(frozen=True)
class Plan:
    """Bands + frequency table + what is done to the logits.

    Attributes:
        bands: disjoint and together the whole causal triangle, or the whole square where tokens see both sides.
        table: theta_i and the attention factor.
        logit_scale: multiplies every logit.
        log_n: trained window L in tokens; queries are multiplied by max(1, ln(m + 1) / ln L), and where tokens see both
            sides by max(1, ln N / ln L), N the length of the text (arXiv 2404.12096). None: no log-n scale.
    """

    bands: tuple[Band, ...]
    table: FrequencyTable
    logit_scale: float = 1.0
    log_n: int | None = None

    @property
    def takes_attention(self) -> bool:
        """True when replacing the model's frequency table is not enough to carry the plan out."""
        return (
            len(self.bands) > 1
            or not (self.bands[0].query.identity and self.bands[0].key.identity)
            or self.bands[0].region not in (Region(), Region(side="both"))
            or self.logit_scale != 1
            or self.log_n is not None
            or self.table.per_layer
        )

    @property
    def bidirectional(self) -> bool:
        """True when tokens see later ones."""
        return any(band.region.side != "past" for band in self.bands)

    def mirrored(self) -> "Plan":
        """This causal plan for tokens that see both sides, with p_i(m, n) = -p_i(n, m).

        Beyond the diagonal p_i(m, n) = b_i(m) - a_i(n): every band gets a twin on the other side whose query map is its
        key map and whose key map is its query map. A band with one map for both is its own twin.
        """
        assert not self.bidirectional
        bands: list[Band] = []
        for band in self.bands:
            if band.query == band.key:
                bands.append(replace(band, region=replace(band.region, side="both")))
            else:
                bands += [band, Band(replace(band.region, side="future"), band.key, band.query)]
        return replace(self, bands=tuple(bands))

    def query_scale(self, query_positions: Tensor) -> Tensor | None:
        """The log-n factor of each query, float64 in the shape of `query_positions` [T], or None.

        Where tokens see both sides, the last position is taken for the last one of the text.
        """
        if self.log_n is None:
            return None
        reach = query_positions[-1:].expand_as(query_positions) if self.bidirectional else query_positions
        logs = (reach.double().clamp(min=0) + 1).log() / float(np.log(self.log_n))
        return logs.clamp(min=1)

    def coverage(self, length: int) -> Tensor:
        """How many bands contain each (m, n), int64 [length, length]: 1 wherever n <= m or tokens see both sides."""
        m, n = torch.arange(length)[:, None], torch.arange(length)[None, :]
        return torch.stack([band.region.contains(m, n) for band in self.bands]).sum(0)

    def effective_distance(self, length: int, layer: int = 0) -> Tensor:
        """p_i(m, n) in positions, float64 [heads or 1, length, length, pairs or 1], zero where m does not see n.

        Dense, for tests and drawing: length^2 * heads * pairs numbers.
        """
        positions = torch.arange(length)
        total = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        for band in self.bands:
            inside = band.region.contains(positions[:, None], positions[None, :])[None, :, :, None]
            distance = band.query(positions, layer)[:, :, None, :] - band.key(positions, layer)[:, None, :, :]
            total = total + torch.where(inside, distance, 0.0)
        return total

    def to_json(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """JSON-ready form; grids of more than 4,096 numbers are put into `arrays` and referred to by hash."""
        bands = [
            {
                # A causal region without its side, as before there were others: hashes of plans stand in stored rows.
                "region": {k: v for k, v in vars(band.region).items() if (k, v) != ("side", "past")},
                "query": band.query.to_json(arrays),
                "key": band.key.to_json(arrays),
            }
            for band in self.bands
        ]
        return {
            "version": VERSION,
            "bands": bands,
            "table": self.table.to_json(arrays),
            "logit_scale": self.logit_scale,
            "log_n": self.log_n,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Plan":
        """Undo `to_json`; raises ProfileError when the version is unknown, a field is missing or an array differs."""
        if not isinstance(value, dict) or value.get("version") != VERSION:
            raise ProfileError(f"this is not a plan of version {VERSION}; save it again with this version of ropewalk")
        try:
            bands = tuple(
                Band(
                    Region(**band["region"]),
                    PositionMap.from_json(band["query"], arrays),
                    PositionMap.from_json(band["key"], arrays),
                )
                for band in value["bands"]
            )
            table = FrequencyTable.from_json(value["table"], arrays)
            return cls(bands, table, value["logit_scale"], value["log_n"])
        except (KeyError, TypeError, ValueError, MethodError) as error:
            raise ProfileError(f"the plan is malformed ({error!r}); save it again") from error

    def save(self, path: str | Path) -> None:
        """Write JSON to `path`, and large arrays to a safetensors file of the same name beside it."""
        path = Path(path)
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(self.to_json(arrays), indent=1)
        if arrays:
            safetensors.numpy.save_file(arrays, path.with_suffix(".safetensors"))
        path.write_text(text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """Read what `save` wrote; raises ProfileError for a missing, malformed or altered file."""
        path = Path(path)
        beside = path.with_suffix(".safetensors")
        try:
            value = json.loads(path.read_text())
            arrays = safetensors.numpy.load_file(beside) if beside.exists() else {}
        except (OSError, ValueError, SafetensorError) as error:
            raise ProfileError(f"cannot read the plan {str(path)!r}: {error}") from error
        return cls.from_json(value, arrays)

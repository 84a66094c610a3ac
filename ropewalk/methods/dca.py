"""Dual Chunk Attention: positions start anew in every chunk."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, require
from ropewalk.plan import Band, PositionMap, Region
from ropewalk.rotary import RotarySpec


@METHODS.register("dca")
@dataclass(frozen=True, kw_only=True)
class DualChunkAttention(PositionMethod):
    """Dual Chunk Attention: positions start anew in every chunk, queries see older chunks from a capped position.

    With D = floor(m / s) - floor(n / s) and keys at n mod s, the query stands at m mod s (D = 0), min(m mod s + s, C)
    (D = 1) or C (D >= 2), C = min(s + w, 2s - 1) (arXiv 2402.17463, section 3; the authors' code, without its gain that
    depends on the longest text ever seen). Not invariant to translation.

    Attributes:
        chunk: s, the modulus of key positions, tokens. Left out: 5/8 of the trained window (the authors' 3/4 - 1/8).
        window: w, how far the neighbouring chunk keeps growing distances, tokens. Left out: an eighth of the trained
            window.
    """

    name: ClassVar[str] = "dca"
    paper: ClassVar[str] = "arXiv 2402.17463"
    bibtex = """@inproceedings{an2024dca, title={Training-Free Long-Context Scaling of Large Language Models},
  author={An, Chenxin and Huang, Fei and Zhang, Jun and others}, booktitle={ICML}, year={2024}}"""

    chunk: int | None = None
    window: int | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        trained = spec.pretrained_length
        own: dict[str, Choice] = {
            "chunk": (max(2, trained * 5 // 8), "5/8 of the trained window, as the authors have it"),
            "window": (
                max(1, min(trained // 8, target_length)),
                "an eighth of the trained window, as the authors have it",
            ),
        }
        return super().choose(spec, target_length) | own

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.chunk is not None and self.window is not None
        require(self, "chunk", self.chunk >= 2, "at least 2 tokens")
        require(self, "window", 1 <= self.window <= self.chunk, f"between 1 and the chunk of {self.chunk} tokens")

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.chunk is not None and self.window is not None
        chunk, cap = self.chunk, min(self.chunk + self.window, 2 * self.chunk - 1)
        within = PositionMap(modulus=chunk)
        after = PositionMap(offset=Grid(chunk), modulus=chunk, cap=cap)
        return (
            Band(Region(0, 1, chunk), within, within),
            Band(Region(1, 2, chunk), after, within),
            Band(Region(2, None, chunk), PositionMap(Grid(math.inf), Grid(cap)), within),
        )

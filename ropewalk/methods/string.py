"""STRING: large distances are overwritten by shifted, well-trained smaller ones."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, require
from ropewalk.plan import Band, PositionMap, Region
from ropewalk.rotary import RotarySpec

GAIN = (0.1 * math.log(2) + 1) ** 2  # the authors multiply cos and sin of query and key by 0.1 ln 2 + 1


@METHODS.register("string")
@dataclass(frozen=True, kw_only=True)
class String(PositionMethod):
    """STRING: the rarely trained large distances are overwritten by shifted, well-trained smaller ones.

    p = m - n for m - n < S, else m - n - S + W (arXiv 2410.18745, section 4). Keys are rotated as ever. Two departures
    from the authors' code: distance S is counted once (their prefill counts it twice), and texts shorter than S work.

    Attributes:
        shift: S, tokens. Left out: a third of the target, and at least what keeps every distance in the trained window.
        window: W, smallest distance after the shift, tokens. Left out: 128 (their default), at most a 64th of the
            trained window.
        logit_scale: left out, the authors' constant gain (0.1 ln 2 + 1)^2 = 1.1434.
    """

    name: ClassVar[str] = "string"
    paper: ClassVar[str] = "arXiv 2410.18745"
    bibtex = """@article{an2024string, title={Why Does the Effective Context Length of {LLMs} Fall Short?},
  author={An, Chenxin and Zhang, Jun and Zhong, Ming and others}, journal={arXiv:2410.18745}, year={2024}}"""
    beyond: ClassVar[str] = "join a table to it (string+yarn) or take another method"

    shift: int | None = None
    window: int | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        trained = spec.pretrained_length
        window = self.window or max(1, min(128, trained // 64, target_length))
        shift = max(1, target_length // 3, min(trained, target_length - trained + window))
        own: dict[str, Choice] = {
            "window": (window, "128 as the authors have it, at most a 64th of the trained window"),
            "shift": (shift, "a third of the target, and enough to keep every distance in the trained window"),
            "logit_scale": (GAIN, "the authors' constant gain (0.1 ln 2 + 1)^2"),
        }
        return super().choose(spec, target_length) | own

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.shift is not None and self.window is not None
        require(self, "shift", self.shift >= 1, "at least 1 token")
        require(self, "window", self.window >= 1, "at least 1 token")

    def reach(self, spec: RotarySpec) -> int | None:
        """L + S - W as long as S <= L: from there on the farthest distance leaves the trained window."""
        assert self.shift is not None and self.window is not None
        trained = spec.pretrained_length
        return trained if self.shift > trained else max(trained, trained + self.shift - self.window)

    def share(self, spec: RotarySpec, target_length: int) -> float:
        """At least (N + 2 W) / 2 L, so that the stretched window is one with which STRING reaches the target."""
        window = self.window or max(1, min(128, target_length // 64))  # at most what the stretched window gives
        return max(super().share(spec, target_length), (target_length + 2 * window) / (2 * spec.pretrained_length))

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.shift is not None and self.window is not None
        back = PositionMap(offset=Grid(self.window - self.shift))
        return Band(Region(0, self.shift)), Band(Region(self.shift), back)

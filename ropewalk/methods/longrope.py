"""LongRoPE: one searched factor per pair, for short and for long texts."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, FrequencyMethod, require
from ropewalk.plan import Plan, PositionMap
from ropewalk.profile import find_profile
from ropewalk.rotary import FrequencyTable, RotarySpec


@METHODS.register("longrope")
@dataclass(frozen=True, kw_only=True)
class LongRoPE(FrequencyMethod):
    """longrope: given factors per rotary pair, one set up to the original window and one beyond it.

    theta'_i = theta_i / lambda_i with lambda = short for texts of at most `original` tokens and long beyond
    (arXiv 2402.13753; the form of transformers). Which set holds is fixed per text when it is admitted. The first
    `retain` tokens keep the angles of the model's own frequencies (section 3.2; transformers has no word for it).
    Attention factor sqrt(1 + ln s / ln L).

    Attributes:
        long: one factor per pair for long texts.
        short: one factor per pair for texts within the original window. Left out: all 1.
        original: window up to which the short factors hold, tokens. Left out: the trained window.
        factor: s of the attention factor. Left out: target / original.
        attention_factor: multiplies cos and sin. Left out: the file's, or sqrt(1 + ln s / ln L).
        file: JSON with "long_factor" and, optionally, "short_factor" and "attention_factor", as in a configuration.
        profile: path of a searched profile (`ropewalk calibrate longrope`); what is given beside it wins.
        retain: start tokens that keep their angles. Left out: the profile's, or 0. It takes attention over.
    """

    name: ClassVar[str] = "longrope"
    paper: ClassVar[str] = "arXiv 2402.13753"
    bibtex = """@inproceedings{ding2024longrope,
  title={{LongRoPE}: Extending {LLM} Context Window Beyond 2 Million Tokens},
  author={Ding, Yiran and Zhang, Li Lyna and Zhang, Chengruidong and others}, booktitle={ICML}, year={2024}}"""
    length_dependent: ClassVar[bool] = True

    long: tuple[float, ...] | None = None
    short: tuple[float, ...] | None = None
    original: int | None = None
    factor: float | None = None
    attention_factor: float | None = None
    file: Path | None = None
    profile: Path | None = None
    retain: int | None = field(default=None, metadata={"zero": True})

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        original = self.original or spec.pretrained_length
        own: dict[str, Choice] = {
            "original": (original, "the trained window"),
            "short": ((1.0,) * spec.pairs, "the model's own frequencies"),
            "factor": (max(1.0, target_length / original), "target / original"),
            "retain": (0, "no start token keeps its angles"),
        }
        if self.file is not None:
            own |= self._from_file(self.file)
        if self.profile is not None:
            own |= self._from_profile(self.profile, spec)
        return super().choose(spec, target_length) | own

    @staticmethod
    def _from_file(path: Path) -> dict[str, Choice]:
        try:
            value = json.loads(path.read_text())
            names = {"long": "long_factor", "short": "short_factor"}
            own: dict[str, Choice] = {
                k: (tuple(map(float, value[n])), f"file {path}") for k, n in names.items() if n in value
            }
            if value.get("attention_factor") is not None:
                own["attention_factor"] = (float(value["attention_factor"]), f"file {path}")
            return own
        except OSError as error:
            raise MethodError(f"longrope: cannot read {str(path)!r}: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise MethodError(
                f"longrope: {str(path)!r} is not JSON with lists long_factor and short_factor: {error}"
            ) from error

    @staticmethod
    def _from_profile(path: Path, spec: RotarySpec) -> dict[str, Choice]:
        profile = find_profile(path)
        profile.require(kind="longrope", spec=spec)
        made = profile.target_length
        reason = f"profile {path}" + (f", made for {made} tokens" if made else "")
        try:
            own: dict[str, Choice] = {"long": (tuple(map(float, profile.values["long"])), reason)}
            own |= {
                name: (float(profile.values[name]), reason)
                for name in ("factor", "attention_factor")
                if name in profile.values
            }
            if "retain" in profile.values:
                own["retain"] = (int(profile.values["retain"]), reason)
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"the profile {str(path)!r} lacks numbers of longrope: {error!r}") from error
        return own

    def natural_length(self, spec: RotarySpec) -> int:
        """What the profile was made for; else as for any table."""
        made = None if self.profile is None else find_profile(self.profile).target_length
        return made or super().natural_length(spec)

    def stretch(self, spec: RotarySpec, target_length: int) -> float:
        assert self.factor is not None
        return self.factor

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.short is not None and self.original is not None and self.factor is not None
        if self.long is None:
            raise MethodError(
                f"longrope: give the long factors, one per pair ({spec.pairs}): long=1/1.2/... or file=PATH"
            )
        for name, factors in (("long", self.long), ("short", self.short)):
            if len(factors) != spec.pairs:
                raise MethodError(
                    f"longrope: {len(factors)} {name} factors given, the model has {spec.pairs} rotary pairs"
                )
            require(self, name, all(math.isfinite(f) and f > 0 for f in factors), "a list of numbers above 0")
        require(self, "original", self.original > 1, "at least 2 tokens")
        require(self, "factor", self.factor >= 1, "at least 1")
        assert self.retain is not None
        require(self, "retain", self.retain >= 0, "0 tokens or more")

    def plan(self, spec: RotarySpec, length: int) -> Plan:
        """The table, and for retained tokens the positions that undo it."""
        method, plan = self.resolve(spec, length), super().plan(spec, length)
        if not method.retain:
            return plan
        slowdown = np.array(spec.inv_freq) / plan.table.inv_freq.layer(0)[0]
        to = PositionMap(retained=method.retain, stretch=Grid(slowdown))
        return replace(plan, bands=tuple(replace(band, query=to, key=to) for band in plan.bands))

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        assert (
            self.long is not None and self.short is not None and self.original is not None and self.factor is not None
        )
        factors = np.array(self.short if length <= self.original else self.long)
        scaling = self.attention_factor
        if scaling is None:
            scaling = math.sqrt(1 + math.log(self.factor) / math.log(self.original))
        return FrequencyTable(Grid(np.array(spec.inv_freq) / factors), spec.attention_scaling * scaling)

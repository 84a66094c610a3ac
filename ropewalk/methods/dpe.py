"""DPE: every group of rotary dimensions gets the distances that it can tell apart."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, PositionMethod, extension_factor, require
from ropewalk.methods.two_bands import local_window, two_bands
from ropewalk.plan import Band, PositionMap
from ropewalk.profile import Profile, find_profile, is_shipped, shipped_for
from ropewalk.rotary import RotarySpec


@METHODS.register("dpe")
@dataclass(frozen=True, kw_only=True)
class DPE(PositionMethod):
    """DPE: beyond the window, each group of rotary pairs counts distances in steps of its own scale.

    p_i = m - n for m - n < w, else floor(m / s_i) - floor(n / s_i) + w - floor(w / s_i), with s_i the scale of pair i
    where (layer, head, pair) is a key dimension and 1 elsewhere (arXiv 2504.18857, section 3). The authors' prefill has
    w - w / s_i and their decode w - floor(w / s_i), which disagree where s_i does not divide w; we take the floor in
    both, so that prefill and decode agree.

    Attributes:
        window: w, tokens. Left out: an eighth of the trained window, at most 1,024 (the released value).
        scales: one scale >= 1 per group of neighbouring pairs, fastest first; the number of groups divides the pairs.
            Left out: those of a shipped profile for this model and target; where there is none, 1 for pairs whose
            wavelength is at most a sixth of the trained window, 2 x target / trained for the rest.
        profile: path of a calibrated profile with window, scales and key-dimension mask, or the name of a shipped one
            (`ropewalk profiles`); what is given beside it wins.
        shipped: take a shipped profile for this model and target where there is one and `scales` are left out.
        mask: which (layer, query head, pair) are key dimensions, bool [layers or 1, heads or 1, pairs]; all if None.
    """

    name: ClassVar[str] = "dpe"
    paper: ClassVar[str] = "arXiv 2504.18857"
    bibtex = """@inproceedings{lu2025dpe,
  title={Effective Length Extrapolation via Dimension-Wise Positional Embeddings Manipulation},
  author={Lu, Yi and Zhao, Wanxu and Zhou, Xin and others}, booktitle={COLM}, year={2025}}"""

    window: int | None = None
    scales: tuple[float, ...] | None = None
    profile: Path | None = None
    shipped: bool = True
    mask: Grid | None = field(default=None, metadata={"written": False})

    def __post_init__(self) -> None:
        if self.scales is not None:  # no profile is looked up, whatever was said
            object.__setattr__(self, "shipped", True)

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        window = local_window(spec, target_length)
        fast = spec.wavelengths <= spec.pretrained_length / 6
        factor = extension_factor(spec, target_length)
        slow = 2 * factor if factor > 1 else 1.0
        rule = "1 where the wavelength is at most a sixth of the trained window, 2 x target / trained elsewhere"
        own: dict[str, Choice] = {"window": window, "scales": (tuple(np.where(fast, 1.0, slow).tolist()), rule)}
        if self.profile is not None:
            profile = find_profile(self.profile)
            profile.require(kind="dpe", spec=spec)
            own |= _from_profile(profile, ("shipped " if is_shipped(self.profile) else "") + f"profile {self.profile}")
        elif self.shipped and self.scales is None and (found := shipped_for("dpe", spec, target_length)):
            own |= _from_profile(found[1], f"shipped profile {found[0]}")
        return super().choose(spec, target_length) | own

    def natural_length(self, spec: RotarySpec) -> int:
        """What the profile was made for, given or shipped for this model; else as for any method."""
        made: int | None = None
        if self.profile is not None:
            made = find_profile(self.profile).target_length
        elif self.shipped and self.scales is None and (found := shipped_for("dpe", spec)):
            made = found[1].target_length
        return made or super().natural_length(spec)

    def __str__(self) -> str:
        if self.mask is not None and self.profile is not None:  # the profile brings its mask
            return str(replace(self, mask=None))
        return super().__str__()

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.window is not None and self.scales is not None
        require(self, "window", 1 <= self.window <= spec.pretrained_length, f"between 1 and {spec.pretrained_length}")
        require(self, "scales", all(s >= 1 for s in self.scales), "a list of numbers >= 1")
        if not self.scales or spec.pairs % len(self.scales):
            raise MethodError(
                f"dpe: {len(self.scales)} scales do not fit the model's {spec.pairs} rotary pairs; "
                f"give a number of scales that divides {spec.pairs}"
            )
        if self.mask is not None:
            wanted = (spec.num_layers, spec.num_heads, spec.pairs)
            shape = self.mask.array.shape
            if any(have not in (1, want) for have, want in zip(shape, wanted, strict=True)):
                raise MethodError(f"dpe: the key-dimension mask has shape {shape}, wanted {wanted} or 1 on an axis")

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        assert self.window is not None and self.scales is not None
        scale = np.repeat(np.array(self.scales), spec.pairs // len(self.scales))[None, None, :]
        if self.mask is not None:
            scale = np.where(self.mask.array != 0, scale, 1.0)
        offset = self.window - np.floor(self.window / scale)
        query = PositionMap(Grid(scale), Grid(offset), floor=True)
        return two_bands(self.window, query, PositionMap(Grid(scale), floor=True))


def _from_profile(profile: Profile, name: str) -> dict[str, Choice]:
    """The fields that a profile of dpe holds; the reason says which one, and what it was made for."""
    made = profile.target_length
    reason = name + (f", made for {made} tokens" if made else "")
    read: dict[str, Callable[[Any], Any]] = {
        "scales": lambda value: tuple(map(float, value)),
        "window": int,
        "logit_scale": float,
    }
    try:
        own = {field: (read[field](value), reason) for field, value in profile.values.items() if field in read}
        if "mask" in profile.arrays:
            own["mask"] = (Grid(profile.arrays["mask"]), reason)
    except (TypeError, ValueError) as error:
        raise ProfileError(f"the {name} holds a value of the wrong type: {error}") from error
    return own

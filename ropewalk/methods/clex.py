"""CLEX: frequencies that follow a learned differential equation over the length factor."""

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import MethodError, ProfileError
from ropewalk.grid import Grid
from ropewalk.methods.base import METHODS, Choice, FrequencyMethod, require
from ropewalk.methods.dynamics import ACTIVATIONS, NETWORKS, Dynamics, exponents, feature_of, open_pairs, settled
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import FrequencyTable, RotarySpec

KIND = "clex"  # of a profile
READ = {"max_factor": int, "activation": str, "gate": float, "feature_base": float, "log_n": bool, "network": str}
ADDED = {"log_n", "network"}  # that a profile may lack
GATE = 10.0  # turns: LongRoPE2's d_10 (arXiv 2502.20082), below which no extension method scales a pair
BAKED = 1024  # tables kept; a table is some hundred numbers


@METHODS.register("clex")
@dataclass(frozen=True, kw_only=True)
class CLEX(FrequencyMethod):
    """CLEX: frequencies that follow a learned differential equation over the length factor.

    A text of n tokens has t = ceil(n / L), at most T. ln theta_i moves from the model's own value at t = 1 by the rate
    d ln theta_i / dt = g_i - (2i / (d - 2)) 2 / a, a = 2t - 1, where the network g_i = [sigma((ln theta + nu) W_up)
    W_down]_i reads where it is and nu_i, NTK-aware scaling at factor a (arXiv 2310.16450; a and nu are the code's, not
    the paper's). The equation is solved once for every t, in log-time and float64, and the table is fixed per text when
    it is admitted. Without weights it is untrained, g = 0, which is `dynamic-ntk` with factor 2.

    Attributes:
        profile: path of a trained network (`ropewalk.train`): its weights and the parameters below; what is given
            beside it wins.
        max_factor: T, the longest text in trained windows; beyond it a target is refused. Left out: the network's own,
            or without one 16 (the authors' value) or what the target needs.
        whole: round t up to whole numbers, as the authors do. Off: t = n / L, a table for every length.
        activation: sigma, `tanh` (the default of the authors' code) or `silu` (the paper's).
        gate: turns in the trained window from which on the network leaves a pair alone, since its gradients drown the
            others'; inf: none, as the authors. Left out: 10.
        feature_base: base of nu. Left out: the model's own; the authors' code has 10,000 for every model.
        network: `projection`, the authors', or `residual`: two layers with biases that read how far ln theta has moved
            and the log-time ln(2t - 1). Left out: projection.
        up: W_up, [pairs, hidden].
        down: W_down, [hidden, pairs].
        middle: W_middle, [hidden, hidden], of the residual network.
        clock: W_clock, [2, hidden], of the residual network: biases, and what ln(2t - 1) is multiplied by.
    """

    name: ClassVar[str] = "clex"
    paper: ClassVar[str] = "arXiv 2310.16450"
    bibtex = """@inproceedings{chen2024clex,
  title={{CLEX}: Continuous Length Extrapolation for Large Language Models},
  author={Chen, Guanzheng and Li, Xin and Meng, Zaiqiao and Liang, Shangsong and Bing, Lidong},
  booktitle={ICLR}, year={2024}}"""
    needs = "training"
    length_dependent: ClassVar[bool] = True
    beyond: ClassVar[str] = "give a larger max_factor if you mean to run it beyond what it was trained for"

    profile: Path | None = None
    max_factor: int | None = None
    whole: bool = True
    activation: str | None = None
    gate: float | None = None
    feature_base: float | None = None
    network: str | None = None
    up: Grid | None = field(default=None, metadata={"written": False})
    down: Grid | None = field(default=None, metadata={"written": False})
    middle: Grid | None = field(default=None, metadata={"written": False})
    clock: Grid | None = field(default=None, metadata={"written": False})

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        needed = math.ceil(target_length / spec.pretrained_length)
        own: dict[str, Choice] = {
            "max_factor": (max(16, needed), "the authors' 16, or what the target needs"),
            "activation": ("tanh", "the default of the authors' code"),
            "gate": (GATE, "ten turns, below which no extension method scales a pair"),
            "feature_base": (float(spec.base), "the model's own base"),
            "network": ("projection", "the authors'"),
        }
        if self.profile is not None and self.up is None:
            own |= self._from_profile(self.profile, spec)
        return super().choose(spec, target_length) | own

    @staticmethod
    def _from_profile(path: Path, spec: RotarySpec) -> dict[str, Choice]:
        profile = Profile.load(path)
        profile.require(kind=KIND, spec=spec)
        weights = NETWORKS.get(profile.values.get("network", "projection"), ())
        if missing := sorted((set(weights) - set(profile.arrays)) | (set(READ) - ADDED - set(profile.values))):
            raise ProfileError(f"the profile {str(path)!r} misses {missing}; write it again with ropewalk.train")
        reason = f"profile {path}"
        try:
            own = {name: (READ[name](value), reason) for name, value in profile.values.items() if name in READ}
            return own | {name: (Grid(profile.arrays[name]), reason) for name in weights}
        except (TypeError, ValueError) as error:
            raise ProfileError(f"the profile {str(path)!r} holds a value of the wrong type: {error}") from error

    def to_profile(self, spec: RotarySpec, **provenance: Any) -> Profile:
        """The trained network as a profile, which `profile=PATH` reads back; only of a filled method with weights."""
        if self.up is None or self.down is None:
            raise MethodError("clex: an untrained network has no weights to save; train it first")
        values = {name: value for name in READ if (value := getattr(self, name)) is not None}
        values["gate"] = "inf" if self.gate == math.inf else self.gate  # JSON has no infinity
        arrays = {name: grid.array[0] for name, grid in self.weights.items()}
        return Profile(KIND, Fingerprint.of(spec), values, arrays, provenance)

    def __str__(self) -> str:
        if self.up is not None and self.profile is not None:  # the profile brings its weights
            nothing: dict[str, Any] = dict.fromkeys(self.weights)
            return str(replace(self, **nothing))
        return super().__str__()

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        assert self.max_factor is not None and self.gate is not None and self.feature_base is not None
        if min(spec.inv_freq) <= 0:
            raise MethodError("clex: pairs of this model do not turn, so ln theta has no value; take another method")
        require(self, "max_factor", self.max_factor >= 1, "at least 1")
        require(self, "activation", self.activation in ACTIVATIONS, "tanh or silu")
        require(self, "gate", self.gate >= 0, "a number of turns, or inf")
        require(self, "feature_base", 1 < self.feature_base < math.inf, "a number above 1")
        require(self, "network", self.network in NETWORKS, " or ".join(NETWORKS))
        assert self.network is not None
        if not self.weights:
            return
        wanted = NETWORKS[self.network]
        if set(self.weights) != set(wanted):
            raise MethodError(f"clex: a {self.network} network has {' and '.join(wanted)}: give all of them, or none")
        pairs, hidden = spec.pairs, self.weights["up"].array.shape[-1]
        shapes = {"up": (pairs, hidden), "down": (hidden, pairs), "middle": (hidden, hidden), "clock": (2, hidden)}
        for name, grid in self.weights.items():
            if grid.array.shape != (1, *shapes[name]):
                raise MethodError(
                    f"clex: {name} of shape {grid.array.shape[1:]} does not fit the model's {pairs} rotary pairs; "
                    f"wanted {_spelled(wanted)}"
                )

    @property
    def weights(self) -> dict[str, Grid]:
        """The network's weights by name; empty where it is untrained."""
        found = {name: getattr(self, name) for name in NETWORKS["residual"]}
        return {name: grid for name, grid in found.items() if grid is not None}

    def reach(self, spec: RotarySpec) -> int | None:
        return None if self.max_factor is None else self.max_factor * spec.pretrained_length

    def natural_length(self, spec: RotarySpec) -> int:
        """The longest text that a given or trained T reaches; the trained window where T is nobody's choice."""
        trained = spec.pretrained_length
        if self.profile is None and self.up is None and self.max_factor is None:
            return trained
        return self.resolve(spec, trained).reach(spec) or trained

    def dynamics(self, spec: RotarySpec) -> Dynamics:
        """The differential equation of the filled method, over float64 numpy arrays."""
        assert self.activation is not None and self.gate is not None and self.feature_base is not None
        nothing = np.zeros((spec.pairs, 0))
        weights: dict[str, np.ndarray] = {name: grid.array[0] for name, grid in self.weights.items()}
        return Dynamics(
            start=np.log(np.array(spec.inv_freq)),
            exponent=exponents(spec.pairs),
            feature=feature_of(spec, self.feature_base),
            gate=open_pairs(spec, self.gate),
            activation=self.activation,
            library=np,
            **({"up": nothing, "down": nothing.T} | weights),
        )

    def time(self, spec: RotarySpec, length: int) -> float:
        """t of a text of `length` tokens: between 1 and T."""
        assert self.max_factor is not None
        time = length / spec.pretrained_length
        return float(min(max(1.0, math.ceil(time) if self.whole else time), self.max_factor))

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        return _baked(self, spec, self.time(spec, length))


def _spelled(names: tuple[str, ...]) -> str:
    shapes = {"up": "[pairs, hidden]", "down": "[hidden, pairs]", "middle": "[hidden, hidden]", "clock": "[2, hidden]"}
    return ", ".join(f"{name} {shapes[name]}" for name in names)


@lru_cache(maxsize=BAKED)
def _baked(method: CLEX, spec: RotarySpec, time: float) -> FrequencyTable:
    """The table at t. The weights are part of the key, so that other weights never meet an old table."""
    theta = np.array(spec.inv_freq) * np.exp(settled(method.dynamics(spec), time))
    return FrequencyTable(Grid(theta), spec.attention_scaling)

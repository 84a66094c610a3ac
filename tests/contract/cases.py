"""One hypothesis strategy per method: a small model, the method with every field given, and what the oracles say.

A new method adds one function here: it draws the fields and names the oracle. Everything else in this folder follows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from ropewalk.grid import Grid
from ropewalk.methods import METHODS, Combined, Method
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec
from tests.oracles import clex, distances, frequencies

Draw = Callable[[st.SearchStrategy[Any]], Any]
Fields = dict[str, Any]
Distance = Callable[[int, int], Tensor]  # (T, layer) -> [heads or 1, T, T, pairs or 1]

PAIRS = (
    "self-extend+pi",
    "rerope+dynamic-ntk",
    "leaky-rerope+llama3",
    "dpe+yarn",
    "string+ntk",
    "dca+longrope",
    "self-extend+clex",
)
NAMES = (*METHODS, *PAIRS)
YARN_ENDS = ("beta_fast", "beta_slow")  # fast first
FEW = settings(max_examples=settings().max_examples // 3)  # for tests that run every backend


@dataclass(frozen=True)
class Case:
    """A method on a model, and what the oracles say that it does to a text of `length` tokens."""

    spec: RotarySpec
    method: Method
    length: int
    distance: Distance
    table: frequencies.Table
    logit_scale: float = 1.0
    log_n: bool = False

    @property
    def plan(self) -> Plan:
        return self.method.plan(self.spec, self.length)

    @property
    def retains(self) -> bool:
        """True when start tokens of LongRoPE keep angles that the table changes."""
        changed = (self.table[0] != frequencies.plain(self.spec.rotary_dim, self.spec.base)).any()
        return bool(getattr(self.method, "retain", 0) and changed)

    def query_scale(self, positions: Tensor) -> Tensor | None:
        """max(1, ln(m + 1) / ln L) of every query position, or None."""
        if not self.log_n:
            return None
        return ((positions.double() + 1).log() / np.log(self.spec.pretrained_length)).clamp(min=1)


def make_spec(
    *, head_dim: int = 16, rotary_dim: int | None = None, base: float = 1e4, pretrained_length: int = 64, **others: Any
) -> RotarySpec:
    """A model with plain frequencies, taken from the oracle: 2 layers, 4 heads on 2 key heads."""
    rotary_dim = head_dim if rotary_dim is None else rotary_dim
    theta = tuple(frequencies.plain(rotary_dim, base).tolist())
    shape: Fields = {"num_heads": 4, "num_kv_heads": 2, "num_layers": 2} | others
    return RotarySpec(head_dim, rotary_dim, base, pretrained_length, inv_freq=theta, **shape)


@st.composite
def specs(draw: Draw) -> RotarySpec:
    """Small models: whole and partial rotary (at either end of the head), both layouts, grouped heads."""
    head_dim = draw(st.sampled_from([16, 8]))
    rotary_dim = draw(st.sampled_from([head_dim, head_dim // 2]))
    return make_spec(
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        rotary_start=draw(st.sampled_from([0, head_dim - rotary_dim])),
        base=draw(st.sampled_from([1e4, 5e5])),
        pretrained_length=draw(st.integers(32, 128)),
        num_kv_heads=draw(st.sampled_from([2, 1, 4])),
        layout=draw(st.sampled_from(["half", "interleaved"])),
    )


windows = st.integers(1, 24)
factors = st.floats(1, 16)


def _self_extend(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    group, window = draw(st.integers(1, 9)), draw(windows)
    return {"group": group, "window": window}, lambda T, layer: distances.self_extend(T, group, window)


def _rerope(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    window = draw(windows)
    return {"window": window}, lambda T, layer: distances.rerope(T, window)


def _leaky_rerope(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    window, slope = draw(windows), draw(factors | st.just(np.inf))
    return {"window": window, "slope": slope}, lambda T, layer: distances.leaky_rerope(T, window, slope)


def _dpe(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    window = draw(windows)
    groups = draw(st.sampled_from([n for n in (1, 2, 4, 8) if spec.pairs % n == 0]))
    scales = draw(st.lists(factors | st.integers(1, 9).map(float), min_size=groups, max_size=groups))
    axes = draw(st.none() | st.tuples(st.sampled_from([1, spec.num_layers]), st.sampled_from([1, spec.num_heads])))
    per_pair = torch.tensor(scales, dtype=torch.float64).repeat_interleave(spec.pairs // groups)
    fields: Fields = {"window": window, "scales": tuple(scales)}
    if axes is None:
        return fields, lambda T, layer: distances.dpe(T, per_pair, window)
    seed = draw(st.integers(0, 2**16))
    mask = torch.rand(*axes, spec.pairs, generator=torch.Generator().manual_seed(seed)) < 0.5

    def distance(T: int, layer: int) -> Tensor:
        key_dimensions = mask[layer if axes[0] > 1 else 0]
        return distances.dpe(T, torch.where(key_dimensions, per_pair, 1.0), window)

    return fields | {"mask": Grid(mask.numpy())}, distance


def _string(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    shift, window = draw(st.integers(1, 40)), draw(windows)
    return {"shift": shift, "window": window}, lambda T, layer: distances.string(T, shift, window)


def _dca(draw: Draw, spec: RotarySpec) -> tuple[Fields, Distance]:
    chunk = draw(st.integers(2, 17))
    window = draw(st.integers(1, chunk))
    return {"chunk": chunk, "window": window}, lambda T, layer: distances.dca(T, chunk, window)


def _by_factor(oracle: Callable[..., frequencies.Table]) -> Callable[..., tuple[Fields, frequencies.Table]]:
    """Methods with nothing but a factor; the oracle takes (rotary_dim, base, factor)."""

    def drawn(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
        factor = draw(factors)
        return {"factor": factor}, oracle(spec.rotary_dim, spec.base, factor)

    return drawn


def _ntk_liu(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
    factor, trained = draw(factors), spec.pretrained_length
    return {"factor": factor}, frequencies.ntk_liu(spec.rotary_dim, spec.base, trained, trained * factor)


def _dynamic_ntk(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
    factor = draw(factors)
    table = frequencies.dynamic_ntk(spec.rotary_dim, spec.base, factor, spec.pretrained_length, length)
    return {"factor": factor}, table


def _ramped(
    oracle: Callable[..., frequencies.Table], ends: tuple[str, str]
) -> Callable[..., tuple[Fields, frequencies.Table]]:
    """Methods with a factor and a ramp between two numbers of turns, and perhaps an attention factor of their own.

    Args:
        ends: the method's fields for the two ends, in the order in which the oracle takes them.
    """

    def drawn(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
        factor, low = draw(factors), draw(st.floats(0.25, 4))
        turns = (low, low + draw(st.floats(0.5, 32)))
        if ends == YARN_ENDS:
            turns = turns[::-1]
        inv_freq, scaling = oracle(spec.rotary_dim, spec.base, factor, spec.pretrained_length, *turns)
        fields: Fields = {"factor": factor, **dict(zip(ends, turns, strict=True))}
        if "beta_slow" in ends and draw(st.booleans()):
            fields["attention_factor"] = scaling = draw(st.floats(0.7, 1.4))
        return fields, (inv_freq, scaling)

    return drawn


def _longrope(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
    one_per_pair = st.lists(factors, min_size=spec.pairs, max_size=spec.pairs)
    short, long, factor = draw(one_per_pair), draw(one_per_pair), draw(factors)
    original = draw(st.just(spec.pretrained_length) | st.integers(20, 200))
    table = frequencies.longrope(spec.rotary_dim, spec.base, factor, original, length, short=short, long=long)
    return {"short": tuple(short), "long": tuple(long), "factor": factor, "original": original}, table


def _clex(draw: Draw, spec: RotarySpec, length: int) -> tuple[Fields, frequencies.Table]:
    """A small random network, or none; what it may move is drawn too."""
    rng, hidden = np.random.default_rng(draw(st.integers(0, 2**16))), draw(st.integers(0, 5))
    up, down = rng.uniform(-0.5, 0.5, (spec.pairs, hidden)), rng.normal(0, 0.05, (hidden, spec.pairs))
    gate, base, activation = (draw(st.sampled_from(some)) for some in ([np.inf, 2.0], [1e4, 5e5], ["tanh", "silu"]))
    weights, kind = {"up": up, "down": down}, "projection"
    if hidden and draw(st.booleans()):
        kind = "residual"
        weights |= {"middle": rng.normal(0, 0.5, (hidden, hidden)), "clock": rng.normal(0, 0.5, (2, hidden))}
    theta = frequencies.plain(spec.rotary_dim, spec.base)
    table = clex.frequencies(
        torch.from_numpy(theta),
        time=float(np.ceil(length / spec.pretrained_length)),
        base=base,
        activation=activation,
        closed=frozenset(np.flatnonzero(spec.pretrained_length * theta / (2 * np.pi) >= gate).tolist()),
        **{name: torch.from_numpy(one) for name, one in weights.items()},
    )
    fields: Fields = {"gate": gate, "feature_base": base, "activation": activation, "network": kind}
    if hidden:
        fields |= {name: Grid(one) for name, one in weights.items()}
    return fields, (table.numpy(), 1.0)


POSITION: dict[str, Callable[[Draw, RotarySpec], tuple[Fields, Distance]]] = {
    "self-extend": _self_extend,
    "rerope": _rerope,
    "leaky-rerope": _leaky_rerope,
    "dpe": _dpe,
    "string": _string,
    "dca": _dca,
}
FREQUENCY: dict[str, Callable[[Draw, RotarySpec, int], tuple[Fields, frequencies.Table]]] = {
    "pi": _by_factor(frequencies.pi),
    "ntk": _by_factor(frequencies.ntk),
    "ntk-liu": _ntk_liu,
    "dynamic-ntk": _dynamic_ntk,
    "yarn": _ramped(frequencies.yarn, YARN_ENDS),
    "yarn-paper": _ramped(frequencies.yarn_paper, ("beta_slow", "beta_fast")),
    "yarn-lambda": _ramped(frequencies.yarn_lambda, YARN_ENDS),
    "ntk-by-parts": _ramped(frequencies.ntk_by_parts, ("low", "high")),
    "llama3": _ramped(frequencies.llama3, ("low", "high")),
    "longrope": _longrope,
    "clex": _clex,
}


def _gains(draw: Draw) -> Fields:
    return {"logit_scale": draw(st.sampled_from([1.0, 0.8, 1.3])), "log_n": draw(st.booleans())}


@st.composite
def cases(draw: Draw, name: str) -> Case:
    """A case of the method, or `position+frequency` pair, of this name."""
    spec = draw(specs())
    length = draw(st.integers(1, 4 * spec.pretrained_length))
    case = Case(
        spec=spec,
        method=METHODS.get("none")(),
        length=length,
        distance=lambda T, layer: distances.plain(T),
        table=(frequencies.plain(spec.rotary_dim, spec.base), 1.0),
    )
    methods: list[Any] = []
    for part in name.split("+"):
        fields: Fields = {}
        if part in POSITION:
            fields, distance = POSITION[part](draw, spec)
            case = replace(case, distance=distance)
        elif part in FREQUENCY:
            fields, table = FREQUENCY[part](draw, spec, length)
            case = replace(case, table=table)
        gains = _gains(draw)
        methods.append(METHODS.get(part)(**fields, **gains))
        case = replace(case, logit_scale=case.logit_scale * gains["logit_scale"], log_n=case.log_n or gains["log_n"])
    if name == "longrope":
        retain = draw(st.sampled_from([0, 1, 7]))
        slowdown = torch.from_numpy(frequencies.plain(spec.rotary_dim, spec.base) / case.table[0])
        methods[0] = replace(methods[0], retain=retain)
        case = replace(case, distance=lambda T, layer: distances.retained(T, retain, slowdown))
    method = methods[0] if len(methods) == 1 else Combined(position=methods[0], frequency=methods[1])
    return replace(case, method=method)

"""A position method over a frequency table: the table first, the positions take what is left."""

from dataclasses import dataclass, replace
from typing import ClassVar

from ropewalk.errors import MethodError
from ropewalk.methods.base import Choice, FrequencyMethod, Method, PositionMethod
from ropewalk.methods.longrope import LongRoPE
from ropewalk.plan import Band, Plan
from ropewalk.rotary import FrequencyTable, RotarySpec


@dataclass(frozen=True, kw_only=True)
class Combined(Method):
    """position+frequency: the table takes the factor that it is given, the position map takes what is left.

    The position method sees a model whose trained window is L times the table's factor, so one target length never
    compresses twice. A table whose factor is left out takes the square root of target / trained, or what the position
    method needs to reach the target (STRING).
    """

    name: ClassVar[str] = "combined"
    paper: ClassVar[str] = "both"
    kind = "both"

    position: PositionMethod
    frequency: FrequencyMethod

    def __post_init__(self) -> None:
        if not (isinstance(self.position, PositionMethod) and isinstance(self.frequency, FrequencyMethod)):
            raise MethodError(
                f"{self.position}+{self.frequency}: join one position method and one frequency method, "
                "in this order (dpe+yarn, string+yarn:factor=2)"
            )
        if isinstance(self.frequency, LongRoPE) and self.frequency.retain:
            raise MethodError(f"{self}: start tokens that longrope retains have no place beside {self.position.name}")
        if self.logit_scale is not None or self.log_n is not None:
            raise MethodError(f"{self}: give logit_scale and log_n to one of the two parts")

    @property
    def bibtex(self) -> str:  # type: ignore[override]
        return f"{self.position.bibtex}\n{self.frequency.bibtex}"

    @property
    def length_dependent(self) -> bool:  # type: ignore[override]
        return self.frequency.length_dependent

    @property
    def beyond(self) -> str:  # type: ignore[override]
        return f"raise the factor of {self.frequency.name} or take another position method"

    def left(self, spec: RotarySpec, target_length: int) -> RotarySpec:
        """The model as the position method sees it: the (filled) table's frequencies and the window it stretches to."""
        stretched = self.frequency.stretch(spec, target_length) * spec.pretrained_length
        theta = self.frequency.table(spec, target_length).inv_freq.layer(0)[0]
        return replace(
            spec,
            pretrained_length=max(spec.pretrained_length, round(stretched)),
            stretched_from=spec.pretrained_length,
            inv_freq=tuple(theta.tolist()),
        )

    def resolve(self, spec: RotarySpec, target_length: int) -> "Combined":
        frequency = self.frequency
        if frequency.takes_factor:
            frequency = frequency.with_factor(self.position.share(spec, target_length))
        filled = replace(self, frequency=frequency.resolve(spec, target_length))
        position = self.position.resolve(filled.left(spec, target_length), target_length)
        return replace(filled, position=position)

    def why(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        filled = self.resolve(spec, target_length)
        table = self.frequency.why(spec, target_length)
        if self.frequency.takes_factor:
            share = self.position.share(spec, target_length)
            table["factor"] = (share, "its share of target / trained; positions take the rest")
        position = self.position.why(filled.left(spec, target_length), target_length)
        named = {self.frequency.name: table, self.position.name: position}
        return {f"{name}.{field}": choice for name, fields in named.items() for field, choice in fields.items()}

    def natural_length(self, spec: RotarySpec) -> int:
        left = self.resolve(spec, spec.pretrained_length).left(spec, spec.pretrained_length)
        return self.position.natural_length(left)

    def reach(self, spec: RotarySpec) -> int | None:
        return self.position.reach(self.left(spec, spec.pretrained_length))

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        return self.position.bands(spec)

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        return self.frequency.table(spec, length)

    def plan(self, spec: RotarySpec, length: int) -> Plan:
        method = self.resolve(spec, length)
        position, frequency = method.position, method.frequency
        assert position.logit_scale is not None and frequency.logit_scale is not None
        log_n = spec.pretrained_length if position.log_n or frequency.log_n else None
        gain = position.logit_scale * frequency.logit_scale
        plan = Plan(position.bands(spec), frequency.table(spec, length), gain, log_n)
        return plan.mirrored() if spec.bidirectional else plan

    def __str__(self) -> str:
        return f"{self.position}+{self.frequency}"

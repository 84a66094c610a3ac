"""Method: configuration and behaviour of one way to extend the context, as a frozen object."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from ropewalk.errors import MethodError
from ropewalk.methods.filled import Choice, filled, reasons
from ropewalk.methods.grammar import format_value, spell
from ropewalk.plan import Band, Plan
from ropewalk.registry import Registry
from ropewalk.rotary import FrequencyTable, RotarySpec

if TYPE_CHECKING:
    from ropewalk.methods.tables.base import EncoderMethod


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """One way to extend the context window of a RoPE model.

    A field that is None is filled from the target length by one documented rule (`choose`), so `target_length` is the
    only dial that must be turned.

    Attributes:
        logit_scale: multiplies every logit; None takes the method's own (1 unless its paper has another).
        log_n: multiply queries by max(1, ln(m + 1) / ln L), L the trained window; None takes the method's own.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    bibtex: ClassVar[str]
    kind: ClassVar[Literal["position", "frequency", "both"]]
    needs: ClassVar[Literal["nothing", "profile", "training"]] = "nothing"
    length_dependent: ClassVar[bool] = False

    logit_scale: float | None = None
    log_n: bool | None = None

    def choose(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        """A value and a reason for every field that can be left out; only those that are None are taken."""
        return {"logit_scale": (1.0, "no gain"), "log_n": (False, "no log-n scale")}

    def check(self, spec: RotarySpec) -> None:
        """Raise MethodError when the filled method cannot be applied to this model."""
        assert self.logit_scale is not None
        require(self, "logit_scale", self.logit_scale > 0 and math.isfinite(self.logit_scale), "a number above 0")

    def reach(self, spec: RotarySpec) -> int | None:
        """Longest text, tokens, on which the method keeps its promise; None where there is no such limit."""
        return None

    def natural_length(self, spec: RotarySpec) -> int:
        """The target when none is given: what the method reaches as it was given, at least the trained window."""
        return self.resolve(spec, spec.pretrained_length).reach(spec) or spec.pretrained_length

    def bands(self, spec: RotarySpec) -> tuple[Band, ...]:
        """p_i of the filled method; plain distances unless a position method says otherwise."""
        return (Band(),)

    def table(self, spec: RotarySpec, length: int) -> FrequencyTable:
        """theta_i of the filled method for a text of `length` tokens; the model's own by default."""
        return spec.table

    def resolve(self, spec: RotarySpec, target_length: int) -> Self:
        """The same method with every field filled for this model and target, and checked."""
        if target_length < 1:
            raise MethodError(f"target_length must be at least 1 token, got {target_length}")
        method = filled(self, self.choose(spec, target_length))
        method.check(spec)
        return method

    def why(self, spec: RotarySpec, target_length: int) -> dict[str, Choice]:
        """Every field with its value and where it comes from: given by the user, or the rule that filled it."""
        chosen = self.choose(spec, target_length)
        return reasons(self, self.resolve(spec, target_length), chosen)

    def plan(self, spec: RotarySpec, length: int) -> Plan:
        """The plan for a text that grows to `length` tokens; pure. Fields left out are filled for that length."""
        method = self.resolve(spec, length)
        assert method.logit_scale is not None
        log_n = spec.pretrained_length if method.log_n else None
        plan = Plan(method.bands(spec), method.table(spec, length), method.logit_scale, log_n)
        return plan.mirrored() if spec.bidirectional else plan

    def check_target(self, spec: RotarySpec, target_length: int) -> None:
        """Raise MethodError when the filled method cannot serve `target_length` tokens on this model."""
        window = getattr(self, "window", None)
        if window is not None and window > target_length:
            raise MethodError(
                f"{self.name}: window {window} is larger than the target of {target_length} tokens; "
                "take a smaller window or a longer target"
            )
        reach = self.reach(spec)
        if reach is not None and target_length > reach:
            raise MethodError(
                f"{self} reaches {reach} tokens on a model trained on {spec.pretrained_length}, "
                f"wanted {target_length}; "
                f"{self.beyond}"
            )

    beyond: ClassVar[str] = "take another method"

    def __str__(self) -> str:
        """The method in the grammar of the command line, `name:key=value,...`; `parse` reads it back."""
        return spell(self)


METHODS: Registry[type[Method]] = Registry("method", MethodError)


@dataclass(frozen=True, kw_only=True)
class PositionMethod(Method):
    """A method that changes p_i and keeps the model's own frequencies."""

    kind = "position"

    @abstractmethod
    def bands(self, spec: RotarySpec) -> tuple[Band, ...]: ...

    def share(self, spec: RotarySpec, target_length: int) -> float:
        """The factor that a joined table takes when it is given none: the square root of target / trained."""
        return math.sqrt(extension_factor(spec, target_length))


@dataclass(frozen=True, kw_only=True)
class FrequencyMethod(Method):
    """A method that changes theta_i and keeps plain distances.

    Attributes:
        stack: lay the table over one that the checkpoint already carries. Refused by default: it compresses twice.
    """

    kind = "frequency"
    stack: bool = False

    @abstractmethod
    def table(self, spec: RotarySpec, length: int) -> FrequencyTable: ...

    def stretch(self, spec: RotarySpec, target_length: int) -> float:
        """How many times the trained window this (filled) table stretches to."""
        return extension_factor(spec, target_length)

    @property
    def takes_factor(self) -> bool:
        """True when the table follows from one factor that is not given yet."""
        return False

    def with_factor(self, factor: float) -> Self:
        """The same method with its factor given; only where `takes_factor`."""
        raise NotImplementedError

    def natural_length(self, spec: RotarySpec) -> int:
        trained = spec.pretrained_length
        return round(self.resolve(spec, trained).stretch(spec, trained) * trained)

    def check(self, spec: RotarySpec) -> None:
        super().check(spec)
        if spec.scaling is not None and not self.stack:
            raise MethodError(
                f"the checkpoint already carries a {spec.scaling!r} table and {self.name} would compress twice; "
                f"use a position method, or {self.name}:stack=true if that is meant"
            )


def require(method: "Method | EncoderMethod", field: str, holds: bool, wanted: str) -> None:
    """Raise MethodError that names the field, what was given and what was wanted."""
    if not holds:
        raise MethodError(f"{method.name}: {field} must be {wanted}, got {format_value(getattr(method, field))}")


def extension_factor(spec: RotarySpec, target_length: int) -> float:
    """target / trained, at least 1."""
    return max(1.0, target_length / spec.pretrained_length)

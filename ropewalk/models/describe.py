"""An extension in words."""

from typing import TYPE_CHECKING, Any

from ropewalk.attention import BACKENDS
from ropewalk.attention.base import passed_over
from ropewalk.attention.rotated import reaches, unsupported
from ropewalk.models.late_norms import REASON
from ropewalk.models.seam import device_of, name_of
from ropewalk.plan import Plan

if TYPE_CHECKING:
    from ropewalk.models.huggingface import Extension

OWN = "model's own"  # the backend of a method that leaves attention to the model


def describe(extension: "Extension") -> str:
    """What is attached, which parameters were chosen and why, in lines for people."""
    spec = extension.spec
    kinds = {
        kind: [i for i, layer in enumerate(extension.census.layers) if layer.kind == kind]
        for kind in ("sliding", "none")
    }
    lines = [
        f"{extension.requested} on {name_of(extension.model)}: trained on {spec.pretrained_length} tokens, "
        f"target {extension.target_length}",
        f"  rotary: {spec.pairs} pairs ({spec.layout}), {spec.rotary_dim} of {spec.head_dim} dimensions "
        f"from {spec.rotary_start}, table {spec.scaling or 'default'}",
    ]
    for name, (value, reason) in extension.requested.why(spec, extension.target_length).items():
        lines.append(f"  {name} = {shorten(value)}: {reason}")
    if extension.backend == OWN:
        lines.append("  attention, kernels and cache: the model's own; only the rotary table is ours")
    else:
        if extension.shared_rotary and not extension.plan.takes_attention:
            lines.append("  attention is taken over: layers that stay as they are share the rotary module")
        lines.append(f"  attention: backend {extension.backend}")
        if extension.asked_backend == "auto":
            here = {"device": device_of(extension.model), "dtype": extension.model.dtype}
            for reason, names in passed_over(extension.plan, **here).items():
                lines.append(f"    not {', '.join(names)}: {reason}")
        late = any(layer.norms is not None for layer in extension.census.layers)
        if late:
            lines.append("  queries and keys are normalised after their rotation: attention is dense, in plain torch")
        if not spec.bidirectional:
            lines.append(f"  {cache_of(extension.plan, extension.backend, REASON if late else None)}")
        if extension.left_plain:
            lines.append(f"  caches that hold un-rotated keys so far: {'; '.join(extension.left_plain)}")
    if kinds["sliding"]:
        lines.append(f"  layers {kinds['sliding']} have a window within the trained length and stay as they are")
    if kinds["none"]:
        lines.append(f"  layers {kinds['none']} do not rotate and stay as they are")
    reach = extension.method.reach(spec)
    if reach is not None and not extension.method.length_dependent:
        lines.append(f"  reaches {reach} tokens; a longer text is refused")
    if extension.method.length_dependent:
        lines.append("  depends on the final length: generate pins it per row; pin(lengths) does it by hand")
    if extension.comparison is not None:
        lines.append(f"  self-test: largest logit difference to the stock model {extension.comparison.difference:g}")
    return "\n".join(lines)


def cache_of(plan: Plan, backend: str, reason: str | None = None) -> str:
    """Which keys a cache holds under a plan; un-rotated ones where there is a reason for them."""
    reason = reason or unsupported(plan)
    if BACKENDS.get(backend).tables is None:
        reason = f"backend {backend} takes no others"
    if reason is not None:
        return f"cache: un-rotated keys, rotated anew at every step: {reason}"
    near = [reach for reach in reaches(plan).values() if reach is not None]
    layout = f", and the last {max(near)} also by that of the local band" if near else ""
    held = f"keys rotated once, by the key map of the {'remote band' if near else 'plan'}{layout}"
    return f"cache: a DynamicCache or StaticCache holds {held}; others hold un-rotated keys, rotated anew at every step"


def shorten(value: object) -> str:
    """A value for one line: long lists as runs, `1 x 16, 4 x 16`."""
    if not isinstance(value, tuple) or len(value) <= 8:
        return str(value)
    runs: list[list[Any]] = []
    for item in value:
        if runs and runs[-1][0] == item:
            runs[-1][1] += 1
        else:
            runs.append([item, 1])
    return ", ".join(f"{item:g} x {count}" for item, count in runs)

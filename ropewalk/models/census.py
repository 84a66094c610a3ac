"""Reading a model through the seam: one RotarySpec for the layers that an extension is for, and what the others are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.errors import ModelError
from ropewalk.models.heads import WHOLE, Share, share_of
from ropewalk.models.late_norms import LateNorm, Norms, norms_within
from ropewalk.models.probe import Capture, LayoutError, Records, RotaryKey, Rotation, read_rotation
from ropewalk.models.seam import Seam, device_of, find_rotaries, name_of
from ropewalk.models.spec import pretrained_length, rope_base, rope_parameters, scaling_of
from ropewalk.rotary import RotarySpec


@dataclass(frozen=True)
class Layer:
    """One attention module.

    Attributes:
        kind: "full" (extended), "sliding" (stays as it is) or "none" (no rotation, stays as it is).
        spec: its rotary embedding; for "none" a rotation by nothing.
        rotation: which columns of cos and sin its dimensions use, None for "none".
        window: the model's own window, tokens, or None.
        norms: what is done to queries and keys after the rotation, None for nothing.
    """

    kind: str
    spec: RotarySpec
    rotation: Rotation | None
    window: int | None
    norms: Norms | None = None


@dataclass(frozen=True)
class RotaryColumns:
    """One rotary module under one layer type.

    Attributes:
        inv_freq: theta_i, float64 values of the model's float32, [pairs].
        pairs: which pair every column of cos belongs to, [width].
        attention_scaling: the factor that cos and sin carry.
    """

    inv_freq: tuple[float, ...]
    pairs: tuple[int, ...]
    attention_scaling: float


@dataclass(frozen=True)
class Census:
    """Everything that the probe found.

    Attributes:
        spec: of the full-attention layers, with the heads of all processes that the model may be split over.
        share: of these heads, that this process has.
    """

    spec: RotarySpec
    layers: tuple[Layer, ...]
    columns: dict[RotaryKey, RotaryColumns]
    rotary: RotaryKey
    share: Share = WHOLE


@contextmanager
def quietly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients, and every module's training flag as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def take_census(seam: Seam, pretrained: int | None = None) -> Census:
    """Probe an attached seam. Raises ModelError, naming the family, for a model that cannot be extended."""
    model = seam.model
    refuse_by_family(model)
    token = torch.full((1, 1), model.config.get_text_config().vocab_size // 2, device=device_of(model))
    with quietly(model):
        try:
            records = _probed(seam, lambda: model(input_ids=token, use_cache=False))
        except ModelError as error:
            known = name_of(model) in str(error)
            raise error if known else ModelError(f"{name_of(model)} {error}") from error
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ModelError(
                f"{name_of(model)} cannot be extended: it fails with a neutral rotation or our mask: {error}"
            ) from error
    if not records.captures or not records.widths:
        raise ModelError(
            f"{name_of(model)} cannot be extended: its attention or rotary module is not reached by a forward"
        )
    columns = {rotary: _columns(seam, rotary) for rotary in records.widths}
    parameters = rope_parameters(model.config.get_text_config())
    length = pretrained or pretrained_length(model.config.get_text_config(), parameters)
    layers = [
        replace(_layer(model, captures, records.widths, columns, length), norms=seam.norms.get(module))
        for module, captures in records.captures.items()
    ]
    full = [layer for layer in layers if layer.kind == "full"]
    if not full:
        raise ModelError(
            f"{name_of(model)}: nothing to extend: no rotary layer looks past {length} tokens "
            "(its layers have sliding windows or no rotation)"
        )
    first = full[0]
    if any(layer.spec != first.spec or layer.rotation != first.rotation for layer in full):
        raise ModelError(f"{name_of(model)} cannot be extended: its full-attention layers rotate in different ways")
    assert first.rotation is not None
    scaling = scaling_of(parameters)
    spec = first.spec
    if scaling == "longrope":  # a length-switched table: the one that holds at the trained window
        table, factor = ROPE_INIT_FUNCTIONS["longrope"](model.config.get_text_config(), seq_len=length)
        spec = replace(spec, inv_freq=tuple(table.double().tolist()), attention_scaling=float(factor))
    spec = replace(
        spec,
        base=rope_base(parameters),
        num_layers=len(layers),
        layer_kinds=tuple(layer.kind for layer in layers),
        scaling=scaling,
    )
    heads = next(capture["as-is"].query.shape[0] for capture in records.captures.values())
    return Census(spec, tuple(layers), columns, first.rotation.rotary, share_of(model, heads))


def _probed(seam: Seam, forward: Callable[[], object]) -> Records:
    """What the probes see; norms of attention modules that come after the rotation are lifted out of the model."""
    records = seam.run_probes(forward)
    if _readable(records):
        return records
    norms = {module: norms_within(module) for module in seam.layers}
    for named in norms.values():
        for norm in named.values():
            norm.lift()
    bare = seam.run_probes(forward)
    if not _readable(bare):
        for named in norms.values():
            for norm in named.values():
                norm.restore()
        return records
    plain = bare.captures
    roles: dict[nn.Module, dict[str, LateNorm]] = {module: {} for module in norms}
    for name in dict.fromkeys(name for named in norms.values() for name in named):
        those = {module: named[name] for module, named in norms.items() if name in named}
        for norm in those.values():
            norm.factor = 2.0
        doubled = seam.run_probes(forward, ["as-is"]).captures
        for module, norm in those.items():
            norm.factor = 1.0
            for part in ("query", "key"):
                before, after = (getattr(captures[module]["as-is"], part) for captures in (plain, doubled))
                if torch.equal(after, 2 * before):
                    roles[module][part] = norm
    seam.norms = {module: Norms(found.get("query"), found.get("key")) for module, found in roles.items() if found}
    return bare


def _readable(records: Records) -> bool:
    try:
        for captures in records.captures.values():
            read_rotation(captures, records.widths)
    except LayoutError:
        return False
    return True


def refuse_by_family(model: PreTrainedModel) -> None:
    """Raise ModelError for kinds of models that are known not to work, before anything is run."""
    config = getattr(model, "config", None)
    if config is None or not hasattr(model, "set_attn_implementation"):
        raise ModelError(f"{type(model).__name__} is not a transformers model; load it with AutoModelForCausalLM")
    adapter = getattr(model, "active_peft_config", None)  # of PEFT's wrapper
    if adapter is not None and adapter.is_prompt_learning:
        kind = adapter.peft_type.value
        reason = (
            "learned keys before every text, and nothing says where they stand; take a LoRA adapter"
            if kind == "PREFIX_TUNING"
            else "virtual tokens before every text; extend the model in it: model.get_base_model()"
        )
        raise ModelError(f"{name_of(model)} cannot be extended: PEFT's {kind} puts {reason}")
    text = config.get_text_config()
    parameters = getattr(text, "rope_parameters", None) or {}
    if any("mrope_section" in p for p in [parameters, *parameters.values()] if isinstance(p, dict)):
        raise ModelError(
            f"{name_of(model)} cannot be extended: multimodal rotary positions (M-RoPE) are three-dimensional"
        )
    if text is not config:
        raise ModelError(f"{name_of(model)} is multimodal; extend its language model ({text.model_type}) alone")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name_of(model)} cannot be extended: it is an encoder-decoder model")
    if not find_rotaries(model):
        raise ModelError(f"{name_of(model)} is not a RoPE model: it has no rotary module")


def _columns(seam: Seam, rotary: RotaryKey) -> RotaryColumns:
    """Read theta off the stock module's cos and sin at position 1, and match it with the module's inv_freq."""
    path, layer_type = rotary
    module = seam.rotaries[path]
    buffer = getattr(module, f"{layer_type}_inv_freq" if layer_type else "inv_freq", None)
    if not isinstance(buffer, torch.Tensor):
        raise ModelError(f"{name_of(seam.model)} cannot be extended: its rotary module has no inv_freq")
    with torch.no_grad():
        one = torch.ones(1, 1, dtype=torch.int64, device=buffer.device)
        cos, sin = seam.stock_rotary(rotary, torch.zeros(1, 1, 1, device=buffer.device), one)
    turned = np.stack([part[0, 0].double().cpu().numpy() for part in (cos, sin)])
    theta = buffer.double().cpu().numpy()
    angle, width = np.arctan2(turned[1], turned[0]), turned.shape[1]
    scaling = float(getattr(module, f"{layer_type}_attention_scaling" if layer_type else "attention_scaling", 1.0))
    if not np.allclose(np.hypot(*turned), scaling, rtol=1e-5):
        raise ModelError(f"{name_of(seam.model)} cannot be extended: its cos and sin carry an unknown factor")
    for pairs in (np.arange(width) % len(theta), np.arange(width) // 2):
        if width in (len(theta), 2 * len(theta)) and np.allclose(
            theta[pairs % len(theta)], angle, rtol=1e-3, atol=1e-9
        ):
            return RotaryColumns(tuple(theta.tolist()), tuple(pairs.tolist()), scaling)
    raise ModelError(f"{name_of(seam.model)} cannot be extended: the columns of its cos and sin are in no known order")


def _layer(
    model: PreTrainedModel,
    captures: dict[str, Capture],
    widths: dict[RotaryKey, int],
    columns: dict[RotaryKey, RotaryColumns],
    length: int,
) -> Layer:
    try:
        rotation = read_rotation(captures, widths)
    except LayoutError as error:
        raise ModelError(f"{name_of(model)} cannot be extended: {error}") from error
    seen = captures["as-is"]
    heads, head_dim = seen.query.shape
    _, ranks = share_of(model, heads)
    window = seen.window
    if seen.in_chunks and rotation is not None and window is not None and window <= length:
        raise ModelError(f"{name_of(model)}: nothing to extend: rotary layers see no further than chunks of {window}")
    if rotation is None:
        spec = replace(_spec(head_dim, heads * ranks, len(seen.key) * ranks, length, (0.0,)), bidirectional=seen.ahead)
        return Layer("none", spec, None, window)
    of = columns[rotation.rotary]
    pairs = [of.pairs[column] for column in rotation.columns]
    count = rotation.rotary_dim // 2
    expected = (
        [i % count for i in range(2 * count)] if rotation.layout == "half" else [i // 2 for i in range(2 * count)]
    )
    if pairs != expected or count != len(of.inv_freq):
        raise ModelError(f"{name_of(model)} cannot be extended: its rotary pairs are in an order that is not known")
    spec = replace(
        _spec(head_dim, heads * ranks, len(seen.key) * ranks, length, of.inv_freq),
        layout=rotation.layout,
        rotary_start=rotation.start,
        attention_scaling=of.attention_scaling,
        bidirectional=seen.ahead,
    )
    kind = "sliding" if window is not None and window <= length else "full"
    return Layer(kind, spec, rotation, window)


def _spec(head_dim: int, heads: int, kv_heads: int, length: int, inv_freq: tuple[float, ...]) -> RotarySpec:
    return RotarySpec(
        head_dim=head_dim,
        rotary_dim=2 * len(inv_freq),
        base=0.0,
        pretrained_length=length,
        num_heads=heads,
        num_kv_heads=kv_heads,
        num_layers=1,
        inv_freq=inv_freq,
    )

"""`extend`: attach a method to a loaded transformers model; `Extension`: what is attached, and how to take it off."""

import inspect
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ropewalk.attention.base import choose
from ropewalk.errors import MethodError, ModelError
from ropewalk.methods import Method, parse
from ropewalk.models.census import Census, refuse_by_family, take_census
from ropewalk.models.executors import Banded, refuse_beyond, table_rotary
from ropewalk.models.identity import Comparison, verify
from ropewalk.models.override import Override
from ropewalk.models.seam import Seam, name_of
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

MARK = "_ropewalk_extension"  # on the model, while it is extended
OWN = "model's own"  # the backend of a method that leaves attention to the model


def extend(
    model: PreTrainedModel,
    method: Method | str,
    *,
    target_length: int | None = None,
    backend: str = "auto",
    verify: bool = True,
    pretrained_length: int | None = None,
) -> "Extension":
    """Attach a context-extension method to a loaded RoPE model, in place.

    A method that only changes the frequency table leaves the model's attention and cache as they are. Any other takes
    attention over and caches un-rotated keys. Use the result as a context manager, or call `remove()`.

    Args:
        model: a causal transformers model (or its base model).
        method: a Method, or its text form ("dpe", "self-extend:group=4,window=1024", "dpe+yarn:factor=2").
        target_length: tokens that texts may grow to; fills every parameter that the method leaves out. Left out: what
            the method reaches as it was given, at least the trained window.
        backend: attention backend; "auto" takes the first that can run. Naming one makes even a table method use it.
        verify: run the identity self-test first (a few short forwards).
        pretrained_length: trained window, tokens, where the model's configuration does not say it.

    Raises:
        ModelError: not a RoPE model, a family that cannot be extended (named), or a model that is extended already.
        MethodError: parameters that do not fit the model, a target beyond the method's reach.
        BackendError: a named backend that cannot run the plan.
    """
    chosen = parse(method) if isinstance(method, str) else method
    if model.__dict__.get(MARK) is not None:
        raise ModelError(
            f"this {name_of(model)} is already extended with {model.__dict__[MARK].method}; remove() that first"
        )
    census, comparison, seam = read_model(model, pretrained_length, self_test=verify)
    spec = census.spec
    target = chosen.natural_length(spec) if target_length is None else target_length
    filled = chosen.resolve(spec, target)
    filled.check_target(spec, target)
    windows = [layer.window for layer in census.layers if layer.kind == "full" and layer.window is not None]
    if windows and target > min(windows):
        raise MethodError(
            f"{name_of(model)} never looks back more than {min(windows)} tokens (its sliding window), wanted {target}; "
            "set sliding_window to None in its configuration, or take a smaller target"
        )
    plan = filled.plan(spec, target)
    if plan.takes_attention or backend != "auto":
        choose(backend, plan, device=model.device, dtype=model.dtype)
    return Extension(model, chosen, filled, target, census, comparison, seam, backend)


def read_model(
    model: PreTrainedModel, pretrained_length: int | None = None, *, self_test: bool = True
) -> tuple[Census, Comparison | None, Seam]:
    """Probe a model and run the identity self-test; the model is left as it was found."""
    refuse_by_family(model)
    seam = Seam(model)
    try:
        seam.attach()
        census = take_census(seam, pretrained_length)
        comparison = verify(seam, census) if self_test else None
    finally:
        seam.detach()
    return census, comparison, seam


def read_spec(model: PreTrainedModel, *, pretrained_length: int | None = None) -> RotarySpec:
    """The rotary embedding of a loaded model, measured through the seam; the model is left as it was found."""
    return read_model(model, pretrained_length, self_test=False)[0].spec


class Extension:
    """A method attached to a model. Made by `extend`; `remove()` or leaving the context restores the model exactly.

    Attributes:
        model: the extended model.
        requested: the method as it was asked for.
        method: the method with every field filled.
        target_length: tokens that texts may grow to.
        spec: the rotary embedding of the extended layers.
        plan: what a text of `target_length` tokens gets.
        backend: name of the attention backend, or "model's own".
    """

    def __init__(
        self,
        model: PreTrainedModel,
        requested: Method,
        method: Method,
        target_length: int,
        census: Census,
        comparison: Comparison | None,
        seam: Seam,
        backend: str,
    ) -> None:
        self.model = model
        self.requested = requested
        self.method = method
        self.target_length = target_length
        self.census = census
        self.comparison = comparison
        self.spec = census.spec
        self.plan = method.plan(self.spec, target_length)
        self.shared_rotary = any(
            layer.kind == "sliding" and layer.rotation is not None and layer.rotation.rotary == census.rotary
            for layer in census.layers
        )
        takes_attention = self.plan.takes_attention or backend != "auto" or self.shared_rotary
        self.backend = OWN
        if takes_attention:
            self.backend = choose(backend, self.plan, device=model.device, dtype=model.dtype).name
        self._seam = seam
        self._pins: list[int] | None = None
        self._plans: dict[int, Plan] = {target_length: self.plan}
        self._overrides: list[Override] = []
        self._hook: RemovableHandle | None = None
        model.__dict__[MARK] = self
        try:
            self._install()
        except BaseException:
            self.remove()
            raise

    def _install(self) -> None:
        if self.backend != OWN:
            self._seam.executor = Banded(self.census, self._rows, self.backend, self._limits)
            self._seam.attach()
        elif self.plan.table != self.spec.table or self.method.length_dependent:
            self._override_rotary()
            self._hook = self.model.register_forward_pre_hook(self._admit, with_kwargs=True)
        if self.method.length_dependent and hasattr(self.model, "generate"):
            self._overrides.append(Override(self.model, "generate", self._pinned_generate))
            self._generate = self._overrides[-1].original

    def _override_rotary(self) -> None:
        path, layer_type = self.census.rotary
        ours = table_rotary(self.census.columns[self.census.rotary], self._rows)

        def forward(x: Tensor, position_ids: Tensor, asked: str | None = None, **named: Any) -> tuple[Tensor, Tensor]:
            asked = named.get("layer_type", asked)
            return ours(x, position_ids) if asked == layer_type else override.original(x, position_ids, asked)

        override = Override(self._seam.rotaries[path], "forward", forward)
        self._overrides.append(override)

    def _admit(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward of a table method: no row may grow past what it was admitted for."""
        given = inspect.signature(type(module).forward).bind_partial(module, *args, **kwargs).arguments
        given = given | given.get("kwargs", {})
        tokens = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
        if tokens is None:
            return
        batch, new = tokens.shape[:2]
        limits = self._limits(batch)
        if limits is None:
            return
        cache, visible = given.get("past_key_values"), given.get("attention_mask")
        counts = [new + (0 if cache is None else int(cache.get_seq_length()))] * batch
        if visible is not None and visible.ndim == 2:
            counts = visible.sum(-1).tolist()
        for row, count in enumerate(counts):
            refuse_beyond(limits, [row], int(count))

    def remove(self) -> None:
        """Take the method off: the model is the stock model again, exactly. A second call does nothing."""
        if self.model.__dict__.get(MARK) is not self:
            return
        del self.model.__dict__[MARK]
        self._seam.detach()
        self._seam.executor = None
        while self._overrides:
            self._overrides.pop().restore()
        if self._hook is not None:
            self._hook.remove()

    def __enter__(self) -> "Extension":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def pin(self, lengths: list[int] | None) -> None:
        """Fix the final length, tokens, of every row of the batch that follows, for methods that depend on it.

        Call it before the prefill and leave it until the rows are done: cached keys were made for these lengths. None
        goes back to `target_length` for every row.
        """
        if lengths is not None:
            wrong = [n for n in lengths if not 1 <= n <= self.target_length]
            if wrong or not lengths:
                raise MethodError(
                    f"pin wants lengths between 1 and target_length={self.target_length} tokens, got {lengths}"
                )
        self._pins = None if lengths is None else list(lengths)

    def _lengths(self, batch: int) -> list[int]:
        """The pinned length of every row; beams and several sequences per prompt repeat rows."""
        if self._pins is None:
            return [self.target_length] * batch
        repeats, rest = divmod(batch, len(self._pins))
        if rest:
            raise MethodError(
                f"{len(self._pins)} rows are pinned and a batch of {batch} arrived; pin one length per row"
            )
        return [n for n in self._pins for _ in range(repeats)]

    def _rows(self, batch: int) -> list[Plan]:
        if not self.method.length_dependent:
            return [self.plan] * batch
        for length in set(self._lengths(batch)) - self._plans.keys():
            self._plans[length] = self.method.plan(self.spec, length)
        return [self._plans[length] for length in self._lengths(batch)]

    def _limits(self, batch: int) -> list[int] | None:
        """Tokens that every row may reach: its pinned length, or the reach of the method; None where nothing limits."""
        if self.method.length_dependent:
            return self._lengths(batch)
        reach = self.method.reach(self.spec)
        return None if reach is None else [reach] * batch

    def _pinned_generate(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` that pins every row at prompt + new tokens, unless rows are pinned by hand."""
        if self._pins is not None:
            return self._generate(*args, **kwargs)
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            raise MethodError(
                f"{self.method.name} depends on the final length, which a cached prefix has fixed already; "
                "pin(lengths) by hand before the prefill"
            )
        self.pin(self._final_lengths(args, kwargs))
        try:
            return self._generate(*args, **kwargs)
        finally:
            self.pin(None)

    def _final_lengths(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        given = inspect.signature(self._generate).bind(*args, **kwargs).arguments
        given = given | given.get("kwargs", {})
        prompt = next((given[name] for name in ("inputs", "input_ids", "inputs_embeds") if name in given), None)
        if not isinstance(prompt, Tensor):
            raise MethodError(f"{self.method.name} needs the prompt to know its length; give input_ids to generate")
        mask = given.get("attention_mask")
        counts = [prompt.shape[1]] * len(prompt) if mask is None else mask.sum(-1).tolist()
        config = given.get("generation_config") or self.model.generation_config
        new = given.get("max_new_tokens", config.max_new_tokens)
        if new is None:
            new = max(0, (given.get("max_length", config.max_length) or 20) - prompt.shape[1])
        lengths = [int(count) + int(new) for count in counts]
        if max(lengths) > self.target_length:
            raise MethodError(
                f"prompt and new tokens come to {max(lengths)} tokens, the model is extended to {self.target_length}; "
                "extend with a larger target_length"
            )
        return lengths

    def describe(self) -> str:
        """What is attached, which parameters were chosen and why, in lines for people."""
        spec = self.spec
        kinds = {
            kind: [i for i, layer in enumerate(self.census.layers) if layer.kind == kind]
            for kind in ("sliding", "none")
        }
        lines = [
            f"{self.requested} on {name_of(self.model)}: trained on {spec.pretrained_length} tokens, "
            f"target {self.target_length}",
            f"  rotary: {spec.pairs} pairs ({spec.layout}), {spec.rotary_dim} of {spec.head_dim} dimensions "
            f"from {spec.rotary_start}, table {spec.scaling or 'default'}",
        ]
        for name, (value, reason) in self.requested.why(spec, self.target_length).items():
            lines.append(f"  {name} = {shorten(value)}: {reason}")
        if self.backend == OWN:
            lines.append("  attention, kernels and cache: the model's own; only the rotary table is ours")
        else:
            if self.shared_rotary and not self.plan.takes_attention:
                lines.append("  attention is taken over: layers that stay as they are share the rotary module")
            lines.append(
                f"  attention: backend {self.backend}; the cache holds un-rotated keys, rotated anew when used"
            )
        if kinds["sliding"]:
            lines.append(f"  layers {kinds['sliding']} have a window within the trained length and stay as they are")
        if kinds["none"]:
            lines.append(f"  layers {kinds['none']} do not rotate and stay as they are")
        if self.method.length_dependent:
            lines.append("  depends on the final length: generate pins it per row; pin(lengths) does it by hand")
        if self.comparison is not None:
            lines.append(f"  self-test: largest logit difference to the stock model {self.comparison.difference:g}")
        return "\n".join(lines)

    def citation(self) -> str:
        """BibTeX of the attached method or methods."""
        return self.method.bibtex


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

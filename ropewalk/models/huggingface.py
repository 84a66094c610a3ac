"""`extend`: attach a method to a loaded transformers model; `Extension`: what is attached, and how to take it off."""

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ropewalk.attention.base import choose
from ropewalk.errors import MethodError, ModelError
from ropewalk.methods import Method, parse
from ropewalk.models.admission import Admission, arguments, final_lengths, refuse_beyond, row_lengths
from ropewalk.models.census import Census, refuse_by_family, take_census
from ropewalk.models.describe import OWN, describe
from ropewalk.models.executors import Banded
from ropewalk.models.identity import Comparison, verify
from ropewalk.models.override import Override
from ropewalk.models.paged import ContinuousBatching
from ropewalk.models.seam import Seam, device_of, name_of
from ropewalk.models.table import TableRotary
from ropewalk.rotary import RotarySpec

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from ropewalk.methods.tables import EncoderMethod

MARK = "_ropewalk_extension"  # on the model, while it is extended


def extend(
    model: "PreTrainedModel | SentenceTransformer",
    method: "Method | EncoderMethod | str",
    *,
    target_length: int | None = None,
    backend: str = "auto",
    verify: bool = True,
    pretrained_length: int | None = None,
) -> "Extension":
    """Attach a context-extension method to a loaded RoPE model, in place.

    A method that only changes the frequency table leaves the model's attention and cache as they are. Any other takes
    attention over and has caches hold keys as its bands want them (see `describe()`). Use the result as a context
    manager, or call `remove()`.

    Args:
        model: a causal transformers model (or its base model), an encoder with rotary positions or a position table,
            or a SentenceTransformer, which then also reads `target_length` tokens.
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
    from ropewalk.models.embedding.entry import attach, concerns  # it builds on this module

    if concerns(model, method):
        return attach(  # type: ignore[return-value]  # not an Extension, but removed, described and cited like one
            model,
            method,
            target_length=target_length,
            backend=backend,
            verify=verify,
            pretrained_length=pretrained_length,
        )
    chosen = parse(method) if isinstance(method, str) else method
    assert isinstance(chosen, Method)
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
        choose(backend, plan, device=device_of(model), dtype=model.dtype)
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
        asked_backend: the backend that `extend` was given, "auto" included.
        left_plain: why caches that came by hold un-rotated keys, as keys of a dict.
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
        self.asked_backend = backend
        if takes_attention:
            self.backend = choose(backend, self.plan, device=device_of(model), dtype=model.dtype).name
        self._seam = seam
        self._admission = Admission(method, self.spec, target_length, census.share)
        self._overrides: list[Override] = []
        self._hooks: list[RemovableHandle] = []
        self._batching: ContinuousBatching | None = None
        self.left_plain: dict[str, None] = {}
        model.__dict__[MARK] = self
        try:
            self._install()
        except BaseException:
            self.remove()
            raise

    def _install(self) -> None:
        whole = self.spec.bidirectional and self.method.length_dependent
        if self.backend != OWN:
            banded = Banded(self.census, self._admission.plans, self.asked_backend, self._admission.limits)
            banded.left_plain = self.left_plain
            self._seam.executor = banded
            self._seam.attach()
            self._hooks.append(self.model.register_forward_pre_hook(banded.prepare, with_kwargs=True))
            if whole:
                self._hooks.append(self.model.register_forward_pre_hook(self._admit, with_kwargs=True))
        elif self.plan.table != self.spec.table or self.method.length_dependent:
            self._table = TableRotary(self._seam, self.census, self._admission)
            self._overrides.append(self._table.override)
            self._hooks.append(self.model.register_forward_pre_hook(self._admit, with_kwargs=True))
        if self.method.length_dependent and hasattr(self.model, "generate"):
            self._overrides.append(Override(self.model, "generate", self._pinned_generate))
            self._generate = self._overrides[-1].original
        if hasattr(self.model, "init_continuous_batching"):
            own = self.backend == OWN
            self._batching = ContinuousBatching(self.model, takes_attention=not own, refusal=self._unbatchable)

    def _admit(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward: no row may grow past what it was admitted for; an encoder's rows are what they are."""
        if not self._admission.limited:
            return
        if torch.compiler.is_compiling():  # a graph looks at limits where it attends, or asks for the table
            if self.spec.bidirectional and self.method.length_dependent and not self._admission.pinned:
                raise MethodError(f"{self.method.name} depends on the length, which a graph does not see; pin(lengths)")
            return
        counts = row_lengths(arguments(self.model.forward, args, kwargs))
        if counts is None:
            return
        if self.spec.bidirectional and self.method.length_dependent:
            self._admission.admit_whole(counts)
        limits = self._admission.limits(len(counts))
        for row, count in enumerate(counts):
            refuse_beyond(limits, [row], count)

    def remove(self) -> None:
        """Take the method off: the model is the stock model again, exactly. A second call does nothing."""
        if self.model.__dict__.get(MARK) is not self:
            return
        del self.model.__dict__[MARK]
        self._seam.detach()
        self._seam.executor = None
        if self._batching is not None:
            self._batching.restore()
            self._batching = None
        while self._overrides:
            self._overrides.pop().restore()
        while self._hooks:
            self._hooks.pop().remove()

    @contextlib.contextmanager
    def lifted(self) -> Iterator[None]:
        """The stock model for as long as the context lasts; caches of either are of no use to the other.

        Raises:
            ModelError: this extension was removed.
        """
        if self.model.__dict__.get(MARK) is not self:
            raise ModelError(f"{self.method} is not attached any more, so it cannot be lifted; extend the model again")
        self.remove()
        try:
            yield
        finally:
            self.model.__dict__[MARK] = self
            self._install()

    def __enter__(self) -> "Extension":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _unbatchable(self) -> str | None:
        """Why continuous batching cannot serve texts: it does not say how long each of them may grow."""
        if not self.method.length_dependent or self._admission.same_for_all:
            return None
        return (
            f"{self.method.name} depends on the final length, which continuous batching does not give for each text; "
            "pin([length]) fixes one for all of them, or use generate"
        )

    def pin(self, lengths: list[int] | None) -> None:
        """Fix the final length, tokens, of every row of the batch that follows, for methods that depend on it.

        Call it before the prefill and leave it until the rows are done: cached keys were made for these lengths. None
        goes back to `target_length` for every row.

        Raises:
            MethodError: no length, or one that is not between 1 and `target_length`.
        """
        self._admission.pin(lengths)

    def _pinned_generate(self, *args: Any, **kwargs: Any) -> Any:
        """`generate` that pins every row at prompt + new tokens, unless rows are pinned by hand."""
        if self._admission.pinned:
            return self._generate(*args, **kwargs)
        given = arguments(self._generate, args, kwargs)
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            raise MethodError(
                f"{self.method.name} depends on the final length, which a cached prefix has fixed already; "
                "pin(lengths) by hand before the prefill"
            )
        self.pin(final_lengths(given, self.model.generation_config, self.target_length))
        try:
            return self._generate(*args, **kwargs)
        finally:
            self.pin(None)

    def describe(self) -> str:
        """What is attached, which parameters were chosen and why, in lines for people."""
        return describe(self)

    def citation(self) -> str:
        """BibTeX of the attached method or methods."""
        return self.method.bibtex

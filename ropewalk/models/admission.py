"""How long every row of a batch may grow, and which plan it has therefore.

A method that depends on the length of a text fixes it per row when the row is admitted (prompt + new tokens), never by
the longest row of the batch: a row's result may not depend on its neighbours, and cached keys stay valid.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from ropewalk.errors import MethodError
from ropewalk.methods import Method
from ropewalk.models.heads import WHOLE, Share, own_heads
from ropewalk.plan import Plan
from ropewalk.rotary import RotarySpec

Rows = Callable[[int], list[Plan]]  # the plan of every row of a batch of so many rows
Limits = Callable[[int], list[int] | None]  # the tokens that every row may reach


class Admission:
    """The pinned lengths of rows, and the plans that follow from a filled method.

    Attributes:
        target_length: what a row that is not pinned may grow to, tokens.
        share: of the query heads, that plans are for.
    """

    def __init__(self, method: Method, spec: RotarySpec, target_length: int, share: Share = WHOLE) -> None:
        self.method = method
        self.share = share
        self.spec = spec
        self.target_length = target_length
        self._pins: list[int] | None = None
        self._whole: list[int] | None = None
        self._plans: dict[int, Plan] = {}

    @property
    def pinned(self) -> bool:
        return self._pins is not None

    @property
    def same_for_all(self) -> bool:
        """Whether one length was pinned, which rows of any number share."""
        return self._pins is not None and len(self._pins) == 1

    def pin(self, lengths: list[int] | None) -> None:
        """See `Extension.pin`."""
        if lengths is not None and (not lengths or not all(1 <= n <= self.target_length for n in lengths)):
            raise MethodError(
                f"pin wants lengths between 1 and target_length={self.target_length} tokens, got {lengths}"
            )
        self._pins = None if lengths is None else list(lengths)

    @property
    def limited(self) -> bool:
        """Whether anything limits how far a row may grow."""
        return self.method.length_dependent or self.method.reach(self.spec) is not None

    def admit_whole(self, lengths: list[int]) -> None:
        """Rows that do not grow any more (an encoder's): what they have is their final length, unless it is pinned."""
        refuse_beyond([self.target_length] * len(lengths), range(len(lengths)), max(lengths))
        self._whole = [max(1, length) for length in lengths]

    def lengths(self, batch: int) -> list[int]:
        """The final length of every row; beams and several sequences per prompt repeat pinned rows."""
        known = self._whole if self._pins is None else self._pins
        if known is None or not self.method.length_dependent:
            return [self.target_length] * batch
        repeats, rest = divmod(batch, len(known))
        if rest:
            raise MethodError(f"{len(known)} rows are pinned and a batch of {batch} arrived; pin one length per row")
        return [n for n in known for _ in range(repeats)]

    def plans(self, batch: int) -> list[Plan]:
        """The plan of every row."""
        lengths = self.lengths(batch)
        for length in set(lengths) - self._plans.keys():
            self._plans[length] = own_heads(self.method.plan(self.spec, length), self.share)
        return [self._plans[length] for length in lengths]

    def limits(self, batch: int) -> list[int] | None:
        """Tokens that every row may reach: its final length, or the reach of the method; None where nothing limits."""
        if self.method.length_dependent:
            return self.lengths(batch)
        reach = self.method.reach(self.spec)
        return None if reach is None else [reach] * batch


def refuse_beyond(limits: list[int] | None, rows: Iterable[int], length: int) -> None:
    """Raise MethodError when one of the rows grows past what it was admitted for."""
    if limits is None:
        return
    limit = min(limits[row] for row in rows)
    if length > limit:
        raise MethodError(
            f"a row grew to {length} tokens and was admitted for {limit}; "
            "extend with a larger target_length, or pin a larger length and prefill again"
        )


def row_lengths(given: dict[str, Any]) -> list[int] | None:
    """Tokens of every row, cached ones included, from the arguments of a forward; None without tokens."""
    tokens = given.get("input_ids") if given.get("input_ids") is not None else given.get("inputs_embeds")
    if tokens is None:
        return None
    if given.get("cu_seq_lens_q") is not None:  # packed texts, each of which counts from 0
        return [int(given["position_ids"].max()) + 1]
    batch, new = tokens.shape[:2]
    cache, visible = given.get("past_key_values"), given.get("attention_mask")
    if visible is not None and visible.ndim == 2:
        return [int(count) for count in visible.sum(-1).tolist()]
    return [new + (0 if cache is None else int(cache.get_seq_length()))] * batch


def arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What each parameter of a call is, by name, however it was given."""
    given = inspect.signature(function).bind_partial(*args, **kwargs).arguments
    return given | given.get("kwargs", {})


def final_lengths(given: dict[str, Any], default: Any, target_length: int) -> list[int]:
    """Prompt + new tokens of every row of a call to `generate`.

    Args:
        given: the arguments of the call, by name.
        default: the model's generation configuration.
        target_length: tokens that the model is extended to.
    """
    prompt = next((given[name] for name in ("inputs", "input_ids", "inputs_embeds") if name in given), None)
    if not isinstance(prompt, Tensor):
        raise MethodError("a method that depends on the length needs the prompt; give input_ids to generate")
    mask = given.get("attention_mask")
    counts = [prompt.shape[1]] * len(prompt) if mask is None else mask.sum(-1).tolist()
    config = given.get("generation_config") or default
    new = given.get("max_new_tokens", config.max_new_tokens)
    if new is None:
        new = max(0, (given.get("max_length", config.max_length) or 20) - prompt.shape[1])
    lengths = [int(count) + int(new) for count in counts]
    if max(lengths) > target_length:
        raise MethodError(
            f"prompt and new tokens come to {max(lengths)} tokens, the model is extended to {target_length}; "
            "extend with a larger target_length"
        )
    return lengths

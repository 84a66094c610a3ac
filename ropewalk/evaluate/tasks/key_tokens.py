"""Key tokens: those that a model predicts well with a long context and badly with a short one (arXiv 2410.23771)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.prefill import prefill


@dataclass(frozen=True)
class Contexts:
    """What an evaluator sees of a text, tokens.

    Attributes:
        window: its trained window. Of a text that is longer, the long context of a token is what the window holds: from
            7/8 of the window on, because an eighth of it shares one beginning.
        short: of the short context; `step` consecutive tokens share its beginning, so it has short to
            short + step - 1 tokens.
        step: see `short`.
    """

    window: int
    short: int
    step: int

    @property
    def stride(self) -> int:
        """Tokens beyond the window whose long contexts begin at the same token."""
        return max(1, self.window // 8)

    @property
    def smallest(self) -> int:
        """Tokens of a text of which a step's worth has longer contexts than the short one."""
        return self.short + 2 * self.step

    def check(self, evaluator: str) -> None:
        """Raise EvaluationError where the window has no room for a context longer than the short one."""
        if self.window - self.stride < self.smallest:
            raise EvaluationError(
                f"{evaluator} was trained on {self.window} tokens, wanted {-(-8 * self.smallest // 7)} or more to tell "
                f"contexts of {self.short} tokens from longer ones; give a smaller short context or another evaluator"
            )


def key_tokens(
    evaluator: PreTrainedModel,
    ids: Sequence[int],
    contexts: Contexts,
    *,
    gain: float,
    known: float,
    progress: Callable[[float], None] | None = None,
) -> list[int]:
    """Indices of the tokens with loss_short - loss_long > gain and loss_long < known, ascending.

    loss_long has all the text before a token where the window holds it. Contexts are slices of `ids`: no start token is
    put before them.

    Args:
        evaluator: without an extension.
        ids: of the text, with its start tokens.
        gain, known: nats.
        progress: called with the fraction done.
    """
    window, short, length = contexts.window, contexts.short, len(ids)
    # (first token scored, one past the last, first token of its context)
    long = [(1, min(window, length), 0)]
    for first in range(window, length, contexts.stride):
        last = min(first + contexts.stride, length)
        long.append((first, last, last - window))
    brief = [
        (first, min(first + contexts.step, length), first - short) for first in range(short, length, contexts.step)
    ]
    work = sum(last - begin for _, last, begin in long + brief)
    done = 0

    def losses(places: list[tuple[int, int, int]]) -> Tensor:
        nonlocal done
        found = []
        for first, last, begin in places:
            found.append(prefill(evaluator, ids[begin:last], keep=last - first).losses)
            done += last - begin
            if progress:
                progress(done / work)
        return torch.cat(found)

    loss_long, loss_short = losses(long)[short - 1 :], losses(brief)
    is_key = (loss_short - loss_long > gain) & (loss_long < known)
    return (short + torch.nonzero(is_key).flatten()).tolist()

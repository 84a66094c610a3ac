"""What asking an endpoint takes: tokens and money, before and while it is asked."""

from dataclasses import dataclass

from ropewalk.evaluate.endpoint.answer import Said


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked, before the first request.

    The first sample of each task and length that is not stored is built, and the others of it are taken to be as long.

    Attributes:
        samples, stored: all, and those that the store holds already.
        requests: one for each question of the others.
        prompt_tokens: as the tokenizer counts them.
        completion_tokens: the most that may be generated.
        cost: of both, without retries; None without prices.
    """

    samples: int
    stored: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost up to {self.cost:.2f}"
        return (
            f"{self.samples - self.stored} samples to ask ({self.stored} stored): {self.requests:,} requests, "
            f"{self.prompt_tokens:,} prompt tokens and up to {self.completion_tokens:,} to generate{cost}"
        )


@dataclass
class Spent:
    """What one run has spent so far.

    Attributes:
        requests: answered; `retries`: what it took beyond one request each, failed ones included.
        prompt_tokens, completion_tokens: of the answers, as the server says.
        counted: answers without the server's own count, whose tokens the tokenizer counted.
        empty: answers without a word, by a model that ended at once.
        cost: None without prices.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: int = 0
    empty: int = 0
    cost: float | None = None

    def add(self, said: Said, cost: float | None) -> None:
        """An answer, with its tokens filled in, and what it cost."""
        self.requests += 1
        self.retries += said.retries
        self.prompt_tokens += said.prompt_tokens or 0
        self.completion_tokens += said.completion_tokens or 0
        self.counted += said.counted
        self.empty += not said.text
        if cost is not None:
            self.cost = (self.cost or 0.0) + cost

    def __str__(self) -> str:
        parts = [f"{self.requests:,} requests ({self.retries:,} retries)"]
        by = f" ({self.counted:,} answers counted by the tokenizer)" if self.counted else ""
        parts.append(f"{self.prompt_tokens:,} prompt and {self.completion_tokens:,} generated tokens{by}")
        if self.empty:
            parts.append(f"{self.empty:,} empty answers")
        if self.cost is not None:
            parts.append(f"cost {self.cost:.4f}")
        return ", ".join(parts)

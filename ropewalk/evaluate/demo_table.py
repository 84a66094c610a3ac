"""The demo's table, filled while the methods run."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ropewalk.lengths import format_length

STAGES = {"load": "loading", "attach": "attaching", "read": "reading", "ask": "asking", "done": "done"}


class Board:
    """A live table with a row for each method; on a console that is no terminal, a line at every quarter of a stage."""

    def __init__(self, console: Console, methods: Sequence[str], window: int, question: str) -> None:
        self.console = console
        self.window = window
        self.question = question
        self.states: dict[str, dict[str, Any]] = {method: {"stage": "waiting", "fraction": 0.0} for method in methods}
        self.began: dict[str, float] = {}
        self.live = Live(get_renderable=self.table, console=console, refresh_per_second=2, transient=False)

    def __enter__(self) -> "Board":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        elif error is None:
            self.console.print(self.table())

    def update(self, method: str, event: dict[str, Any]) -> None:
        """Take in an event of `ropewalk.evaluate.demo.measure`."""
        before, self.states[method] = self.states[method], event
        self.began.setdefault(method, time.perf_counter())
        news = (before["stage"], int(4 * before["fraction"])) != (event["stage"], int(4 * event["fraction"]))
        if news and not self.console.is_terminal:
            took = time.perf_counter() - self.began[method]
            self.console.print(f"{method}: {_progress(event)} ({took:.0f} s)")

    def table(self) -> Table:
        """The table as things stand."""
        window = format_length(self.window)
        table = Table(
            box=SIMPLE_HEAD,
            caption="log p: of the true answers; loss: nats per token; all methods on the same document",
        )
        table.add_column("method")
        table.add_column("facts found", no_wrap=True)
        table.add_column("log p", justify="right")
        for title in (f"loss to {window}", f"past {window}", "last 1k"):
            table.add_column(title, justify="right")
        table.add_column(f"{self.question} ...")
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("peak", justify="right", no_wrap=True)
        for method, state in self.states.items():
            table.add_row(method, *(self._cells(state) if "result" in state else self._waiting(method, state)))
        return table

    def _waiting(self, method: str, state: dict[str, Any]) -> list[str]:
        took = f"{time.perf_counter() - self.began[method]:.0f} s" if method in self.began else ""
        return [f"[dim]{_progress(state)}[/dim]", "", "", "", "", "", took, ""]

    def _cells(self, state: dict[str, Any]) -> list[str]:
        result = state["result"]
        details = result["details"][0]
        low, high = result["ci95"]
        inside, beyond = split_loss(details["loss_by_position"], self.window)
        text = " ".join(details["answers"][0]["text"].split())
        return [
            f"[bold]{round(result['score'] * result['n'])}/{result['n']}[/bold] ({100 * low:.0f}-{high:.0%})",
            f"{details['log_probability']:.2f}",
            *(f"{loss:.2f}" if loss is not None else "" for loss in (inside, beyond, details["loss_last"])),
            escape(text),
            f"{result['seconds']:.0f} s",
            f"{state['peak_bytes'] / 2**30:.1f} GiB",
        ]


def split_loss(stretches: Sequence[Sequence[float]], window: int) -> tuple[float | None, float | None]:
    """Mean loss of the stretches (first, last, loss) that end inside the window, and of those that begin past it."""
    inside = [loss for _, last, loss in stretches if last <= window]
    beyond = [loss for first, _, loss in stretches if first >= window]
    return _mean(inside), _mean(beyond)


def _mean(losses: list[float]) -> float | None:
    return sum(losses) / len(losses) if losses else None


def _progress(state: dict[str, Any]) -> str:
    name = STAGES.get(state["stage"], state["stage"])
    return f"{name} {state['fraction']:.0%}" if state["stage"] in ("read", "ask") else name

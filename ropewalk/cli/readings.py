"""Progress of a calibration in the terminal."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


class Readings:
    """Shows lines as they come, and how far the document that is read now is.

    Args:
        bar: of the terminal.
    """

    def __init__(self, bar: "Progress") -> None:
        self.bar = bar
        self.line = bar.add_task("starting", total=1.0)
        self.done = 0

    def say(self, text: str) -> None:
        self.bar.console.print(text, markup=False, soft_wrap=True)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["stage"] == "done":
            self.done += 1
        # Asking takes a small part of the time of reading.
        part = {"attach": 0.0, "read": 0.9 * event["fraction"], "ask": 0.9 + 0.1 * event["fraction"]}
        title = f"reading {self.done + 1}, {event['unit']['method']}, document {event['unit']['document']}"
        self.bar.update(self.line, description=title, completed=part.get(event["stage"], 1.0))

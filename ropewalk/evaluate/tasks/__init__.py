"""The tasks by name."""

from ropewalk.evaluate.tasks import (  # noqa: F401  (they register themselves)
    four,
    grid,
    longppl,
    passkey,
    perplexity,
    retrieval,
    sliding,
)
from ropewalk.evaluate.tasks.base import TASKS, Piece, Question, Report, Sample, Task, TextTask

__all__ = ["TASKS", "Piece", "Question", "Report", "Sample", "Task", "TextTask"]

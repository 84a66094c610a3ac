"""The tasks by name."""

from ropewalk.evaluate.tasks import perplexity, retrieval  # noqa: F401  (they register themselves)
from ropewalk.evaluate.tasks.base import TASKS, Piece, Question, Report, Sample, Task, TextTask

__all__ = ["TASKS", "Piece", "Question", "Report", "Sample", "Task", "TextTask"]

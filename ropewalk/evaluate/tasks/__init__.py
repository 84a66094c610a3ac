"""The tasks by name."""

from ropewalk.evaluate.tasks import perplexity, retrieval  # noqa: F401  (they register themselves)
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task

__all__ = ["TASKS", "Report", "Sample", "Task"]

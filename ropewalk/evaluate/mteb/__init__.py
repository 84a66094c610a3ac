"""The bridge to MTEB: its tasks with an extended embedding model, every query in our store.

From Python `run_mteb`, from the command line `ropewalk mteb`. The scores are MTEB's own. Where only the extended model
is wanted, no bridge is needed: `mteb.evaluate` takes a SentenceTransformer that `ropewalk.extend` has extended as it
takes any other.
"""

from ropewalk.errors import EvaluationError

try:
    import mteb  # noqa: F401
except ModuleNotFoundError as error:
    raise EvaluationError(f"mteb is missing ({error}); pip install 'ropewalk[mteb]'") from error

from ropewalk.evaluate.mteb.collection import load_tasks, own_task
from ropewalk.evaluate.mteb.run import Step, run_mteb

__all__ = ["Step", "load_tasks", "own_task", "run_mteb"]

"""The bridge to lm-evaluation-harness: its tasks with an extended model, their samples in our store.

From Python `run_harness`, from the command line `ropewalk harness`. Importing this package also makes the harness know
the model "ropewalk", so that its own command line has it:

    python -c "import ropewalk.evaluate.harness; from lm_eval.__main__ import cli_evaluate; cli_evaluate()" \\
        --model ropewalk --model_args pretrained=MODEL,method=dpe,target_length=32k --tasks longbench2
"""

from ropewalk.errors import EvaluationError

try:
    import lm_eval  # noqa: F401
except ModuleNotFoundError as error:
    raise EvaluationError(f"lm-evaluation-harness is missing ({error}); pip install 'ropewalk[eval]'") from error

from ropewalk.evaluate.harness.model import ExtendedLM
from ropewalk.evaluate.harness.run import Step, run_harness
from ropewalk.evaluate.harness.scores import shortened

__all__ = ["ExtendedLM", "Step", "run_harness", "shortened"]

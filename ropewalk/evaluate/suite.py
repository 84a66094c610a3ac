"""Tasks and suites of tasks by the names that the command line takes."""

from collections.abc import Sequence

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.ruler.questions import load_hotpotqa, load_squad
from ropewalk.evaluate.ruler.sample import MODES
from ropewalk.evaluate.ruler.suite import FAMILIES, OFFLINE, SYNTHETIC
from ropewalk.evaluate.ruler.task import Ruler
from ropewalk.evaluate.tasks import TASKS, Task
from ropewalk.evaluate.tasks.longppl import LongPPL
from ropewalk.evaluate.unit import Setup
from ropewalk.registry import unknown

SUITES: dict[str, tuple[str, ...]] = {
    "ruler": OFFLINE,
    "ruler-qa": SYNTHETIC,
    "lm": ("perplexity", "perplexity-sliding", "longppl"),
    "needles": ("needle", "needle-grid", "needle-four", "needle-string", "passkey"),
}


def names() -> list[str]:
    """Every suite and task."""
    return [*SUITES, *TASKS.names(), *FAMILIES.names()]


def expand(wanted: Sequence[str], setup: Setup) -> list[str]:
    """The names of tasks for names of suites and tasks, each once; "ruler" holds qa_1 and qa_2 where files are given.

    Raises:
        EvaluationError: an unknown name.
    """
    tasks: list[str] = []
    for name in wanted:
        if name not in names():
            raise EvaluationError(unknown("task", name, names()))
        tasks += SUITES.get(name, (name,))
        if name == "ruler":
            tasks += [task for task, file in (("qa_1", setup.squad), ("qa_2", setup.hotpotqa)) if file]
    return list(dict.fromkeys(tasks))


def make_task(name: str, setup: Setup) -> Task:
    """The task of a name.

    Raises:
        EvaluationError: an unknown name or mode, or a question file that is missing or malformed.
    """
    if name == "longppl" and setup.evaluator:
        return LongPPL(setup.evaluator)
    if name in TASKS.names():
        return TASKS.get(name)
    if name not in FAMILIES.names():
        raise EvaluationError(unknown("task", name, names()))
    if setup.mode not in MODES:
        raise EvaluationError(unknown("mode", setup.mode, list(MODES)))
    questions = None
    if name == "qa_1" and setup.squad:
        questions = load_squad(setup.squad)
    elif name == "qa_2" and setup.hotpotqa:
        questions = load_hotpotqa(setup.hotpotqa)
    return Ruler(name, mode=setup.mode, template=setup.template, questions=questions)

"""Score the stock model under a control: a sample that pairs with that of the whole prompt."""

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.evaluate.controls import Prompt, golds, resolve, shortened
from ropewalk.evaluate.document import Document
from ropewalk.evaluate.tasks.base import Piece, Report, Sample, Task, TextTask

# Positions of a shortened prompt are not those of the document.
_LOSSES = ("loss", "loss_last", "loss_by_position")
# Of tasks whose prompts can be asked several questions: joined, and averaged.
_JOINED, _MEANS = "answers", ("log_probability", "chosen")


def measure_controlled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    document: Document,
    control: str,
    *,
    window: int,
    report: Report,
) -> Sample:
    """Score a stock model on the shortened prompts of a document; each different prompt is read once.

    The scores stand in the order of the questions of the whole document. The details hold, by question: `tokens` read;
    `pieces` kept and `golds_kept`, the share of the pieces with the answer that are among them (None where tokens were
    cut and not pieces); `depths` of the first such piece in the whole document, in characters of all pieces, where
    there is one. Then what the task says of its prompts, but for the losses by position.

    Args:
        model: without an extension.
        control, window: see `ropewalk.evaluate.controls.controlled`, and its errors.
    """
    prompts = shortened(task, tokenizer, document, control, window)
    samples: list[Sample] = []
    for prompt in prompts:

        def part(stage: str, fraction: float, done: int = len(samples)) -> None:
            report(stage, (done + fraction) / len(prompts))

        samples.append(task.measure(model, tokenizer, prompt.document, report=part))
    assert isinstance(task, TextTask)
    order = [question for prompt in prompts for question in prompt.questions]
    scores = [score for sample in samples for score in sample.scores]
    by_question = dict(zip(order, scores, strict=True))
    # What a task says of one prompt goes first: `tokens` and `depths` are by question here.
    details = {
        "control": resolve(control, window),
        "window": window,
        **_joined(samples),
        **_by_question(prompts, task.pieces(tokenizer, document), len(order)),
    }
    return Sample(
        tuple(by_question[question] for question in range(len(order))),
        sum(sample.n for sample in samples),
        sum(sample.prefill_seconds for sample in samples),
        details,
    )


def _by_question(prompts: list[Prompt], pieces: tuple[Piece, ...], questions: int) -> dict[str, Any]:
    owner = {question: prompt for prompt in prompts for question in prompt.questions}
    kept = [owner[question].kept for question in range(questions)]
    answers = [golds(pieces, question) for question in range(questions)]
    shares = [
        len(set(gold) & set(have)) / len(gold) if gold and have is not None else None
        for gold, have in zip(answers, kept, strict=True)
    ]
    found: dict[str, Any] = {
        "tokens": [len(owner[question].document.ids) for question in range(questions)],
        "pieces": [None if have is None else list(have) for have in kept],
        "golds_kept": shares,
    }
    if all(answers):
        before = [0]
        for piece in pieces:
            before.append(before[-1] + len(piece.text))
        found["depths"] = [before[gold[0]] / before[-1] for gold in answers]
    return found


def _joined(samples: list[Sample]) -> dict[str, Any]:
    """The details of several prompts as those of one."""
    details = [sample.details for sample in samples]
    if len(details) == 1:
        return {name: value for name, value in details[0].items() if name not in (*_LOSSES, "depths")}
    joined: dict[str, Any] = {
        name: sum(one[name] for one in details) / len(details) for name in _MEANS if all(name in one for one in details)
    }
    if all(_JOINED in one for one in details):
        joined[_JOINED] = [answer for one in details for answer in one[_JOINED]]
    return joined

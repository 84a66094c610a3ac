"""What stands around a task: the turns of a chat, or nothing."""

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import encode, start_tokens

# Where the task goes in a template of the user's, as in NVIDIA's scripts/data/template.py.
SLOT = "{task_template}"


@dataclass(frozen=True)
class Frame:
    """Text before and after the task; the answer prefix follows `after`, so the model continues a begun sentence.

    Attributes:
        start: the tokenizer's start token, where the text before does not begin with it already.
    """

    before: str
    after: str
    start: tuple[int, ...]


NOTHING = Frame("", "", ())


def frame(tokenizer: PreTrainedTokenizerBase, template: str) -> Frame:
    """The frame of a template.

    Args:
        template: "base", nothing around the task; "chat", the tokenizer's own chat template with one user turn and the
            assistant's begun; or a text with {task_template} once, such as "[INST] {task_template} [/INST]".

    Raises:
        EvaluationError: an unknown template, or a tokenizer whose chat template is missing or does not work for this.
    """
    if template == "base":
        whole = SLOT
    elif template == "chat":
        whole = _chat(tokenizer)
    else:
        whole = template
    if whole.count(SLOT) != 1:
        raise EvaluationError(
            f"template {template!r} has no single place for a task; give base, chat or a text with {SLOT}"
        )
    before, after = whole.split(SLOT)
    start = start_tokens(tokenizer)
    # Most chat templates write the start token themselves; twice is not what any model was trained on.
    if start and encode(tokenizer, before)[: len(start)] == start:
        start = []
    return Frame(before, after, tuple(start))


def _chat(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise EvaluationError("this tokenizer has no chat template; use the template base, or give one as a text")
    turns = [{"role": "user", "content": SLOT}]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (TemplateError, ValueError) as error:
        raise EvaluationError(f"this tokenizer's chat template refuses one user turn ({error}); use base") from error

"""The pieces of a sample's context, and the sample that has only some of them."""

import re
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from ropewalk.evaluate.document import encode
from ropewalk.evaluate.ruler.sample import RulerSample
from ropewalk.evaluate.ruler.suite import FAMILIES
from ropewalk.evaluate.ruler.template import frame
from ropewalk.evaluate.tasks.base import Piece


def pieces(sample: RulerSample) -> tuple[Piece, ...]:
    """Sentences, lines, documents or words, as the task has them, each with what separates it from the next one.

    A piece that shares a character with a statement that carries the answer has the gold 0. Of a statement that stands
    there more than once, as paragraphs do in compat mode past the end of a file, it is the first.
    """
    begin, end = sample.context
    context = sample.prompt[begin:end]
    cuts = [match.end() for match in re.finditer(FAMILIES.get(sample.task).between, context)]
    golds = [(at, at + len(gold)) for gold in sample.golds for at in [context.index(gold)]]
    found = []
    for first, last in zip([0, *cuts], [*cuts, len(context)], strict=True):
        holds = any(start < last and first < stop for start, stop in golds)
        found.append(Piece(context[first:last], frozenset({0}) if holds else frozenset()))
    return tuple(found)


def shorten(sample: RulerSample, tokenizer: PreTrainedTokenizerBase, kept: Sequence[int]) -> RulerSample:
    """The sample with only those pieces of its context (indices, ascending); numbers of documents stay as they were."""
    whole = pieces(sample)
    context = "".join(whole[index].text for index in kept)
    if not kept or kept[-1] < len(whole) - 1:
        context = context.rstrip()
    begin, end = sample.context
    prompt = sample.prompt[:begin] + context + sample.prompt[end:]
    golds = tuple(gold for gold in sample.golds if gold.rstrip() in context)
    return replace(
        sample,
        prompt=prompt,
        ids=(*frame(tokenizer, sample.template).start, *encode(tokenizer, prompt + sample.answer_prefix)),
        depths=tuple((begin + context.index(gold.rstrip())) / len(prompt) for gold in golds),
        context=(begin, begin + len(context)),
        golds=golds,
    )

"""The trained fixture as a model to calibrate: its needles as a task of evaluation, and a tokenizer for its ids."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Generator
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ropewalk.evaluate.document import Document
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import Sample, Task
from tests.fixture import recipe


@dataclass(frozen=True)
class Bindings(Document):
    """A document of the fixture: `asked` holds (query token, value token) of every needle."""

    asked: tuple[tuple[int, int], ...]


class FixtureNeedles(Task):
    """Eight needles in filler, each asked for after the document: the log-probability of its value."""

    name = "fixture-needles"
    protocol = "fixture-needles/1"
    metric = "retrieved"

    def build(self, tokenizer, length, *, seed, corpus):
        generator = Generator().manual_seed(seed)
        keys, values = recipe.bindings(1, generator)
        slots = 2 * torch.rand(1, length // 2 - 1, generator=generator).argsort(dim=1)[:, : recipe.NEEDLES]
        query_at = torch.full((1, 1), length - 2)
        placed = recipe.place(1, length, keys, values, needle_at=slots, query_at=query_at, generator=generator)
        ids = tuple(placed.tokens[0, : length - 2].tolist())
        pairs = zip(keys[0].tolist(), values[0].tolist(), strict=True)
        asked = tuple((recipe.FIRST_QUERY + key, recipe.FIRST_VALUE + value) for key, value in pairs)
        return Bindings(ids, (True,) * len(ids), seed, corpus, 0, asked=asked)

    def measure(self, model, tokenizer, document, *, report):
        read = prefill(model, document.ids, keep=32)
        answers, hits = [], []
        with torch.inference_mode():
            for query, value in document.asked:
                out = model(input_ids=torch.tensor([[query]]), past_key_values=read.cache, use_cache=True).logits[0, -1]
                read.cache.crop(-1)
                answers.append({"log_probability": out.log_softmax(-1)[value].item()})
                hits.append(float(out.argmax() == value))
        report("ask", 1.0)
        mean = sum(each["log_probability"] for each in answers) / len(answers)
        details = {"log_probability": mean, "loss_last": read.losses.mean().item(), "answers": answers}
        return Sample(tuple(hits), len(hits), read.seconds, details)


def load():
    """The fixture and a tokenizer that calls its ids t0, t1, ..."""
    words = Tokenizer(models.WordLevel({f"t{index}": index for index in range(recipe.VOCABULARY)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="t0")
    return LlamaForCausalLM.from_pretrained(recipe.TINY).eval(), tokenizer

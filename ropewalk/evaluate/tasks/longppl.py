"""LongPPL: perplexity of the tokens that need a long context (Fang et al., arXiv 2410.23771)."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.document import Document, encode, start_tokens
from ropewalk.evaluate.fingerprint import model_sha256, prompt_sha256, tokenizer_sha256
from ropewalk.evaluate.losses import perplexity
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks.base import TASKS, Report, Sample, Task
from ropewalk.evaluate.tasks.key_tokens import Contexts, key_tokens
from ropewalk.evaluate.tasks.perplexity import text_losses
from ropewalk.evaluate.tasks.running import RunningText, running_text, token_ends
from ropewalk.models.huggingface import MARK, Extension
from ropewalk.models.loading import load_model
from ropewalk.models.spec import spec_from_config

# The authors' defaults (longppl 0.3.0, compute_longppl): contexts in tokens, nats.
SHORT = 4096
STEP = 1024
GAIN = 2.0
KNOWN = 2.0


@dataclass(frozen=True)
class _Found:
    """The key tokens of one document: indices in it."""

    evaluator_sha256: str
    prompt_sha256: str
    contexts: Contexts
    keys: tuple[int, ...]


class LongPPL(Task):
    """Nats per key token; exp of it, over one document, is that document's LongPPL ("longppl" in the details).

    A token is key where an evaluator's loss falls by more than `gain` nats when it sees more than the `short` tokens
    before it, to below `known` nats. The paper's evaluators are strong long-context models (Qwen2-72B, Mistral Large 2,
    Llama-3.1-8B). Where none is given, it is the evaluated model itself, without any method and never beyond its
    trained window: the key tokens of a longer document are those that need more than the short context and less than
    that window, and the score says whether a method, reading the whole document, still predicts them. Key tokens are
    the same for every method, and found once for a document. The protocol id says which evaluator it was; numbers of
    different ones do not compare.

    Other than the authors' code: the evaluated model's text begins with its start token; an evaluator never reads
    beyond its trained window; documents are averaged over all their key tokens in nats, where the authors average the
    perplexities of documents, weighted by key tokens. As theirs: an evaluator with another tokenizer marks stretches
    of text, and a token is key where all of its text is marked.

    Args:
        evaluator: a model source, see `ropewalk.models.source.locate`; None: the evaluated model.
        name: that it is registered under.
        short, step: see `ropewalk.evaluate.tasks.key_tokens.Contexts`; None: the paper's SHORT and STEP, or 1/8 and
            1/32 of the evaluator's window where that is less. So SmolLM2 (window 8192) finds 8 key tokens in 8192
            tokens of Moby-Dick, where the paper's 4096 gives none, and 7 in as many of the addresses.
        gain, known: nats.
    """

    metric = "nats_per_key_token"

    def __init__(
        self,
        evaluator: str | None = None,
        *,
        name: str = "longppl",
        short: int | None = None,
        step: int | None = None,
        gain: float = GAIN,
        known: float = KNOWN,
    ) -> None:
        self.name = name
        self.evaluator = evaluator
        self.short = short
        self.step = step
        self.gain = gain
        self.known = known
        who = evaluator or "itself-stock-in-window"
        which = (
            f"short{short or f'=min({SHORT},window/8)'}",
            f"step{step or f'=min({STEP},window/32)'}",
            f"gain{gain:g}",
            f"known{known:g}",
        )
        self.protocol = f"longppl[{who},{','.join(which)}]/1"
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._found: _Found | None = None  # in the last document

    def build(self, tokenizer: PreTrainedTokenizerBase, length: int, *, seed: int, corpus: str) -> RunningText:
        """Exactly `length` tokens of consecutive paragraphs; see `Task.build`."""
        rng = random.Random(f"longppl {seed}")
        return running_text(tokenizer, length, begin=start_tokens(tokenizer), rng=rng, seed=seed, corpus=corpus)

    def prepare(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> None:
        """Find the key tokens; errors of `measure`."""
        self._keys(model, tokenizer, document, report)

    def measure(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, *, report: Report
    ) -> Sample:
        """Find the key tokens, once for a document, then read it; one score per key token; see `Task.measure`.

        Raises:
            EvaluationError: an evaluator whose window is too short, a document that is, or one without key tokens.
            ModelError: an evaluator that cannot be loaded.
        """
        assert isinstance(document, RunningText), f"{self.name} scores the documents that it builds"
        found = self._keys(model, tokenizer, document, report)
        read = prefill(model, document.ids, progress=lambda done: report("read", 0.5 + done / 2))
        scores = tuple(read.losses[index - 1].item() for index in found.keys)
        details = {
            **text_losses(read.losses, document),
            "longppl": perplexity(sum(scores) / len(scores)),
            "key_tokens": list(found.keys),
            "evaluator": self.evaluator,
            "evaluator_sha256": found.evaluator_sha256,
            "evaluator_window": found.contexts.window,
            "short": found.contexts.short,
            "step": found.contexts.step,
        }
        return Sample(scores, len(found.keys), read.seconds, details)

    def _keys(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, document: Document, report: Report
    ) -> "_Found":
        assert isinstance(document, RunningText), f"{self.name} scores the documents that it builds"
        evaluator, its_tokenizer = self._evaluator(model, tokenizer)
        attached: Extension | None = evaluator.__dict__.get(MARK)
        spec = attached.spec if attached else spec_from_config(evaluator.config)
        contexts = self._contexts(spec.pretrained_length)
        if len(document.ids) < contexts.smallest:
            raise EvaluationError(
                f"{self.name}: a document of {len(document.ids)} tokens has no long contexts beside short ones of "
                f"{contexts.short}; ask for {contexts.smallest} tokens or more"
            )
        sha256, prompt = model_sha256(evaluator), prompt_sha256(document.ids)
        if self._found is None or (self._found.evaluator_sha256, self._found.prompt_sha256) != (sha256, prompt):
            with attached.lifted() if attached else nullcontext():
                keys = self._key_tokens(evaluator, its_tokenizer, tokenizer, document, contexts, report)
            self._found = _Found(sha256, prompt, contexts, tuple(keys))
        if not self._found.keys:
            raise EvaluationError(
                f"{self.name}: none of the {len(document.ids)} tokens of document {document.seed} needs a long context "
                f"({self.protocol}); ask for a longer document, or give a stronger evaluator"
            )
        return self._found

    def _evaluator(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The evaluator and its tokenizer, loaded once."""
        if self.evaluator is None:
            return model, tokenizer
        if self._loaded is None:
            loaded, its_tokenizer = load_model(self.evaluator)
            self._loaded = (loaded.to(model.device), its_tokenizer)
        return self._loaded

    def _contexts(self, window: int) -> Contexts:
        short, step = min(SHORT, max(1, window // 8)), min(STEP, max(1, window // 32))
        contexts = Contexts(window, self.short or short, self.step or step)
        contexts.check(self.evaluator or "the evaluated model")
        return contexts

    def _key_tokens(
        self,
        evaluator: PreTrainedModel,
        its_tokenizer: PreTrainedTokenizerBase,
        tokenizer: PreTrainedTokenizerBase,
        document: RunningText,
        contexts: Contexts,
        report: Report,
    ) -> list[int]:
        """Indices of the document's key tokens; by their text where the evaluator has another tokenizer."""

        def find(ids: list[int]) -> list[int]:
            return key_tokens(
                evaluator,
                ids,
                contexts,
                gain=self.gain,
                known=self.known,
                progress=lambda done: report("read", done / 2),
            )

        if tokenizer_sha256(its_tokenizer) == tokenizer_sha256(tokenizer):
            return find(list(document.ids))
        if document.ends is None or not its_tokenizer.is_fast:
            raise EvaluationError(
                f"{self.name}: {self.evaluator} has another tokenizer, and one of the two does not say what text its "
                "tokens stand for; give an evaluator with the model's own tokenizer"
            )
        begin = start_tokens(its_tokenizer)
        ends = [0] * len(begin) + token_ends(its_tokenizer, document.text)
        keys = find(begin + encode(its_tokenizer, document.text))
        return covered(document.ends, [(ends[key - 1], ends[key]) for key in keys])


def covered(ends: Sequence[int], marked: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the tokens whose text, where they have any, lies wholly in marked stretches.

    Args:
        ends: where each token ends, characters, ascending.
        marked: (begin, end) in characters, in the order of the text, without overlaps.
    """
    marks = bytearray(ends[-1])
    for begin, end in marked:
        marks[begin:end] = b"\1" * (end - begin)
    return [index for index, (begin, end) in enumerate(pairwise((0, *ends))) if begin < end and all(marks[begin:end])]


TASKS.register("longppl")(LongPPL())

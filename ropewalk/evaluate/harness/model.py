"""The harness's model with a method attached; importing this module registers it there under the name "ropewalk"."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor
from transformers import PreTrainedModel

import ropewalk
from ropewalk.errors import EvaluationError
from ropewalk.lengths import parse_length
from ropewalk.models.source import locate


@dataclass(frozen=True)
class Extent:
    """How much of a request the model got to read.

    Attributes:
        tokens: of the prompt, with what is scored after it.
        cut: tokens that were left out at the start of it, because the target length has no room for them.
        windows: pieces that it was read in, each without the others before it: 1 but for a rolling perplexity.
    """

    tokens: int
    cut: int = 0
    windows: int = 1


@register_model("ropewalk")
class ExtendedLM(HFLM):
    """`HFLM` with an extended model: `--model ropewalk --model_args pretrained=...,method=...,target_length=...`.

    The harness reads no more than `target_length` tokens of a prompt (its `max_length`), and drops what is before them
    with only a warning; `extents` tells how much. With a batch of one, logits are made only of the tokens that are
    scored: all those of a long prompt (its tokens times the vocabulary) would not fit.

    Args:
        pretrained: a loaded model, or a source as for `ropewalk.models.loading.load_model`.
        method: in the method grammar. In `model_args`, where commas part the arguments, write its commas as
            semicolons: `method=self-extend:group=4;window=1024`.
        target_length: tokens, or a length such as "32k"; None: what the method reaches as it was given.
        attention_backend: as `backend` of `ropewalk.extend`.
        verify: as for `ropewalk.extend`.
        device: where a source is loaded to; the GPU where there is one, by default.
        options: of `HFLM`; its `max_length` is `target_length` here.

    Raises:
        EvaluationError: `max_length` is given, or the tokenizer has no end-of-text token.
        MethodError, ModelError, BackendError: from `ropewalk.extend`.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel,
        method: str | None = "none",
        target_length: int | str | None = None,
        attention_backend: str = "auto",
        verify: bool = True,
        *,
        device: str | None = None,
        **options: Any,
    ) -> None:
        if "max_length" in options:
            raise EvaluationError("max_length is the target length here; give target_length instead")
        source = locate(pretrained) if isinstance(pretrained, str) else pretrained
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(source, device=place, **options)
        if self.tokenizer.eos_token_id is None:
            raise EvaluationError("this tokenizer has no end-of-text token, which lm-evaluation-harness needs; set one")
        written = "none" if method is None else method.replace(";", ",")  # the harness reads "none" as None
        target = parse_length(target_length, EvaluationError) if isinstance(target_length, str) else target_length
        self.extension = ropewalk.extend(
            self.model, written, target_length=target, backend=attention_backend, verify=verify
        )
        self._max_length = self.extension.target_length
        self.extents: list[Extent] = []  # of the requests of the last call, in their order
        self._scored: int | None = None  # last tokens whose logits are wanted; None: all
        self._quiet = False
        self._keeps_logits = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts; see `HFLM`.

        Raises:
            EvaluationError: the answer alone may be longer than the target length.
        """
        self.extents = [self._extent(*request.args) for request in requests]
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, nats; one that is longer than the target length is read in windows."""
        self._quiet = disable_tqdm  # the harness does not hand it on
        try:
            answers = super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        finally:
            self._quiet = False
        lengths = [len(self.tok_encode(*request.args)) for request in requests]
        self.extents = [Extent(tokens, windows=-(-tokens // self.max_length)) for tokens in lengths]
        return answers

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        room = self.max_length + 1  # the last token is scored, not read
        lengths = [len(context) + len(scored) for _, context, scored in requests]
        self.extents = [Extent(tokens, cut=max(0, tokens - room)) for tokens in lengths]
        self._scored = max((len(scored) for *_, scored in requests), default=None)
        quiet = disable_tqdm or self._quiet
        try:
            return super()._loglikelihood_tokens(requests, disable_tqdm=quiet, override_bs=override_bs)
        finally:
            self._scored = None

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        # HFLM takes the scored rows from the end, so in a row without padding the others need not be there.
        if len(inps) > 1 or self._scored is None or not self._keeps_logits:
            return super()._model_call(inps, attn_mask, labels)
        mixed = self.mixed_precision_dtype
        with torch.no_grad(), torch.autocast(self.device.type, mixed, enabled=mixed is not None):
            return self.model(inps, logits_to_keep=self._scored, use_cache=False).logits

    def _extent(self, prompt: str, options: dict[str, Any]) -> Extent:
        new = normalize_gen_kwargs(options, self.max_gen_toks)["max_gen_toks"]
        room = self.max_length - new
        if room < 1:
            raise EvaluationError(
                f"an answer may have {new} tokens, which leaves no room for a prompt in a target length of "
                f"{self.max_length}; raise the target length"
            )
        tokens = len(self.tok_encode(prompt))
        return Extent(tokens, cut=max(0, tokens - room))

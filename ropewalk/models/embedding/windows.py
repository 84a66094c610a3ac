"""Windows: a pipeline that embeds the pieces of a long text apart and averages them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ropewalk.errors import MethodError, ModelError
from ropewalk.methods.tables import ParallelWindows
from ropewalk.models.override import Override

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

AT_ONCE = 32  # pieces in one forward: a batch of the usual size


@dataclass(frozen=True)
class Framing:
    """The special tokens that a tokenizer puts around a text.

    Attributes:
        before: token ids.
        after: token ids.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> "Framing":
        """Measured on a word. Raises ModelError for a tokenizer that does not put them around the text."""
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = tokenizer("a")["input_ids"]
        for start in range(len(whole) - len(bare) + 1):
            if bare and whole[start : start + len(bare)] == bare:
                return cls(tuple(whole[:start]), tuple(whole[start + len(bare) :]))
        raise ModelError(
            f"{type(tokenizer).__name__} puts no special tokens around a text that parallel-windows could repeat for "
            "every piece; take another method"
        )


def pieces(ids: Tensor, framing: Framing, *, window: int, overlap: int) -> list[Tensor]:
    """Cut one text into windows; a text that fits stays whole.

    Args:
        ids: [tokens], special tokens included.
        window: tokens of a piece, special tokens included.
        overlap: tokens that neighbours share.

    Returns:
        Pieces of `window` tokens each, the last one taken from the end.
    """
    if len(ids) <= window:
        return [ids]
    before, after = len(framing.before), len(framing.after)
    content = ids[before : len(ids) - after]
    size = window - before - after
    starts = [*range(0, len(content) - size, size - overlap), len(content) - size]
    front, back = ids[:before], ids[len(ids) - after :]
    return [torch.cat([front, content[start : start + size], back]) for start in starts]


class Windows:
    """Parallel context windows around the modules of one pipeline.

    Attributes:
        model: the pipeline.
        requested: the method as it was asked for.
        method: the method with every field filled.
        target_length: tokens that texts may have.
        pretrained_length: tokens that the model was trained on.
    """

    def __init__(
        self, model: "SentenceTransformer", requested: ParallelWindows, target_length: int, pretrained_length: int
    ) -> None:
        self.model = model
        self.requested = requested
        self.target_length = target_length
        self.pretrained_length = pretrained_length
        self.method = requested.resolve(pretrained_length, target_length)
        assert self.method.window is not None and self.method.overlap is not None
        self.window, self.overlap = self.method.window, self.method.overlap
        self._framing = Framing.of(model.tokenizer)
        specials = len(self._framing.before) + len(self._framing.after)
        if self.window - specials <= self.overlap:
            raise MethodError(
                f"{self.method}: a window of {self.window} tokens has {specials} special ones and no room for more "
                f"than its overlap of {self.overlap}; take a larger window"
            )
        self._override = Override(model, "forward", self._forward)

    def _forward(self, features: dict[str, Any], **named: Any) -> dict[str, Any]:
        mask: Tensor = features["attention_mask"].bool()
        if mask.shape[1] <= self.window:
            return self._override.original(features, **named)
        # `encode_query` and `encode_document` say their task, which only a Router reads.
        if named.keys() - {"task"} or "prompt_length" in features:
            raise MethodError(
                "parallel-windows cannot tell a prompt that pooling leaves out from the pieces of a text; set "
                "include_prompt on the pooling module, or take another method"
            )
        texts = [
            pieces(ids[there], self._framing, window=self.window, overlap=self.overlap)
            for ids, there in zip(features["input_ids"], mask, strict=True)
        ]
        flat = [piece for text in texts for piece in text]
        vectors = torch.cat([self._embed(flat[i : i + AT_ONCE], features) for i in range(0, len(flat), AT_ONCE)])
        means = torch.stack([some.mean(0) for some in vectors.split([len(text) for text in texts])])
        result = {**features, "sentence_embedding": means}
        for module in self._modules(last=True):
            result = module(result)
        return result

    def _modules(self, *, last: bool) -> list[Any]:
        """The modules that embed a piece, or (last) those that finish an average: from the first Normalize on."""
        from sentence_transformers.sentence_transformer.modules import Normalize

        modules = list(self.model.children())
        cut = next((i for i, module in enumerate(modules) if isinstance(module, Normalize)), len(modules))
        return modules[cut:] if last else modules[:cut]

    def _embed(self, some: list[Tensor], features: dict[str, Any]) -> Tensor:
        """The embeddings of pieces, not normalised yet, [pieces, dimensions]."""
        width = max(len(piece) for piece in some)
        padding = self.model.tokenizer.pad_token_id or 0
        ids = features["input_ids"].new_full((len(some), width), padding)
        mask = features["attention_mask"].new_zeros((len(some), width))
        for row, piece in enumerate(some):
            ids[row, : len(piece)] = piece
            mask[row, : len(piece)] = 1
        result = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in features:
            result["token_type_ids"] = torch.zeros_like(ids)
        for module in self._modules(last=False):
            result = module(result)
        return result["sentence_embedding"]

    def remove(self) -> None:
        """Take the windows off."""
        self._override.restore()

    def describe(self) -> str:
        """What is attached, which parameters were chosen and why, in lines for people."""
        lines = [f"{self.requested}: trained on {self.pretrained_length} tokens, target {self.target_length}"]
        for name, (value, reason) in self.requested.why(self.pretrained_length, self.target_length).items():
            lines.append(f"  {name} = {value}: {reason}")
        lines.append(f"  texts of up to {self.window} tokens give what the original gives")
        return "\n".join(lines)

    def citation(self) -> str:
        """BibTeX of the method."""
        return self.method.bibtex

"""SentenceExtension: a sentence-transformers pipeline that reads longer texts."""

from types import TracebackType
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from ropewalk.errors import ModelError
from ropewalk.models.embedding.extension import TableExtension
from ropewalk.models.embedding.windows import Windows
from ropewalk.models.huggingface import MARK, Extension
from ropewalk.models.override import Override

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class Route:
    """Calls of a model's `forward` sent through the model itself, which runs its hooks, until `restore`.

    sentence-transformers calls `forward` past every hook, and the seam of a rotary model works by hooks.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._entered = False
        self._override = Override(model, "forward", self._forward)
        self._hook = model.register_forward_pre_hook(self._enter)  # after all others

    def _enter(self, *given: Any) -> None:
        self._entered = True

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self._entered:
            return self.model(*args, **kwargs)
        self._entered = False
        return self._override.original(*args, **kwargs)

    def restore(self) -> None:
        self._hook.remove()
        self._override.restore()


class SentenceExtension:
    """A SentenceTransformer that reads `target_length` tokens. `remove()` or leaving the context restores it exactly.

    Attributes:
        model: the pipeline.
        inner: what is attached inside: to its transformers model, or windows around its modules.
        target_length: tokens that a text may have; longer ones are cut there.
        limit: tokens that texts were cut at before.
    """

    def __init__(self, model: "SentenceTransformer", inner: Extension | TableExtension | Windows) -> None:
        self.model = model
        self.inner = inner
        self.method = inner.method
        self.target_length = inner.target_length
        self.limit: int | None = model.max_seq_length
        self._route = Route(inner.model) if isinstance(inner, Extension) else None
        model.__dict__[MARK] = self
        model.max_seq_length = self.target_length
        try:
            self._require_whole()
        except BaseException:
            self.remove()
            raise

    def _require_whole(self) -> None:
        """Raise ModelError unless a text of the target length goes through the tokenizer whole."""
        features = self.model.preprocess(["a " * (self.target_length + 8)])
        if "attention_mask" not in features:  # as it does for flash attention
            raise ModelError(
                "the pipeline joins the texts of a batch without padding, which hides where each begins; set "
                "unpad_inputs of its first module to False"
            )
        count = int(features["attention_mask"].sum())
        if count != self.target_length:
            raise ModelError(
                f"the pipeline passes {count} tokens of a text that has more than {self.target_length}, with its limit "
                f"at {self.target_length}; set its own limits (query_length, document_length, max_length among its "
                "processing_kwargs) to None"
            )

    def remove(self) -> None:
        """Take the method off: the pipeline and its limit are as they were. A second call does nothing."""
        if self.model.__dict__.get(MARK) is not self:
            return
        del self.model.__dict__[MARK]
        self.model.max_seq_length = self.limit
        if self._route is not None:
            self._route.restore()
        self.inner.remove()

    def __enter__(self) -> "SentenceExtension":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __deepcopy__(self, memo: dict[int, Any]) -> "SentenceExtension":
        raise ModelError(
            "an extended SentenceTransformer cannot be copied: two pipelines would share one extension; remove() the "
            "extension, copy the pipeline, and extend both"
        )

    def describe(self) -> str:
        """What is attached, which parameters were chosen and why, in lines for people."""
        return (
            f"{self.inner.describe()}\n  sentence-transformers: texts are cut at {self.target_length} tokens "
            f"(at {self.limit} before); pooling and normalisation as before"
        )

    def citation(self) -> str:
        """BibTeX of the attached method or methods."""
        return self.inner.citation()


def inner_model(model: "SentenceTransformer") -> PreTrainedModel:
    """The transformers model of a pipeline.

    Raises:
        ModelError: its first module is of another kind.
    """
    first = model[0]
    found = getattr(first, "model", None)
    if not isinstance(found, PreTrainedModel):
        raise ModelError(
            f"this SentenceTransformer begins with {type(first).__name__}, which is not a transformers model: it has "
            "no positions to extend"
        )
    return found

"""What a pipeline makes of queries and documents."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ropewalk.errors import EvaluationError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Tokens that are read together: what a batch of short texts holds, and one text that is longer than that.
BATCH_TOKENS = 8192

# Called with the fraction of the documents that are read.
Report = Callable[[float], None]


def similarities(
    model: "SentenceTransformer", queries: Sequence[str], documents: Sequence[str], *, tokens: int, report: Report
) -> np.ndarray:
    """How alike queries and documents are, by the model's own measure (cosine for most).

    Args:
        tokens: of the longest document.

    Returns:
        [queries, documents] float32.

    Raises:
        EvaluationError: an empty text, or an embedding that is not finite.
    """
    for kind, texts in (("query", queries), ("document", documents)):
        empty = [index for index, text in enumerate(texts) if not text.strip()]
        if empty:
            raise EvaluationError(f"{kind} {empty[0]} is empty, and nothing can be found by it; leave it out")
    batch = max(1, BATCH_TOKENS // tokens)
    asked = model.encode_query(list(queries), show_progress_bar=False, convert_to_tensor=True)
    read = []
    for first in range(0, len(documents), batch):
        texts = list(documents[first : first + batch])
        read.append(
            model.encode_document(texts, batch_size=batch, show_progress_bar=False, convert_to_tensor=True).float()
        )
        report((first + len(texts)) / len(documents))
    found: np.ndarray = model.similarity(asked.float(), torch.cat(read)).cpu().numpy()
    if not np.isfinite(found).all():
        raise EvaluationError("embeddings that are not finite numbers: the method does not fit this model or precision")
    return found


def prompts_of(model: "SentenceTransformer") -> tuple[str, str]:
    """What the pipeline puts before a query and before a document, by the rules of its `encode_query` and
    `encode_document`."""
    named = {name: text or "" for name, text in model.prompts.items()}
    default = named.get(model.default_prompt_name or "", "")
    document = next((named[name] for name in ("document", "passage", "corpus") if name in named), default)
    return named.get("query", default), document


def template_of(model: "SentenceTransformer") -> str:
    prompts = prompts_of(model)
    return json.dumps(prompts) if any(prompts) else ""

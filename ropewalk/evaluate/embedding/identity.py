"""What tells embedding models and their settings apart in stored samples."""

import hashlib
import json
from typing import TYPE_CHECKING

from ropewalk.evaluate.fingerprint import model_sha256, plan_sha256
from ropewalk.models.embedding.extension import TableExtension
from ropewalk.models.embedding.sentence import SentenceExtension, inner_model
from ropewalk.models.huggingface import Extension

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def pipeline_sha256(model: "SentenceTransformer") -> str:
    """Hash of a pipeline: its transformers model, see `model_sha256`, and how the modules after it are set."""
    settings = [str(module) for module in list(model)[1:]]
    return hashlib.sha256(json.dumps([model_sha256(inner_model(model)), settings]).encode()).hexdigest()


def read_limit(model: "SentenceTransformer") -> int | None:
    """Tokens that a pipeline cuts texts at; None where it does not."""
    limit: int | None = model.max_seq_length
    return limit


def resolved(model: "SentenceTransformer", extension: SentenceExtension | None) -> str:
    """The method with every parameter filled in; of the stock model, where it cuts texts."""
    return f"none:limit={read_limit(model)}" if extension is None else str(extension.method)


def setting_sha256(extension: SentenceExtension | None) -> str:
    """Hash of what a method does: of a rotary model its plan, of a position table its rows."""
    if extension is None:
        return _sha256(b"none")
    inner = extension.inner
    if isinstance(inner, Extension):
        return plan_sha256(inner.plan)
    text = f"{inner.method} {inner.target_length}".encode()
    if isinstance(inner, TableExtension):
        return _sha256(text + inner.rows.float().cpu().numpy().astype("<f4").tobytes())
    return _sha256(text)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

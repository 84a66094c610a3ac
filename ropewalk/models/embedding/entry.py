"""What `extend` does with embedding models: encoders with a position table, and sentence-transformers pipelines."""

import sys
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from ropewalk.errors import BackendError, MethodError, ModelError
from ropewalk.methods import METHODS, Method, parse
from ropewalk.methods.tables import TABLE_METHODS, EncoderMethod, ParallelWindows, TableMethod, parse_table
from ropewalk.models.embedding.extension import TableExtension, short_text
from ropewalk.models.embedding.sentence import SentenceExtension, inner_model
from ropewalk.models.embedding.table import read_table, tables
from ropewalk.models.embedding.windows import Windows
from ropewalk.models.huggingface import MARK, Extension, extend
from ropewalk.models.seam import find_rotaries, name_of
from ropewalk.models.spec import spec_from_config

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Asked = Method | EncoderMethod


def concerns(model: nn.Module, method: Asked | str) -> bool:
    """Whether `attach` is to take it: a pipeline, an encoder with a position table, or a method for one."""
    only = _name(method) in TABLE_METHODS and _name(method) not in METHODS
    return only or is_pipeline(model) or has_table(model)


def is_pipeline(model: Any) -> bool:
    """Whether it is a SentenceTransformer; the library is not loaded to find out."""
    library = sys.modules.get("sentence_transformers")
    return library is not None and isinstance(model, library.SentenceTransformer)


def has_table(model: nn.Module) -> bool:
    """Whether it is a transformers model that adds rows of a position table, and rotates nothing."""
    return isinstance(model, PreTrainedModel) and not find_rotaries(model) and any(True for _ in tables(model))


def attach(
    model: "PreTrainedModel | SentenceTransformer",
    method: Asked | str,
    *,
    target_length: int | None,
    backend: str,
    verify: bool,
    pretrained_length: int | None,
) -> TableExtension | SentenceExtension:
    """Attach a method to an embedding model, in place; arguments as those of `ropewalk.extend`.

    Raises:
        ModelError: neither a position table nor a rotary module, a method of the other kind, a model that is extended
            already, a pipeline that cuts texts for reasons of its own.
        MethodError: a target below the trained length or beyond the method's reach.
        ProfileError: tuned positions of another model.
        BackendError: a named backend, where the method leaves attention to the model or the backend cannot run.
    """
    inner = inner_model(model) if is_pipeline(model) else model
    if any(MARK in one.__dict__ for one in (model, inner, inner.base_model)):
        raise ModelError(f"this {name_of(inner)} is already extended; remove() that first")
    asked = _read(inner, method)
    if isinstance(asked, EncoderMethod) and backend != "auto":
        raise BackendError(
            f"{asked.name} leaves attention to the model, and no backend of ours would run; leave backend "
            f"{backend!r} out"
        )
    if isinstance(asked, ParallelWindows):
        if inner is model:
            raise ModelError(
                f"{asked.name} averages the embeddings of pieces, and a bare {name_of(inner)} gives none; extend a "
                "SentenceTransformer with it"
            )
        length = _trained(inner, pretrained_length)
        return SentenceExtension(model, Windows(model, asked, _target(asked, length, target_length), length))
    if isinstance(asked, Method):
        return SentenceExtension(model, _rotary(inner, asked, target_length, backend, verify, pretrained_length))
    extension = _table(inner, asked, target_length, verify, pretrained_length)
    return extension if inner is model else SentenceExtension(model, extension)


def _name(method: Asked | str) -> str:
    return method.partition(":")[0].strip() if isinstance(method, str) else method.name


def _read(model: PreTrainedModel, method: Asked | str) -> Asked:
    """The method, in the form for this model.

    Raises:
        ModelError: it has no positions to extend, or they are of the other kind.
    """
    name, rotary, table = _name(method), bool(find_rotaries(model)), has_table(model)
    if not rotary and not table:
        raise ModelError(
            f"{name_of(model)} has neither a rotary module nor a position table; there are no positions to extend"
        )
    if table and name in METHODS and name not in TABLE_METHODS:
        raise ModelError(
            f"{name_of(model)} is not a RoPE model, which {name} wants; for its position table take "
            f"{', '.join(TABLE_METHODS.names())}"
        )
    if rotary and name in TABLE_METHODS and name not in (*METHODS, ParallelWindows.name):
        raise ModelError(
            f"{name_of(model)} has no position table, which {name} wants; it is a RoPE model: take "
            f"{', '.join(METHODS.names())}, or parallel-windows"
        )
    if table or name == ParallelWindows.name:
        return method if isinstance(method, EncoderMethod) else parse_table(str(method))
    return method if isinstance(method, Method) else parse(str(method))


def _trained(model: PreTrainedModel, given: int | None) -> int:
    if has_table(model):
        return read_table(model.base_model, given).pretrained_length
    return spec_from_config(model.config, pretrained=given).pretrained_length


def _target(method: EncoderMethod, length: int, given: int | None) -> int:
    target = method.natural_length(length) if given is None else given
    if target is None:
        raise MethodError(f"{method.name} reaches any length; give the target_length, in tokens")
    if target < 1:
        raise MethodError(f"target_length must be at least 1 token, got {target}")
    return target


def _table(
    model: PreTrainedModel, method: EncoderMethod, target_length: int | None, verify: bool, length: int | None
) -> TableExtension:
    assert isinstance(method, TableMethod)
    table = read_table(model.base_model, length)
    target = _target(method, table.pretrained_length, target_length)
    stock = short_text(model.base_model, min(target, table.pretrained_length)) if verify else None
    extension = TableExtension(model, method, target, table)
    if stock is not None:
        extension.verify(stock)
    return extension


def _rotary(
    model: PreTrainedModel, method: Method, target_length: int | None, backend: str, verify: bool, length: int | None
) -> Extension:
    extension: Extension = extend(
        model, method, target_length=target_length, backend=backend, verify=verify, pretrained_length=length
    )
    trained = extension.spec.pretrained_length
    if extension.target_length < trained and method.name != "none":
        extension.remove()
        raise MethodError(
            f"{method}: the target of {extension.target_length} tokens is below the {trained} that the model was "
            f"trained on; give a target of at least {trained}, or take none"
        )
    return extension

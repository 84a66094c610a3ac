"""A GGUF file with our frequency table: as a tensor of factors where llama.cpp loads one, else in its metadata.

Everything else is copied as it is, quantised weights and tokenizer included. That is why a GGUF is wanted to begin
with: llama.cpp's converter knows the tokenizers, and a wrong one changes every answer without a word.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ropewalk.errors import MethodError, ModelError
from ropewalk.methods import Method
from ropewalk.models.export.buckets import OURS, Bucket, buckets
from ropewalk.models.export.llamacpp import EXACT, Form, factors, nearest
from ropewalk.models.folder import fresh_folder
from ropewalk.models.gguf_scaling import rotary_scaling
from ropewalk.rotary import RotarySpec, default_inv_freq

TENSOR = "rope_freqs.weight"
# Read in llama.cpp (that of llama-cpp-python 0.3.36): the loader creates rope_freqs, every rotation gets it, no layer
# has a window. Neither is to be taken for granted: the name is declared for 39 architectures, and falcon-h1, llada and
# pangu-embed create the tensor and rotate without it.
WITH_FACTORS = ("llama", "apertus", "arcee", "deci", "exaone", "granite")
WITHOUT_FACTORS = ("qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3")  # one rotation by freq_base and rope.scaling


@dataclass(frozen=True)
class ExportedGGUF:
    """One file that was written.

    Attributes:
        file: where it is.
        length: the longest text that it is for, tokens.
        form: what llama.cpp reads there, in words.
        difference: largest relative distance of its frequencies from the method's own.
    """

    file: Path
    length: int
    form: str
    difference: float


def spec_of(file: Path, pretrained_length: int | None = None) -> RotarySpec:
    """The rotary embedding of a GGUF, as llama.cpp reads it from the metadata.

    Raises:
        ModelError: no complete GGUF; an architecture whose rotation is not known here; or a model that is scaled
            already, on which a table would be a second one.
    """
    reader = _open(file)
    arch = _architecture(reader)
    if arch not in WITH_FACTORS + WITHOUT_FACTORS:
        known = ", ".join(WITH_FACTORS + WITHOUT_FACTORS)
        raise ModelError(f"how llama.cpp rotates {arch!r} is not known here, only {known}; {OURS}")
    if scaled := rotary_scaling(reader):
        raise ModelError(
            f"{file.name} carries a rotary scaling of its own ({', '.join(scaled)}); give the GGUF of an unscaled model"
        )

    def read(name: str, default: float | None = None) -> float:
        field = reader.fields.get(f"{arch}.{name}")
        if field is None and default is None:
            raise ModelError(f"{file.name} says no {arch}.{name}; give a GGUF that llama.cpp's converter has written")
        value: Any = default if field is None else field.contents()
        return float(max(value) if isinstance(value, list) else value)  # by layer (deci): the widest

    heads = int(read("attention.head_count"))
    head_dim = int(read("attention.key_length", read("embedding_length") // heads))
    rotary_dim = int(read("rope.dimension_count", head_dim))
    base = float(read("rope.freq_base", 10000.0))
    return RotarySpec(
        head_dim=head_dim,
        rotary_dim=rotary_dim,
        base=base,
        pretrained_length=pretrained_length or int(read("context_length")),
        num_heads=heads,
        num_kv_heads=int(read("attention.head_count_kv", heads)),
        num_layers=int(read("block_count")),
        inv_freq=tuple(default_inv_freq(base, rotary_dim).astype(np.float32).astype(np.float64).tolist()),
    )


def export_gguf(
    file: Path, folder: str | Path, method: Method, spec: RotarySpec, target_length: int, *, max_error: float = 0.0
) -> list[ExportedGGUF]:
    """Write copies of a GGUF, one for each bucket, in which llama.cpp finds the method's table.

    Args:
        file: the GGUF of the model that the method is for.
        folder: a new folder.
        method: filled for this model and target.
        spec: what `spec_of` gave.
        target_length: tokens.
        max_error: largest relative error of a frequency to accept, where the architecture has no exact form.

    Raises:
        MethodError: a method that is more than a table, or whose table cannot be said closely enough.
        ModelError: a folder that exists.
    """
    reader = _open(file)
    arch = _architecture(reader)
    forms = [(bucket, _form(arch, method, spec, bucket, max_error)) for bucket in buckets(method, spec, target_length)]
    written = []
    with fresh_folder(folder) as partial:
        for bucket, form in forms:
            name = f"{file.stem}-ropewalk{f'-{bucket.length}' if len(forms) > 1 else ''}.gguf"
            _write(reader, partial / name, arch, method, spec, bucket, form)
            written.append(ExportedGGUF(Path(folder) / name, bucket.length, form.words, form.difference))
    return written


def _form(arch: str, method: Method, spec: RotarySpec, bucket: Bucket, max_error: float) -> Form:
    """How llama.cpp is told: a factor for each pair where it loads them, else an exact or near form in metadata."""
    if arch in WITH_FACTORS:
        return factors(spec, bucket)
    form = nearest(spec, bucket)
    if form.difference > max(max_error, EXACT):
        raise MethodError(
            f"llama.cpp loads no factors for {arch!r}; the nearest that its metadata can say for {method.name} "
            f"({form.words}) is off by {form.difference:.2%} in one frequency; accept that with a max-error of "
            f"{np.ceil(form.difference * 1000) / 1000:g}, or {OURS}"
        )
    return form


def _write(
    reader: gguf.GGUFReader, file: Path, arch: str, method: Method, spec: RotarySpec, bucket: Bucket, form: Form
) -> None:
    changes: dict[str, Any] = {f"{arch}.context_length": bucket.length, f"{arch}.rope.freq_base": form.freq_base}
    changes |= {f"{arch}.rope.scaling.{name}": value for name, value in form.scaling.items()}
    changes["ropewalk.method"] = str(method)  # for people; engines pass over what they do not know
    writer = gguf.GGUFWriter(file, arch, endianess=reader.endianess)
    if gguf.Keys.General.ALIGNMENT in reader.fields:
        writer.data_alignment = int(reader.fields[gguf.Keys.General.ALIGNMENT].contents())
    for field in _kept(reader, changes, arch):
        kind, within = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=within)
    for name, value in changes.items():
        writer.add_key_value(name, value, _KINDS[type(value)])
    if form.factors is not None:
        writer.add_tensor_info(TENSOR, form.factors.shape, form.factors.dtype, form.factors.nbytes)
    for tensor in reader.tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if form.factors is not None:
        writer.write_tensor_data(form.factors)
    for tensor in reader.tensors:
        writer.write_tensor_data(tensor.data, tensor_endianess=reader.endianess)
    writer.close()


_KINDS = {
    int: gguf.GGUFValueType.UINT32,
    float: gguf.GGUFValueType.FLOAT32,
    str: gguf.GGUFValueType.STRING,
}


def _kept(reader: gguf.GGUFReader, changes: dict[str, Any], arch: str) -> Iterator[Any]:
    """The metadata that is copied: not what the writer adds by itself, and nothing of an idle scaling."""
    for name, field in reader.fields.items():
        own = name.startswith(("GGUF.", f"{arch}.rope.scaling.")) or name == gguf.Keys.General.ARCHITECTURE
        if not own and name not in changes:
            yield field


def _open(file: Path) -> gguf.GGUFReader:
    try:
        reader = gguf.GGUFReader(file, "r")
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"cannot read {file}: {error}; give a complete .gguf file") from error
    split = reader.fields.get("split.count")
    if split is not None and int(split.contents()) > 1:
        raise ModelError(f"{file.name} is one of several parts; merge them with llama.cpp's gguf-split first")
    return reader


def _architecture(reader: gguf.GGUFReader) -> str:
    field = reader.fields.get(gguf.Keys.General.ARCHITECTURE)
    if field is None:
        raise ModelError(f"the GGUF says no {gguf.Keys.General.ARCHITECTURE}; give that of a language model")
    return str(field.contents())

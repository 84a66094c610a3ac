"""The rotary scaling that a GGUF file carries: a tensor of factors, or metadata."""

import gguf


def rotary_scaling(reader: gguf.GGUFReader) -> list[str]:
    """Names of the tensors and metadata by which llama.cpp scales the file's rotary embedding; none: it is plain.

    transformers reads none of them but those of gpt-oss (5.23, modeling_gguf_pytorch_utils.py).
    """
    tensors = [tensor.name for tensor in reader.tensors if tensor.name.startswith("rope_f")]
    return tensors + [name for name in reader.fields if ".rope.scaling." in name and not _idle(reader, name)]


def _idle(reader: gguf.GGUFReader, name: str) -> bool:
    """True for metadata of a scaling that scales nothing."""
    idle = {"type": "none", "factor": 1.0, "attn_factor": 1.0, "finetuned": False}
    suffix = name.rsplit(".", 1)[-1]
    return suffix == "original_context_length" or reader.fields[name].contents() == idle.get(suffix)

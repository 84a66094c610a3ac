"""A sentence-transformers pipeline from a source: a hub id, a local folder, a .gguf file or an installed package."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.errors import ModelError
from ropewalk.models.source import locate

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODULES = "modules.json"  # what every saved pipeline has
POOLINGS = ("mean", "cls", "lasttoken")


def load_embedder(source: str, *, pooling: str | None = None, device: str = "cpu") -> "SentenceTransformer":
    """A pipeline in eval mode.

    Args:
        source: as of `ropewalk.models.loading.load_model`, and "package:NAME" of a package that holds one pipeline.
        pooling: for a model that is no pipeline: how token states become one embedding, "mean", "cls" or "lasttoken".
            The embedding is normalised.
        device: to put it on.

    Raises:
        ModelError: sentence-transformers is missing, the source is not there or cannot be read, pooling is not known,
            missing for a model that is no pipeline, or given for one that is.
    """
    if find_spec("sentence_transformers") is None:
        raise ModelError("embedding models need sentence-transformers, which is missing; pip install 'ropewalk[embed]'")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from sentence_transformers.util import is_sentence_transformer_model

    packaged = _packaged(source)
    place = locate(source) if packaged is None else str(packaged)
    if pooling is not None and pooling not in POOLINGS:
        raise ModelError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    try:
        saved = is_sentence_transformer_model(place)
        if pooling is None and not saved:
            raise ModelError(
                f"{source} is no saved pipeline; say how its states become one embedding: pooling {POOLINGS}"
            )
        if pooling is not None and saved:
            raise ModelError(f"{source} is a saved pipeline, which pools in its own way; leave pooling {pooling!r} out")
        if saved:
            return SentenceTransformer(place, device=device).eval()
        first = Transformer(place)
        modules = [first, Pooling(first.get_embedding_dimension(), pooling_mode=pooling), Normalize()]
        return SentenceTransformer(modules=modules, device=device).eval()
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split("\n")[0].split())
        raise ModelError(f"cannot read {source}: {reason}; wanted a complete embedding model") from error


def _packaged(source: str) -> Path | None:
    """The folder of the one pipeline in the installed package that a source names; None for any other source."""
    name = source.removeprefix("package:")
    if name == source or not name.isidentifier():
        return None
    spec = find_spec(name)
    folders = [] if spec is None else [Path(one) for one in spec.submodule_search_locations or ()]
    found = sorted(file.parent for folder in folders for file in folder.rglob(MODULES))
    return found[0] if len(found) == 1 else None

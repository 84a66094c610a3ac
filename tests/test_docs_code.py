"""The code in the documentation runs: docs/python.md on a tiny random model, the example of adding-a-method.md."""

import re
from pathlib import Path

import pytest
import torch
from transformers import BatchEncoding

import ropewalk
from ropewalk.methods import METHODS
from ropewalk.models import loading
from ropewalk.models.huggingface import read_spec
from tests.architectures import VOCABULARY, build

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Letters:
    """A tokenizer of single letters."""

    def __call__(self, text: str, return_tensors: str) -> BatchEncoding:
        ids = torch.tensor([[3 + ord(letter) % (VOCABULARY - 3) for letter in text]])
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


@pytest.fixture
def model(monkeypatch):
    """A tiny model with the window and the head size of SmolLM2; methods registered meanwhile are forgotten."""
    model = build("llama", max_position_embeddings=8192, head_dim=64)
    monkeypatch.setattr(loading, "load_model", lambda source: (model, Letters()))
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    return model


def test_python_page_runs_from_top_to_bottom(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = DOCS / "python.md"
    text, names = page.read_text(), {}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(page), "exec"), names)
    assert (tmp_path / "plan.json").exists()
    assert (tmp_path / "dpe.png").exists()
    assert "_ropewalk_extension" not in model.__dict__


def test_example_method_covers_every_pair_once_and_equals_its_oracle(model) -> None:
    text = (DOCS / "adding-a-method.md").read_text()
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", text, re.DOTALL))
    exec(files["ropewalk/methods/stairs.py"], {"__name__": "stairs"})
    from tests.oracles import distances

    oracle = dict(vars(distances))
    exec(files["tests/oracles/distances.py"], oracle)
    spec = read_spec(model)
    plan = ropewalk.parse("stairs:group=3,window=7,far=29").plan(spec, 97)
    assert torch.equal(plan.coverage(97), torch.ones(97, 97, dtype=torch.int64).tril())
    assert torch.equal(plan.effective_distance(97), oracle["stairs"](97, 3, 7, 29))
    with ropewalk.extend(model, "stairs", target_length=16384):
        assert model(torch.arange(3, 40)[None]).logits.isfinite().all()

"""The Python of docs/saving.md runs from top to bottom, on a tiny random model."""

import re
from pathlib import Path

from ropewalk.models import loading
from tests.architectures import build
from tests.models.saved import tiny_tokenizer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "saving.md"


def test_saving_page_runs_from_top_to_bottom(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    build("llama", max_position_embeddings=8192, head_dim=64).save_pretrained("base")
    tiny_tokenizer().save_pretrained("base")
    real = loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda source, **options: real("base", **options))
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(block, names)
    assert names["extension"].method.name == "yarn"
    assert (tmp_path / "dpe-16k" / "plan.json").exists()
    assert (tmp_path / "smollm2-yarn-16k" / "model.safetensors").exists()

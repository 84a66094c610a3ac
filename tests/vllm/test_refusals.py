"""What cannot be run is refused by name while the engine builds the model."""

import pytest

from tests.vllm.engine import run
from tests.vllm.models import TARGET, prompts, save_model, setting

CASES = {
    "model_impl": ("llama", {"model_impl": "transformers"}, "model_impl='transformers'"),
    "keys in eight bits": ("llama", {"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8'"),
    "too long": ("llama", {"max_model_len": TARGET, "target": TARGET // 2}, f"--max-model-len {TARGET // 2}"),
    "method": ("llama", {"method": "dpee"}, "did you mean 'dpe'"),
    "family": ("starcoder2", {}, "was not tested on starcoder2"),
}


@pytest.mark.parametrize("name", CASES)
def test_refusal_names_what_cannot_be_run(tmp_path, name) -> None:
    family, options, word = CASES[name]
    folder = save_model(tmp_path / "model", family)
    entry = {"method": options.pop("method", "dpe")} | (
        {"target_length": options.pop("target")} if "target" in options else {}
    )
    with pytest.raises(RuntimeError) as failure:
        run(folder, [prompts(5)], **setting(**entry) | options)
    assert word in str(failure.value)

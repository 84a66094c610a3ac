"""What cannot be run is refused by name while the engine builds the model, before weights are loaded."""

from pathlib import Path
from typing import Any

import pytest

import ropewalk
from ropewalk.models.loading import load_model
from ropewalk.models.manifest import Manifest
from ropewalk.serve import front
from tests.models.saved import tiny_tokenizer
from tests.vllm.engine import apart, ask, run
from tests.vllm.models import TARGET, expected, prompts, require_alike, save_model, setting

DPE = {"method": "dpe"}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    # family, what its configuration says, the entry, what the engine is told, what is said
    "model_impl": ("llama", {}, DPE, {"model_impl": "transformers"}, "model_impl='transformers'"),
    "keys in eight bits": ("llama", {}, DPE, {"kv_cache_dtype": "fp8"}, "kv_cache_dtype='fp8'"),
    "too long": ("llama", {}, DPE | {"target_length": TARGET // 2}, {}, f"--max-model-len {TARGET // 2}"),
    "out of reach": ("llama", {}, {"method": "string"}, {}, "reaches 64 tokens"),
    "no method": ("llama", {}, {"method": "dpee"}, {}, "did you mean 'dpe'"),
    "family": ("starcoder2", {}, DPE, {}, "was not tested on starcoder2"),
    "layers without rotation": ("cohere2", {}, DPE, {}, "was not tested on cohere2"),
    "window": ("mistral", {"sliding_window": 40}, DPE, {}, "never look back more than 40 tokens"),
}


@pytest.mark.parametrize("name", CASES)
def test_refusal_names_what_cannot_be_run(tmp_path, name) -> None:
    family, shape, entry, options, word = CASES[name]
    folder = save_model(tmp_path / "model", family, **shape)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RuntimeError) as failure:
        run(folder, [prompts(5)], **setting(**entry) | options)
    assert word in str(failure.value)


def ask_another_version(*args: Any) -> None:
    front.TESTED = ("0.1",)
    ask(*args)


def test_a_version_that_was_not_tested_is_refused(llama) -> None:
    with pytest.raises(RuntimeError, match=r"vLLM 0.* is installed; ropewalk's plug-in is tested on 0\.1: pip install"):
        apart(ask_another_version, str(llama), [prompts(5)], 2, setting(**DPE))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("base") / "model")
    tiny_tokenizer().save_pretrained(folder)
    return folder


def saved(base: Path, folder: Path, **how: bool) -> Path:
    model, _ = load_model(str(base))
    with ropewalk.extend(model, "dpe", target_length=TARGET) as extension:
        return ropewalk.save(extension, folder, **how)


def test_a_folder_saved_for_another_model_is_refused(base, tmp_path) -> None:
    other = save_model(tmp_path / "other", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    entry = {"folder": str(saved(base, tmp_path / "saved"))}
    with pytest.raises(RuntimeError, match=r"saved for another model than .*base 10000\.0 against 500\.0"):
        run(other, [prompts(5)], **setting(**entry))


def test_a_tampered_folder_is_refused(base, tmp_path) -> None:
    folder = saved(base, tmp_path / "saved")
    plan = folder / "plan.json"
    plan.write_text(plan.read_text().replace("1", "2", 1))
    with pytest.raises(RuntimeError, match=r"plan\.json.* is missing or not the file that was saved"):
        run(base, [prompts(5)], **setting(folder=str(folder)))


def test_a_full_folder_is_no_plain_model_and_runs_as_the_front_says(base, tmp_path) -> None:
    folder, asked = saved(base, tmp_path / "full", full=True), prompts(150)
    with pytest.raises(RuntimeError, match="RopewalkLlamaForCausalLM"):
        run(folder, [asked])
    options = setting(folder=str(folder))
    options["hf_overrides"] |= front.restored(folder, Manifest.load(folder).base_config)
    (answers,) = run(folder, [asked], **options)
    require_alike(answers, expected(base, "dpe", asked))

"""A profile's own prompts are refused for the method that it belongs to, and for no other."""

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.bench import Bench
from ropewalk.evaluate.fingerprint import prompt_sha256
from ropewalk.evaluate.unit import Setup, list_units
from ropewalk.models.huggingface import read_spec
from ropewalk.profile import Fingerprint, Profile


def test_prompts_of_a_calibration_are_refused_for_its_profile(model, tokenizer, tmp_path):
    path = tmp_path / "p.json"
    methods = ["dpe", f"dpe:profile={path}", f"dpe:profile={path}+yarn:factor=1.5"]
    with Bench(model, tokenizer, name="tiny", setup=Setup()) as bench:
        units = list_units(["perplexity"], methods, [600], samples=2, seeds=[0])
        seen = prompt_sha256(bench.document(units[0]).ids)
        spec = read_spec(model)
        Profile("dpe", Fingerprint.of(spec), {"scales": [2.0]}, {}, {"prompts": [seen]}).save(path)
        for unit in units:
            if unit.document == 0 and unit.method != "dpe":
                with pytest.raises(EvaluationError, match=r"p\.json' was calibrated on this prompt"):
                    bench.measure(unit, lambda stage, fraction: None)
            else:
                assert bench.measure(unit, lambda stage, fraction: None).n > 0

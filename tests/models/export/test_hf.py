"""A table that is exported is, in stock transformers, the table of the method; what is no table is refused."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import ropewalk
from ropewalk.errors import MethodError, ModelError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX, DPE, parse
from ropewalk.models.export import hf
from ropewalk.models.export.buckets import buckets
from ropewalk.models.export.hf import export_hf, stock_difference
from ropewalk.models.export.rope import EXACT, longrope_factors, stock_table
from ropewalk.models.huggingface import read_spec
from tests.architectures import PRETRAINED_LENGTH, WORKS, build
from tests.models.saved import FAMILIES, TARGET, content, logits, tiny_tokenizer

NATIVE = {  # method -> the type that stock transformers has for its table
    "pi": "linear",
    "ntk": "default",
    "ntk-liu": "default",
    "yarn": "yarn",
    "yarn:beta_fast=16,factor=3": "yarn",
    "llama3": "llama3",
    "ntk-by-parts": "llama3",
    "yarn-paper": "longrope",
    "yarn-lambda": "longrope",
    "yarn:attention_factor=1.3": "longrope",
}
# The same method in two families, and every method in one.
CASES = [(family, method) for family in FAMILIES for method in ("yarn", "yarn-paper")]
CASES += [("llama", method) for method in NATIVE if method not in ("yarn", "yarn-paper")]
OTHERS = [  # what a configuration nests, renames, allows one type of, or has scaled before
    ("gemma3_text", "yarn-paper"),
    ("deepseek_v3", "yarn"),
    ("phi3", "yarn"),
    ("llama-yarn", "yarn:stack=true"),
    ("stablelm", "ntk-by-parts"),
]


@pytest.mark.parametrize(("family", "method"), CASES + OTHERS)
def test_reloaded_stock_model_has_the_table_and_the_logits(tmp_path, family, method) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, method, target_length=TARGET) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
        ours = extension.plan.table
        difference = stock_difference(extension, exported)
    stock = AutoModelForCausalLM.from_pretrained(exported.folder, dtype=torch.float32)
    path, layer_type = extension.census.rotary
    rotary = stock.get_submodule(path)
    prefix = f"{layer_type}_" if layer_type else ""
    table = getattr(rotary, f"{prefix}inv_freq")
    if exported.rope_type == "longrope":  # within one rounding of float32, and half of the pairs at least not even that
        wanted = ours.theta().float()
        assert bool(((table - wanted).abs() <= 2.0**-23 * wanted).all())
        assert (table == wanted).float().mean() >= 0.5
    assert np.abs(table.double().numpy() / ours.theta().numpy() - 1).max() <= EXACT
    assert getattr(rotary, f"{prefix}attention_scaling") == pytest.approx(ours.attention_scaling, rel=1e-12)
    assert difference < 1e-6


@pytest.mark.parametrize("method", NATIVE)
def test_table_takes_the_type_that_gives_it(tmp_path, method) -> None:
    with ropewalk.extend(build("llama", head_dim=64), method, target_length=TARGET) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
    assert exported.rope_type == NATIVE[method]
    assert exported.difference <= EXACT


def test_exported_model_is_bit_by_bit_the_stock_model_with_that_table(tmp_path) -> None:
    """Nothing but the table has changed: logits of all tokens, not only of those that are compared."""
    model = WORKS["llama"]()
    with ropewalk.extend(model, "yarn-paper", target_length=TARGET) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
        scaling = extension.plan.table.attention_scaling
    stock = AutoModelForCausalLM.from_pretrained(exported.folder, attn_implementation="eager", dtype=torch.float32)
    inv_freq, _ = stock_table(AutoConfig.from_pretrained(exported.folder))
    model.model.rotary_emb.inv_freq.copy_(torch.from_numpy(inv_freq))
    model.model.rotary_emb.attention_scaling = scaling
    assert torch.equal(logits(stock.eval()), logits(model))


OLD_NAMES = {
    "llama": ("rope_theta", None),
    "phi": ("rope_theta", "partial_rotary_factor"),
    "gpt_neox": ("rotary_emb_base", "rotary_pct"),
}


@pytest.mark.parametrize("family", OLD_NAMES)
def test_older_engines_find_their_names(tmp_path, family) -> None:
    model = WORKS[family]()
    with ropewalk.extend(model, "yarn-paper", target_length=TARGET) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
        scaling = extension.plan.table.attention_scaling
    written = json.loads((exported.folder / "config.json").read_text())
    old, new = written["rope_scaling"], written["rope_parameters"]
    assert old == {"type": "longrope", **new}
    assert new["rope_type"] == "longrope"
    assert new["short_factor"] == new["long_factor"]
    assert new["attention_factor"] == new["short_mscale"] == new["long_mscale"] == scaling
    assert new["original_max_position_embeddings"] == PRETRAINED_LENGTH
    assert written["max_position_embeddings"] == TARGET
    base, partial = OLD_NAMES[family]
    assert written[base] == model.config.rope_parameters["rope_theta"]
    assert partial is None or written[partial] == model.config.rope_parameters["partial_rotary_factor"]


def test_check_sees_a_folder_with_another_table(tmp_path) -> None:
    with ropewalk.extend(WORKS["llama"](), "yarn", target_length=TARGET) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
        file = exported.folder / "config.json"
        value = json.loads(file.read_text())
        for name in ("rope_parameters", "rope_scaling"):
            value[name]["factor"] = 2.0
        file.write_text(json.dumps(value))
        assert stock_difference(extension, exported) > 1e-2


def test_linear_factor_times_max_position_embeddings_is_the_target(tmp_path) -> None:
    with ropewalk.extend(WORKS["llama"](), "pi:factor=3", target_length=160) as extension:
        (exported,) = export_hf(extension, tmp_path / "out", tiny_tokenizer())
    config = AutoConfig.from_pretrained(exported.folder)
    assert 160 <= config.max_position_embeddings * config.rope_parameters["factor"] < 160 + 3


@pytest.fixture(scope="module")
def by_length(tmp_path_factory):
    """Methods whose table depends on the length, and the lengths of their buckets up to TARGET."""
    spec = read_spec(WORKS["llama"]())
    generator = np.random.default_rng(0)
    up, down = generator.normal(size=(spec.pairs, 12)), generator.normal(size=(12, spec.pairs)) / 12
    trained = CLEX(up=Grid(up), down=Grid(down), gate=0.0, max_factor=4).resolve(spec, TARGET)
    profile = tmp_path_factory.mktemp("clex") / "clex.json"
    trained.to_profile(spec).save(profile)
    short, long = ("/".join(f"{factor:g}" for factor in np.linspace(1.1, last, spec.pairs)) for last in (2, 7))
    return {
        "dynamic-ntk": ("dynamic-ntk", [128, 256]),
        "clex": ("clex", [128, 256]),
        "clex, trained": (f"clex:profile={profile}", [128, 256]),
        "clex, a table for every length": (f"clex:profile={profile},whole=false", [128, 256]),
        "longrope": (f"longrope:short={short},long={long}", [64, 256]),
    }


@pytest.mark.parametrize("name", ["dynamic-ntk", "clex", "clex, trained", "clex, a table for every length", "longrope"])
def test_method_that_depends_on_the_length_gives_one_folder_for_each_bucket(tmp_path, by_length, name) -> None:
    method, lengths = by_length[name]
    model = WORKS["llama"]()
    with ropewalk.extend(model, method, target_length=TARGET) as extension:
        exported = export_hf(extension, tmp_path / "out", tiny_tokenizer())
        assert [one.length for one in exported] == lengths
        for one in exported:
            extension.pin([one.length])
            ours = logits(model, one.length)
            extension.pin(None)
            stock = AutoModelForCausalLM.from_pretrained(one.folder, dtype=torch.float32, attn_implementation="eager")
            wanted = extension.method.plan(extension.spec, one.length).table
            table = stock.model.rotary_emb.inv_freq.double()
            assert bool(((table - wanted.theta()).abs() <= EXACT * wanted.theta()).all())
            if one.rope_type == "longrope":  # one rounding of float32
                assert bool(((table - wanted.theta().float()).abs() <= 2.0**-23 * wanted.theta()).all())
            assert stock.model.rotary_emb.attention_scaling == pytest.approx(wanted.attention_scaling, rel=1e-12)
            assert stock_difference(extension, one) < 1e-6
            # to the bucket's end, where stock transformers' angles in float32 have lost two digits more
            assert float((logits(stock, one.length) - ours).norm() / ours.norm()) < 2e-5
            assert stock.config.max_position_embeddings == one.length
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"length-{length}" for length in lengths}
    weights = [one.folder / "model.safetensors" for one in exported]
    assert weights[0].samefile(weights[1])


def test_buckets_are_the_tables_that_a_method_takes() -> None:
    spec = read_spec(WORKS["llama"]())
    long = "/".join(["2"] * spec.pairs)
    method = parse(f"longrope:long={long},short={'/'.join(['1.5'] * spec.pairs)}").resolve(spec, 300)
    assert [bucket.length for bucket in buckets(method, spec, 300)] == [64, 300]
    for bucket in buckets(method, spec, 300):
        assert bucket.table == method.plan(spec, bucket.length).table
    dynamic = parse("dynamic-ntk").resolve(spec, 300)
    assert [bucket.length for bucket in buckets(dynamic, spec, 300)] == [128, 256, 300]


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("dpe", "changes positions"),
        ("string", "changes positions"),
        ("self-extend+yarn", "changes positions"),
        ("yarn:logit_scale=1.1", "scales logits"),
        ("yarn:log_n=true", "scales logits"),
        ("longrope:retain=4,long=" + "/".join(["2"] * 8), "start tokens keep their own angles"),
        ("none", "nothing to export"),
    ],
)
def test_what_is_no_table_is_refused_with_who_can_run_it(tmp_path, method, reason) -> None:
    with (
        ropewalk.extend(WORKS["llama"](), method, target_length=100) as extension,
        pytest.raises(MethodError, match=reason) as refusal,
    ):
        export_hf(extension, tmp_path / "out", tiny_tokenizer())
    assert method == "none" or "ropewalk.from_pretrained" in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_key_dimensions_by_head_are_refused_by_name(tmp_path) -> None:
    model = WORKS["llama"]()
    spec = read_spec(model)
    mask = np.ones((1, spec.num_heads, spec.pairs))
    mask[0, 0] = 0
    with (
        ropewalk.extend(model, DPE(mask=Grid(mask)), target_length=TARGET) as extension,
        pytest.raises(MethodError, match="differ by head"),
    ):
        export_hf(extension, tmp_path / "out", tiny_tokenizer())


@pytest.mark.parametrize("family", ["gemma2", "qwen2-window"])
def test_window_layers_that_share_the_rotary_are_refused(tmp_path, family) -> None:
    with (
        ropewalk.extend(WORKS[family](), "yarn", target_length=TARGET) as extension,
        pytest.raises(ModelError, match="layers with a window"),
    ):
        export_hf(extension, tmp_path / "out", tiny_tokenizer())


def test_folder_that_is_not_empty_is_left_alone(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with (
        ropewalk.extend(WORKS["llama"](), "yarn", target_length=TARGET) as extension,
        pytest.raises(ModelError, match="exists already"),
    ):
        export_hf(extension, tmp_path, tiny_tokenizer())
    assert content(tmp_path) == {"notes.txt": b"keep"}


def test_table_that_is_read_back_otherwise_is_not_exported(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(hf, "write_rope", lambda *_: None)
    with (
        ropewalk.extend(WORKS["llama"](), "yarn", target_length=TARGET) as extension,
        pytest.raises(ModelError, match="another table"),
    ):
        export_hf(extension, tmp_path / "out", tiny_tokenizer())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("base", [1e4, 5e5, 1e7])
def test_longrope_factors_are_the_best_in_float32(base) -> None:
    """No neighbouring float32 factor brings any pair nearer."""
    wanted = base ** -(np.arange(48) / 48) / (1 + np.random.default_rng(0).random(48) * 30)
    factors = np.array(longrope_factors(base, wanted), dtype=np.float32)
    powers = base ** (torch.arange(0, 96, 2).float() / 96)

    def error(factor: np.ndarray) -> np.ndarray:
        return np.abs((1 / (torch.from_numpy(factor) * powers)).double().numpy() - wanted)

    for side in (np.float32(0), np.float32(math.inf)):
        near = np.nextafter(factors, side)
        assert (error(factors) <= error(near)).all()
        assert (error(factors) <= error(np.nextafter(near, side))).all()

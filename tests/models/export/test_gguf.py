"""A GGUF that is exported says the method's table in llama.cpp's words, and is otherwise the file that it was."""

import math
from pathlib import Path

import gguf
import numpy as np
import pytest

from ropewalk.errors import MethodError, ModelError
from ropewalk.methods import parse
from ropewalk.models.export.gguf import TENSOR, export_gguf, spec_of
from tests.models.saved import content
from tests.models.test_loading import save_gguf, tiny_model

WINDOW, TARGET = 128, 512
PAIRS = 8


def rewritten(source: Path, file: Path, arch: str = "llama", add=None, tensors=None) -> Path:
    """A GGUF again under another architecture's names, with more metadata and tensors."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, arch)
    for name, field in reader.fields.items():
        own = name.replace("llama.", f"{arch}.")
        if not name.startswith("GGUF.") and name != "general.architecture" and own not in (add or {}):
            within = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(own, field.contents(), field.types[0], sub_type=within)
    for name, value in (add or {}).items():
        kinds = {str: "STRING", float: "FLOAT32", int: "UINT32", list: "ARRAY"}
        within = gguf.GGUFValueType.UINT32 if isinstance(value, list) else None
        writer.add_key_value(name, value, gguf.GGUFValueType[kinds[type(value)]], sub_type=within)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("llama") / "tiny.gguf", tiny_model())


@pytest.fixture(scope="module")
def qwen(llama, tmp_path_factory) -> Path:
    add = {"qwen3.attention.key_length": 2 * PAIRS}
    return rewritten(llama, tmp_path_factory.mktemp("qwen") / "tiny.gguf", "qwen3", add=add)


def value(reader: gguf.GGUFReader, name: str, default=None):
    field = reader.fields.get(name)
    return default if field is None else field.contents()


def as_llama_cpp(file: Path) -> tuple[np.ndarray, float]:
    """theta_i and the factor on cos and sin, as llama.cpp's ggml_rope_ext makes them of a file."""
    reader = gguf.GGUFReader(file)
    arch = value(reader, "general.architecture")

    def read(name: str, default):
        return value(reader, f"{arch}.rope.{name}", default)

    base, kind, factor = read("freq_base", 10000.0), read("scaling.type", "linear"), read("scaling.factor", 1.0)
    attention = read("scaling.attn_factor", 1.0)
    theta = base ** -(np.arange(PAIRS) / PAIRS)
    for tensor in reader.tensors:
        if tensor.name == TENSOR:
            theta = theta / tensor.data
    if kind == "linear":
        theta = theta / factor
    if kind == "yarn":
        original = read("scaling.original_context_length", None)

        def index(beta: float) -> float:
            return 2 * PAIRS * math.log(original / (beta * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(0, math.floor(index(32.0))), min(2 * PAIRS - 1, math.ceil(index(1.0)))
        kept = 1 - np.clip((np.arange(PAIRS) - low) / max(0.001, high - low), 0, 1)
        theta = theta / factor * (1 - kept) + theta * kept
        attention *= 1 + 0.1 * math.log(factor)
    return theta, attention


def exported(source: Path, folder: Path, method: str, **options):
    spec = spec_of(source)
    filled = parse(method).resolve(spec, TARGET)
    return spec, filled, export_gguf(source, folder, filled, spec, TARGET, **options)


METHODS = ["pi", "ntk", "yarn", "yarn:attention_factor=1.2", "llama3:factor=8", "yarn-paper", "yarn-lambda"]


@pytest.mark.parametrize("method", METHODS)
def test_llama_carries_any_table_as_factors(llama, tmp_path, method) -> None:
    spec, filled, (one,) = exported(llama, tmp_path / "out", method)
    theta, attention = as_llama_cpp(one.file)
    table = filled.plan(spec, TARGET).table
    assert theta == pytest.approx(table.theta().numpy(), rel=2e-7)
    assert attention == pytest.approx(table.attention_scaling, rel=1e-7)
    assert one.length == TARGET


def test_everything_else_is_copied(llama, tmp_path) -> None:
    _, _, (one,) = exported(llama, tmp_path / "out", "yarn")
    before, after = gguf.GGUFReader(llama), gguf.GGUFReader(one.file)
    old = {tensor.name: tensor for tensor in before.tensors}
    new = {tensor.name: tensor for tensor in after.tensors}
    assert new.keys() == old.keys() | {TENSOR}
    for name, tensor in old.items():
        assert tensor.tensor_type == new[name].tensor_type
        assert np.array_equal(tensor.data, new[name].data)
    changed = {name for name in before.fields if value(after, name) != value(before, name)}
    assert changed - {name for name in changed if name.startswith("GGUF.")} == {"llama.context_length"}
    assert value(after, "llama.context_length") == TARGET
    assert value(after, "ropewalk.method").startswith("yarn:")


def test_quantised_weights_are_copied_block_by_block(llama, tmp_path) -> None:
    blocks = gguf.quants.quantize(np.ones((4, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    reader = gguf.GGUFReader(llama)
    source = tmp_path / "quantised.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            within = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=within)
    writer.add_tensor("blk.0.ffn_up.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _, _, (one,) = exported(source, tmp_path / "out", "pi")
    copied = {tensor.name: tensor for tensor in gguf.GGUFReader(one.file).tensors}["blk.0.ffn_up.weight"]
    assert copied.tensor_type == gguf.GGMLQuantizationType.Q8_0
    assert np.array_equal(copied.data, blocks)


@pytest.mark.parametrize("method", ["pi", "ntk", "ntk-liu", "yarn", "yarn:factor=3,attention_factor=1.1"])
def test_qwen_carries_what_its_metadata_can_say(qwen, tmp_path, method) -> None:
    spec, filled, (one,) = exported(qwen, tmp_path / "out", method)
    theta, attention = as_llama_cpp(one.file)
    table = filled.plan(spec, TARGET).table
    assert theta == pytest.approx(table.theta().numpy(), rel=1e-6)
    assert attention == pytest.approx(table.attention_scaling, rel=1e-6)
    assert TENSOR not in {tensor.name for tensor in gguf.GGUFReader(one.file).tensors}


@pytest.mark.parametrize("method", ["yarn-paper", "llama3:high=20", "yarn:beta_fast=4"])
def test_qwen_is_refused_what_it_cannot_say_and_told_the_nearest(qwen, tmp_path, method) -> None:
    with pytest.raises(MethodError, match=r"loads no factors for 'qwen3'; the nearest .* is off by .*%") as refusal:
        exported(qwen, tmp_path / "out", method)
    accepted = float(str(refusal.value).split("max-error of ")[1].split(",")[0])
    spec, filled, (one,) = exported(qwen, tmp_path / "out", method, max_error=accepted)
    theta, attention = as_llama_cpp(one.file)
    table = filled.plan(spec, TARGET).table
    error = np.abs(theta / table.theta().numpy() - 1).max()
    assert 1e-6 < error <= accepted
    assert error == pytest.approx(one.difference, rel=1e-3)
    assert attention == pytest.approx(table.attention_scaling, rel=1e-6)


BY_LENGTH = {
    "dynamic-ntk": [256, 512],
    "clex": [256, 512],
    "clex:whole=false": [256, 512],
    f"longrope:short={'/'.join(['1.5'] * PAIRS)},long={'/'.join(['3', '5'] * (PAIRS // 2))}": [128, 512],
}


@pytest.mark.parametrize("method", BY_LENGTH, ids=lambda method: method[:16])
def test_method_that_depends_on_the_length_gives_one_file_for_each_bucket(llama, tmp_path, method) -> None:
    spec, filled, files = exported(llama, tmp_path / "out", method)
    assert [one.file.name for one in files] == [f"tiny-ropewalk-{length}.gguf" for length in BY_LENGTH[method]]
    for one in files:
        theta, attention = as_llama_cpp(one.file)
        table = filled.plan(spec, one.length).table
        assert theta == pytest.approx(table.theta().numpy(), rel=2e-7)
        assert attention == pytest.approx(table.attention_scaling, rel=1e-7)


@pytest.mark.parametrize(
    ("add", "tensors", "named"),
    [
        ({}, {TENSOR: np.full(PAIRS, 8, dtype=np.float32)}, TENSOR),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, {}, "llama.rope.scaling.factor"),
    ],
)
def test_model_that_is_scaled_already_is_refused(llama, tmp_path, add, tensors, named) -> None:
    scaled = rewritten(llama, tmp_path / "scaled.gguf", add=add, tensors=tensors)
    with pytest.raises(ModelError, match=f"carries a rotary scaling of its own.*{named}"):
        spec_of(scaled)


def test_scaling_that_scales_nothing_is_no_obstacle(llama, tmp_path) -> None:
    idle = {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 1.0}
    spec, filled, (one,) = exported(rewritten(llama, tmp_path / "idle.gguf", add=idle), tmp_path / "out", "pi")
    assert as_llama_cpp(one.file)[0] == pytest.approx(filled.plan(spec, TARGET).table.theta().numpy(), rel=2e-7)


def test_architecture_that_is_not_known_is_refused(llama, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"rotates 'gemma3' is not known here, only llama, "):
        spec_of(rewritten(llama, tmp_path / "gemma.gguf", "gemma3"))


@pytest.mark.parametrize(("method", "reason"), [("dpe", "changes positions"), ("none", "nothing to export")])
def test_what_is_no_table_is_refused(llama, tmp_path, method, reason) -> None:
    with pytest.raises(MethodError, match=reason):
        exported(llama, tmp_path / "out", method)
    assert content(tmp_path) == {}


def test_spec_is_what_the_metadata_says(llama, qwen, tmp_path) -> None:
    spec = spec_of(llama)
    assert (spec.head_dim, spec.pairs, spec.base, spec.pretrained_length) == (2 * PAIRS, PAIRS, 5000.0, WINDOW)
    assert (spec.num_layers, spec.num_heads, spec.num_kv_heads) == (2, 4, 2)
    assert spec_of(qwen).pairs == PAIRS
    partial = rewritten(llama, tmp_path / "partial.gguf", add={"llama.rope.dimension_count": PAIRS})
    assert (spec_of(partial).head_dim, spec_of(partial).rotary_dim) == (2 * PAIRS, PAIRS)
    assert spec_of(llama, 64).pretrained_length == 64
    by_layer = {"deci.attention.head_count": [4, 0], "deci.attention.head_count_kv": [2, 0]}
    deci = spec_of(rewritten(llama, tmp_path / "deci.gguf", "deci", add=by_layer))
    assert (deci.num_heads, deci.num_kv_heads, deci.pairs) == (4, 2, PAIRS)


def test_broken_and_split_files_are_refused(llama, tmp_path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(llama.read_bytes()[:200])
    with pytest.raises(ModelError, match=r"cannot read .*broken\.gguf"):
        spec_of(broken)
    nameless = tmp_path / "nameless.gguf"
    nameless.write_bytes(llama.read_bytes().replace(b"general.architecture", b"general.architectura"))
    with pytest.raises(ModelError, match=r"says no general\.architecture"):
        spec_of(nameless)
    part = rewritten(llama, tmp_path / "part.gguf", add={"split.count": 2})
    with pytest.raises(ModelError, match="one of several parts"):
        spec_of(part)

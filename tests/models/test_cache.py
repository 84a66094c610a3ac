"""Keys that are rotated once, when they are cached: the same logits as from un-rotated keys, after every operation."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, QuantizedCache, cache_utils

import ropewalk
import ropewalk.rotary
from ropewalk.attention import BACKENDS
from ropewalk.models.cache import RotatedLayer
from tests.architectures import WORKS, build
from tests.models.batches import COMBINED, POSITION_METHODS, TARGET, texts, whole
from tests.models.twin_caches import Twins

pytestmark = pytest.mark.usefixtures("little_room")

METHODS = POSITION_METHODS | {name: COMBINED[name] for name in ("dpe+yarn", "rerope+pi")}
CLOSE = {"rtol": 0.0, "atol": 1e-4}  # logits of size 3 to 10, float32
# partial and interleaved rotary, a stock YaRN scaling, soft caps, sinks, layers that slide or do not rotate
FAMILIES = ("gpt_neox", "glm", "llama-yarn", "gemma2", "gpt_oss", "smollm3")
TWO_MAPS = ("self-extend", "dpe", "rerope", "leaky-rerope")


@pytest.fixture(params=METHODS)
def extended(request: pytest.FixtureRequest, llama: PreTrainedModel) -> Iterator[PreTrainedModel]:
    with ropewalk.extend(llama, METHODS[request.param], target_length=TARGET, verify=False):
        yield llama


def assert_equal(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    torch.testing.assert_close(*logits, **CLOSE)


def assert_pieces_agree(model: PreTrainedModel) -> None:
    twins = Twins(model, 2)
    for size in (41, 1, 1, 17, 1, 5, 1):
        assert_equal(twins.step(size, (0, 7) if size == 41 else ()))
        assert twins.rotated


def test_prefill_pieces_and_tokens(extended: PreTrainedModel) -> None:
    assert_pieces_agree(extended)


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_and_tokens_of_other_families(family: str) -> None:
    model = WORKS[family]()
    for method in ("dpe:window=13", "dca:chunk=37,window=7"):
        with ropewalk.extend(model, method, target_length=TARGET, verify=False):
            assert_pieces_agree(model)


def test_crop_within_and_beyond_what_is_spared(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 1)
    twins.step(60)
    for count in (1, 3, 9, 20, 1):
        twins.crop(count)
        assert_equal(twins.step(2))
        assert twins.rotated
    twins.crop(twins.length)
    assert_equal(twins.step(30))


def test_reordered_repeated_and_selected_rows_with_padding(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 3)
    twins.step(40, (0, 11, 27))
    twins.reorder(torch.tensor([2, 0, 2]))
    assert_equal(twins.step(1))
    twins.repeat(2)
    assert_equal(twins.step(3))
    twins.select(torch.tensor([5, 2]))
    assert_equal(twins.step(1))
    twins.select(torch.tensor([False, True]))
    assert_equal(twins.step(1))
    assert twins.rotated


@pytest.mark.parametrize("backend", ["blockwise", "compiled"])
def test_padded_rows_are_read_where_they_lie(
    llama: PreTrainedModel, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that takes such rows one by one is given views of the cache: a step copies nothing of it."""
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, backend="auto", verify=False) as extension:
        if backend != "blockwise" and extension.backend != backend:
            pytest.skip(f"{backend} cannot run here")
        extension._seam.executor.backend = backend
        twins = Twins(llama, 3)
        twins.step(40, (0, 11, 27))
        twins.step(1)
        seen: list[Any] = []
        attend = BACKENDS.get(backend).attend
        monkeypatch.setattr(BACKENDS.get(backend), "attend", lambda *given: seen.append(given[0]) or attend(*given))
        twins.step(1)
        lies = {
            x.untyped_storage().data_ptr()
            for layer in twins.ours.layers
            for x in (layer.held_values, *layer.rotated.part(slice(None), slice(0, layer.rotated.length)).values())
        }
    ours = [given for given in seen if given.rotated is not None]
    assert len(ours) == 3 * len(twins.ours.layers)
    for given in ours:
        assert all(x.untyped_storage().data_ptr() in lies for x in (given.value, *given.rotated.values()))


def test_row_whose_first_piece_is_padding(extended: PreTrainedModel) -> None:
    """Where its text begins is not known yet: the first piece stays un-rotated, the second does not."""
    twins = Twins(extended, 2)
    assert_equal(twins.step(20, (0, 20)))
    assert not twins.rotated
    assert_equal(twins.step(20, (0, 9)))
    assert twins.rotated
    assert_equal(twins.step(1))


def test_copied_and_reset_caches(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2)
    twins.step(33, (4, 0))
    twins.copied()
    assert twins.rotated
    assert_equal(twins.step(2))
    twins.reset()
    assert_equal(twins.step(9))
    assert twins.rotated


def test_shallow_copies_do_not_share_what_they_write(extended: PreTrainedModel) -> None:
    twins, others = Twins(extended, 1), Twins(extended, 1, seed=1)
    twins.step(33)
    twins.step(1)
    for ours, theirs in ((twins.ours, others.ours), (twins.plain, others.plain)):
        theirs.layers = [copy.copy(layer) for layer in ours.layers]
    others.visible = twins.visible
    assert_equal(twins.step(2))
    assert_equal(others.step(2))
    assert_equal(twins.step(1))


def test_saved_cache_goes_on(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 1)
    twins.step(33)
    file = io.BytesIO()
    torch.save(twins.ours, file)
    file.seek(0)
    twins.ours = torch.load(file, weights_only=False)
    assert_equal(twins.step(1))
    assert twins.rotated


def test_keys_read_from_outside_are_the_unrotated_ones_and_stay_so(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2)
    twins.step(33, (4, 0))
    twins.step(1)
    twins.read()
    assert_equal(twins.step(3))
    assert not twins.rotated
    assert "its keys were read" in extended._ropewalk_extension.describe()


def test_keys_written_from_outside_count(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 1)
    twins.step(33)
    for cache in (twins.ours, twins.plain):
        for layer in cache.layers:
            layer.keys = layer.keys[:, :, 10:]
            layer.values = layer.values[:, :, 10:]
    twins.visible = twins.visible[:, 10:]
    assert_equal(twins.step(1))


def test_padding_that_changes_releases_the_keys(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2)
    twins.step(33)
    twins.visible[1, :8] = False
    assert_equal(twins.step(1))
    assert not twins.rotated


def test_another_method_takes_the_truth(llama: PreTrainedModel) -> None:
    twins = Twins(llama, 1)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False):
        twins.step(33)
    with ropewalk.extend(llama, METHODS["string"], target_length=TARGET, verify=False) as extension:
        assert_equal(twins.step(1))
        assert "the plan or the padding of cached rows changed" in extension.describe()


def test_stock_model_gets_nan_for_rotated_keys(llama: PreTrainedModel) -> None:
    twins = Twins(llama, 1)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False):
        twins.step(33)
    assert twins.step(1)[0].isnan().all()


def test_cache_filled_within_a_forward_is_taken_over(extended: PreTrainedModel) -> None:
    (ids,) = texts(50)
    with torch.inference_mode():
        cache = extended(ids[:, :40], use_cache=True).past_key_values
    with torch.no_grad():
        logits = extended(ids[:, 40:], past_key_values=cache).logits
        assert all(isinstance(layer, RotatedLayer) and layer.rotated is not None for layer in cache.layers)
    torch.testing.assert_close(logits, whole(extended, ids)[:, 40:], **CLOSE)


def test_cache_filled_in_inference_mode_goes_on_outside(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2)
    with torch.inference_mode():
        assert_equal(twins.step(40, (0, 5)))
    assert twins.rotated
    for size in (1, 1, 12):
        assert_equal(twins.step(size))
    twins.crop(7)
    with torch.inference_mode():
        assert_equal(twins.step(2))
    assert twins.rotated


def test_gradients_flow_into_new_keys_and_values(extended: PreTrainedModel) -> None:
    """As they do with a stock cache: held rotated, new keys would be constants."""
    twins = Twins(extended, 1)
    twins.step(40)
    attention: Any = extended.model.layers[1].self_attn
    weights = (attention.k_proj.weight, attention.v_proj.weight)
    (ids,) = texts(5)
    found = []
    for cache in (twins.ours, twins.plain):
        logits = extended(ids, past_key_values=cache).logits
        found.append((logits, *torch.autograd.grad(logits.square().mean(), weights)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, **CLOSE)
    assert found[1][1].abs().max() > 1e-2
    assert not twins.rotated
    assert "gradients were asked for" in extended._ropewalk_extension.describe()


def test_batch_that_does_not_fit_is_refused_as_ever(extended: PreTrainedModel) -> None:
    cache = DynamicCache()
    with torch.no_grad():
        extended(torch.cat(texts(30, 30)), past_key_values=cache)
        with pytest.raises(RuntimeError):
            extended(texts(1)[0], past_key_values=cache)


@pytest.mark.parametrize("backend", ["reference"])
def test_backend_that_takes_no_rotated_keys(llama: PreTrainedModel, backend: str) -> None:
    method = METHODS["dpe"]
    with ropewalk.extend(llama, method, target_length=TARGET, backend=backend, verify=False) as extension:
        twins = Twins(llama, 1)
        twins.step(33)
        assert_equal(twins.step(1))
        assert not twins.rotated
        assert f"backend {backend} takes" in extension.describe()


def test_other_caches_are_named_and_hold_unrotated_keys(llama: PreTrainedModel) -> None:
    """A quantised cache hands the first keys over as they came, and rounded ones afterwards."""
    if not hasattr(cache_utils, "Fp8QuantizedLayer"):
        pytest.skip("this transformers quantises caches by other packages only")
    (ids,) = texts(41)
    with ropewalk.extend(llama, METHODS["dpe"], target_length=TARGET, verify=False) as extension, torch.no_grad():
        assert "so far" not in extension.describe()
        cache: Any = QuantizedCache("fp8", llama.config)
        first = llama(ids[:, :40], past_key_values=cache).logits
        torch.testing.assert_close(first, whole(llama, ids)[:, :40], **CLOSE)
        assert llama(ids[:, 40:], past_key_values=cache).logits.isfinite().all()
        assert "hold un-rotated keys so far: a QuantizedCache" in extension.describe()


def test_latent_keys_stay_unrotated_and_are_named() -> None:
    """Latent attention caches what its keys are made of."""
    model = WORKS["deepseek_v3"]()
    with ropewalk.extend(model, "dpe:window=13", target_length=TARGET, verify=False) as extension:
        twins = Twins(model, 1)
        twins.step(40)
        assert_equal(twins.step(1))
        assert not twins.rotated
        assert "changes cached keys before attention" in extension.describe()


def test_layers_that_share_keys() -> None:
    """gemma4: the last layers attend to what the last layer of their kind before them cached."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    sizes = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 99, "global_head_dim": 32}
    model = build(
        "gemma4_text", layer_types=kinds, num_hidden_layers=4, num_kv_shared_layers=2, sliding_window=8, **sizes
    )
    with ropewalk.extend(model, "dpe:window=13", target_length=TARGET, verify=False):
        assert_pieces_agree(model)


def test_layer_that_attends_twice_to_its_keys() -> None:
    model = WORKS["diffllama"]()
    with ropewalk.extend(model, "dpe:window=13", target_length=TARGET, verify=False):
        assert_pieces_agree(model)


def test_sliding_layers_in_a_cache_that_keeps_everything() -> None:
    """Without a configuration, a cache has plain layers only."""
    (ids,) = texts(60)
    model = WORKS["gemma3_text"]()
    with ropewalk.extend(model, METHODS["dpe"], target_length=TARGET, verify=False), torch.no_grad():
        cache = DynamicCache()
        pieces = [model(part, past_key_values=cache).logits for part in ids.split((40, 1, 18, 1), 1)]
        assert all(isinstance(layer, RotatedLayer) and layer.rotated is not None for layer in cache.layers)
        torch.testing.assert_close(torch.cat(pieces, 1), whole(model, ids), **CLOSE)


def test_rows_with_plans_of_their_own_stay_unrotated(llama: PreTrainedModel) -> None:
    with ropewalk.extend(llama, "self-extend:window=13+dynamic-ntk", target_length=TARGET, verify=False) as extension:
        extension.pin([50, 100])
        twins = Twins(llama, 2)
        twins.step(40)
        assert_equal(twins.step(1))
        assert not twins.rotated
        assert "rows of a batch have plans of their own" in extension.describe()


@pytest.mark.parametrize("method", METHODS)
def test_describe_says_what_the_cache_holds(llama: PreTrainedModel, method: str) -> None:
    with ropewalk.extend(llama, METHODS[method], target_length=TARGET, verify=False) as extension:
        near = method.split("+")[0] in TWO_MAPS
        assert ("remote band, and the last 13 also by that of the local band" in extension.describe()) == near
        assert "keys rotated once" in extension.describe()


@pytest.mark.parametrize("method", METHODS)
def test_a_decode_step_rotates_as_much_at_any_length(
    llama: PreTrainedModel, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per layer: the new key by every key map, and the new query by every query map."""
    numbers: list[int] = []
    turn = ropewalk.rotary._rotate
    monkeypatch.setattr(ropewalk.rotary, "_rotate", lambda x, *rest: (numbers.append(x.numel()), turn(x, *rest))[1])
    here = ropewalk.extend(llama, METHODS[method], target_length=TARGET, backend="blockwise", verify=False)
    with here as extension, torch.no_grad():
        layers, heads, kv_heads = extension.spec.num_layers, extension.spec.num_heads, extension.spec.num_kv_heads
        keys = len({band.key for band in extension.plan.bands})
        queries = len({band.query for band in extension.plan.bands})
        cache = DynamicCache()
        for length in (20, 90):
            llama(texts(length)[0][:, cache.get_seq_length() :], past_key_values=cache)
            numbers.clear()
            llama(texts(1)[0], past_key_values=cache)
            assert sum(numbers) == layers * (keys * kv_heads + queries * heads) * extension.spec.head_dim

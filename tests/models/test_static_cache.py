"""A static cache whose keys are rotated once: the logits of an un-rotated one, in the memory of the stock one."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, StaticCache

import ropewalk
import ropewalk.rotary
from ropewalk.attention import rotated
from ropewalk.models.static_cache import RotatedStaticLayer
from tests.architectures import WORKS
from tests.models.batches import POSITION_METHODS, TARGET, texts, whole
from tests.models.test_cache import CLOSE, assert_equal
from tests.models.twin_caches import Twins

pytestmark = pytest.mark.usefixtures("little_room")

METHODS = ("self-extend", "dpe", "string", "dca")


@pytest.fixture(params=METHODS)
def extended(request: pytest.FixtureRequest, llama: PreTrainedModel) -> Iterator[PreTrainedModel]:
    with ropewalk.extend(llama, POSITION_METHODS[request.param], target_length=TARGET, verify=False):
        yield llama


def test_pieces_tokens_and_reordered_rows_with_padding(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 3, kind="static")
    for size in (41, 1, 17, 1):
        assert_equal(twins.step(size, (0, 7, 20) if size == 41 else ()))
        assert twins.rotated
    twins.reorder(torch.tensor([2, 0, 2]))
    assert_equal(twins.step(2))
    twins.copied()
    assert_equal(twins.step(1))
    assert twins.rotated
    twins.reset()
    assert_equal(twins.step(9, (0, 2, 0)))
    assert twins.rotated


def test_rotated_keys_stand_in_the_memory_of_the_cache(extended: PreTrainedModel) -> None:
    """What the local band asks for comes on top: its window and what is spared for crops."""
    twins = Twins(extended, 1, kind="static")
    twins.step(41)
    places = [layer._keys.data_ptr() for layer in twins.ours.layers]
    for size in (1, 30, 1):
        assert_equal(twins.step(size))
    for layer, place in zip(twins.ours.layers, places, strict=True):
        assert layer._keys.data_ptr() == layer.rotated.whole.room.data_ptr() == place
        assert layer.rotated.whole.size == layer.max_cache_len
    near = max(reach or 0 for reach in rotated.reaches(extended._ropewalk_extension.plan).values())
    assert layer.rotated.size <= layer.max_cache_len + near + 3 + 3 * 2 + 30


def test_full_cache_is_refused_as_ever(extended: PreTrainedModel) -> None:
    cache: Any = StaticCache(config=extended.config, max_cache_len=33)
    with torch.no_grad():
        extended(texts(33)[0], past_key_values=cache)
        with pytest.raises(IndexError):
            extended(texts(1)[0], past_key_values=cache)


def test_keys_read_from_outside_are_the_unrotated_ones_and_stay_so(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2, kind="static")
    twins.step(33, (4, 0))
    twins.step(1)
    twins.read()
    assert_equal(twins.step(3))
    assert not twins.rotated
    assert "its keys were read" in extended._ropewalk_extension.describe()


def test_padding_that_changes_releases_the_keys(extended: PreTrainedModel) -> None:
    twins = Twins(extended, 2, kind="static")
    twins.step(33)
    twins.visible[1, :8] = False
    assert_equal(twins.step(1))
    assert not twins.rotated


def test_shallow_copies_do_not_share_what_they_write(extended: PreTrainedModel) -> None:
    (ids,) = texts(60)
    cache: Any = StaticCache(config=extended.config, max_cache_len=64)
    wanted = whole(extended, ids)
    with torch.no_grad():
        extended(ids[:, :40], past_key_values=cache)
        other = copy.copy(cache)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        extended(texts(1, seed=1)[0], past_key_values=other)
        torch.testing.assert_close(extended(ids[:, 40:], past_key_values=cache).logits, wanted[:, 40:], **CLOSE)


def test_full_layers_are_rotated_beside_sliding_ones() -> None:
    model = WORKS["gemma3_text"]()
    with ropewalk.extend(model, POSITION_METHODS["dpe"], target_length=TARGET, verify=False) as extension:
        twins = Twins(model, 1, kind="static")
        for size in (40, 1, 12, 1):
            assert_equal(twins.step(size))
        assert twins.rotated
        assert any(isinstance(layer, RotatedStaticLayer) for layer in twins.ours.layers)
        assert "layers of type StaticSlidingWindowLayer" in extension.describe()


@pytest.mark.parametrize("method", METHODS)
def test_a_decode_step_rotates_as_much_at_any_length(
    llama: PreTrainedModel, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Per layer: the new key by every key map, and the new query by every query map."""
    numbers: list[int] = []
    turn = ropewalk.rotary._rotate
    monkeypatch.setattr(ropewalk.rotary, "_rotate", lambda x, *rest: (numbers.append(x.numel()), turn(x, *rest))[1])
    here = ropewalk.extend(llama, POSITION_METHODS[method], target_length=TARGET, backend="blockwise", verify=False)
    with here as extension, torch.no_grad():
        layers, heads, kv_heads = extension.spec.num_layers, extension.spec.num_heads, extension.spec.num_kv_heads
        keys = len({band.key for band in extension.plan.bands})
        queries = len({band.query for band in extension.plan.bands})
        cache: Any = StaticCache(config=llama.config, max_cache_len=TARGET)
        for length in (20, 90):
            llama(texts(length)[0][:, int(cache.get_seq_length()) :], past_key_values=cache)
            numbers.clear()
            llama(texts(1)[0], past_key_values=cache)
            assert sum(numbers) == layers * (keys * kv_heads + queries * heads) * extension.spec.head_dim

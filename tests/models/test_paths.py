"""One text gives one set of logits, however it reaches the model: every method, every backend."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

import ropewalk
from ropewalk.errors import MethodError
from ropewalk.methods import METHODS
from tests.architectures import WORKS, build
from tests.models.batches import COMBINED, LENGTH, SPECIFICATIONS, TARGET, padded, pieces, texts, whole

BACKENDS = ("auto", "blockwise", "reference")
METHOD_TEXTS = SPECIFICATIONS | COMBINED
CLOSE = {"rtol": 0.0, "atol": 1e-4}  # logits of size 3 to 10, float32; measured differences stay below 2e-5
# two partial rotaries, an interleaved partial one, an interleaved whole one, a latent-attention tail; layers that slide
# (one with sinks) or do not rotate
OTHER_FAMILIES = (
    *("gpt_neox", "stablelm", "glm", "cohere", "deepseek_v3"),
    *("gemma3_text", "qwen2-window", "gpt_oss", "smollm3"),
)
DEPENDENT = ("dynamic-ntk", "longrope", "clex", "self-extend+dynamic-ntk", "dca+longrope")


@pytest.fixture(scope="module", params=OTHER_FAMILIES)
def other(request: pytest.FixtureRequest) -> Iterator[PreTrainedModel]:
    yield WORKS[request.param]()


def assert_paths_agree(model: PreTrainedModel, method: str, backend: str, first: int) -> None:
    """Prefill against pieces, single tokens after `first` of them, and both paddings of rows of three lengths."""
    rows = texts(LENGTH, 83, 58)
    with ropewalk.extend(model, method, target_length=TARGET, backend=backend, verify=False):
        alone = [whole(model, row)[0] for row in rows]
        torch.testing.assert_close(pieces(model, rows[0], (31, 1, 45, 7))[0], alone[0], **CLOSE)
        torch.testing.assert_close(pieces(model, rows[0], (first, 1))[0], alone[0], **CLOSE)
        for side in ("left", "right"):
            ids, mask = padded(rows, side)
            together = whole(model, ids, attention_mask=mask)
            for i, row in enumerate(alone):
                torch.testing.assert_close(together[i, mask[i].bool()], row, **CLOSE)
        ids, mask = padded(rows, "left")
        by_pieces = pieces(model, ids, (67, 1, 49), mask)
        for i, row in enumerate(alone):
            torch.testing.assert_close(by_pieces[i, mask[i].bool()], row, **CLOSE)


def test_every_method_is_here() -> None:
    assert set(SPECIFICATIONS) == set(METHODS.names())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHOD_TEXTS)
def test_prefill_pieces_tokens_and_padded_rows_agree(llama: PreTrainedModel, method: str, backend: str) -> None:
    assert_paths_agree(llama, METHOD_TEXTS[method], backend, first=1 if backend == "auto" else 97)


@pytest.mark.parametrize("method", ["self-extend:group=3,window=13", "dpe:window=13", "dca:chunk=37,window=7"])
def test_paths_agree_on_other_rotaries_and_mixed_layers(other: PreTrainedModel, method: str) -> None:
    assert_paths_agree(other, method, "blockwise", first=97)


@pytest.mark.parametrize("backend", BACKENDS)
def test_table_paths_agree_on_other_rotaries_and_mixed_layers(other: PreTrainedModel, backend: str) -> None:
    assert_paths_agree(other, "pi:factor=2,stack=true", backend, first=97)


@pytest.mark.parametrize("method", ["self-extend", "string", "yarn", "dpe+yarn"])
def test_backends_agree(llama: PreTrainedModel, method: str) -> None:
    (ids,) = texts(LENGTH)
    found = []
    for backend in BACKENDS:
        with ropewalk.extend(llama, METHOD_TEXTS[method], target_length=TARGET, backend=backend, verify=False):
            found.append(whole(llama, ids))
    torch.testing.assert_close(found[0], found[2], **CLOSE)
    torch.testing.assert_close(found[1], found[2], **CLOSE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", DEPENDENT)
def test_rows_pinned_to_different_lengths_equal_the_rows_alone(
    llama: PreTrainedModel, method: str, backend: str
) -> None:
    rows, pins = texts(97, 51, 33), [101, 60, 77]
    with ropewalk.extend(llama, METHOD_TEXTS[method], target_length=TARGET, backend=backend, verify=False) as extension:
        alone = []
        for row, pin in zip(rows, pins, strict=True):
            extension.pin([pin])
            alone.append(whole(llama, row)[0])
        ids, mask = padded(rows, "left")
        extension.pin(pins)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        for together in (
            whole(llama, ids, attention_mask=mask, position_ids=positions),
            pieces(llama, ids, (61, 1, 35), mask),
        ):
            for i, row in enumerate(alone):
                torch.testing.assert_close(together[i, mask[i].bool()], row, **CLOSE)
    assert not torch.allclose(alone[0][0], alone[1][0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_row_pinned_at_its_own_length_is_not_charged_for_padding(
    llama: PreTrainedModel, side: str, backend: str
) -> None:
    rows = texts(97, 33)
    ids, mask = padded(rows, side)
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, backend=backend, verify=False) as extension:
        extension.pin([97, 33])
        together = whole(llama, ids, attention_mask=mask)
        extension.pin([33])
        torch.testing.assert_close(together[1, mask[1].bool()], whole(llama, rows[1])[0], **CLOSE)


@pytest.mark.parametrize("method", DEPENDENT)
def test_unpinned_forward_uses_the_target_length(llama: PreTrainedModel, method: str) -> None:
    (ids,) = texts(43)
    with ropewalk.extend(llama, METHOD_TEXTS[method], target_length=TARGET, verify=False) as extension:
        unpinned = whole(llama, ids)
        extension.pin([TARGET])
        torch.testing.assert_close(whole(llama, ids), unpinned, rtol=0, atol=0)
        extension.pin([47])
        assert not torch.allclose(whole(llama, ids), unpinned, atol=1e-3)
        extension.pin(None)
        torch.testing.assert_close(whole(llama, ids), unpinned, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_that_grows_past_its_pin_is_refused(llama: PreTrainedModel, backend: str) -> None:
    ids = torch.cat(texts(40, 40))
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, backend=backend, verify=False) as extension:
        extension.pin([70, 41])
        cache = llama(ids, use_cache=True).past_key_values
        cache = llama(ids[:, :1], past_key_values=cache, use_cache=True).past_key_values
        with pytest.raises(MethodError, match="42 tokens and was admitted for 41"):
            llama(ids[:, :1], past_key_values=cache, use_cache=True)


@pytest.mark.parametrize("method", ["self-extend", "string"])
def test_text_beyond_the_reach_is_refused(llama: PreTrainedModel, method: str) -> None:
    (ids,) = texts(170)
    with (
        ropewalk.extend(llama, METHOD_TEXTS[method], target_length=TARGET, verify=False),
        pytest.raises(MethodError, match="170 tokens"),
    ):
        whole(llama, ids)


def test_pins_that_do_not_fit_are_refused(llama: PreTrainedModel) -> None:
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, verify=False) as extension:
        for lengths in ([], [0], [TARGET + 1]):
            with pytest.raises(MethodError, match="pin wants lengths"):
                extension.pin(lengths)
        extension.pin([50, 60])
        with pytest.raises(MethodError, match="pin one length per row"):
            whole(llama, torch.cat(texts(9, 9, 9)))


@pytest.mark.parametrize(
    "mode",
    [{"prompt_lookup_num_tokens": 3}, {"prefill_chunk_size": 23}, {"assistant": True}],
    ids=lambda mode: next(iter(mode)),
)
def test_pinned_generate_in_other_modes_gives_the_same_tokens(llama: PreTrainedModel, mode: dict[str, Any]) -> None:
    (prompt,) = texts(81)
    settings: dict[str, Any] = {"max_new_tokens": 11, "do_sample": False, "eos_token_id": None}
    settings |= {"pad_token_id": 0, "suppress_tokens": [0]}
    if mode == {"assistant": True}:
        mode = {"assistant_model": build("llama", num_hidden_layers=1)}
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, verify=False):
        assert torch.equal(llama.generate(prompt, **settings, **mode), llama.generate(prompt, **settings))


def test_generate_reads_the_new_tokens_wherever_they_are_given(llama: PreTrainedModel) -> None:
    (prompt,) = texts(81)
    plain = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, verify=False):
        wanted = llama.generate(prompt, max_new_tokens=11, **plain)
        config = GenerationConfig(max_new_tokens=11, **plain)
        assert torch.equal(llama.generate(inputs=prompt, max_length=92, **plain), wanted)
        assert torch.equal(llama.generate(prompt, generation_config=config), wanted)
        assert torch.equal(llama.generate(prompt, config), wanted)


def test_length_dependent_method_on_a_base_model() -> None:
    """A base model has no `generate` to pin."""
    llama = build("llama")
    (ids,) = texts(LENGTH)
    with torch.no_grad():
        with ropewalk.extend(llama, "dynamic-ntk", target_length=TARGET, verify=False):
            wanted = llama.model(ids).last_hidden_state
        with ropewalk.extend(llama.model, "dynamic-ntk", target_length=TARGET, verify=False):
            torch.testing.assert_close(llama.model(ids).last_hidden_state, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("method", ["dynamic-ntk", "self-extend+dynamic-ntk"])
def test_generate_pins_every_row_by_itself(llama: PreTrainedModel, method: str) -> None:
    rows = texts(81, 37, 60)
    ids, mask = padded(rows, "left")
    settings = {"max_new_tokens": 11, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with ropewalk.extend(llama, METHOD_TEXTS[method], target_length=TARGET, verify=False) as extension:
        together = llama.generate(ids, attention_mask=mask, **settings)[:, ids.shape[1] :]
        for i, row in enumerate(rows):
            assert torch.equal(llama.generate(row, **settings)[0, row.shape[1] :], together[i])
        extension.pin([row.shape[1] + 11 for row in rows])
        assert torch.equal(llama.generate(ids, attention_mask=mask, **settings)[:, ids.shape[1] :], together)
        extension.pin(None)
        with pytest.raises(MethodError, match="larger target_length"):
            llama.generate(ids, attention_mask=mask, **(settings | {"max_new_tokens": 100}))

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from ropewalk.evaluate import prefill as read_file
from ropewalk.evaluate.losses import loss_by_position, mean_loss
from ropewalk.evaluate.prefill import prefill
from ropewalk.evaluate.tasks import TASKS

LENGTH = 333


@pytest.fixture
def document(tokenizer):
    return TASKS.get("perplexity").build(tokenizer, LENGTH, seed=0, corpus="sotu")


@pytest.fixture
def capped(tokenizer):
    """A model whose logits are more than its output embedding: soft caps, and layers that slide."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=64,
        final_logit_softcapping=2.0,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config).eval()


def in_one_shot(model, document):
    """The loss that transformers computes itself, mean over all tokens."""
    ids = torch.tensor([document.ids])
    with torch.inference_mode():
        return model(input_ids=ids, labels=ids).loss.item()


@pytest.mark.parametrize("chunk", [None, 64, 100, LENGTH])
@pytest.mark.parametrize("which", ["model", "capped"])
def test_prefill_gives_the_loss_of_transformers(request, document, which, chunk):
    model = request.getfixturevalue(which)
    read = prefill(model, document.ids, chunk=chunk)
    assert read.losses.shape == (LENGTH - 1,)
    assert read.losses.dtype == torch.float32
    assert read.losses.mean().item() == pytest.approx(in_one_shot(model, document), abs=2e-5)
    assert read.cache.get_seq_length() == LENGTH


def test_prefill_reports_progress_to_the_end(model, document):
    seen = []
    prefill(model, document.ids, chunk=100, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) == 4 * (model.config.num_hidden_layers + 1)


@pytest.mark.parametrize("chunk", [None, 100])
@pytest.mark.parametrize("which", ["model", "capped"])
def test_prefill_without_losses_fills_the_same_cache_with_one_row_of_logits_a_chunk(request, document, which, chunk):
    model, rows, seen = request.getfixturevalue(which), [], []
    whole = prefill(model, document.ids, chunk=chunk)
    model.lm_head.register_forward_hook(lambda _module, _args, output: rows.append(output.shape[1]))
    read = prefill(model, document.ids, chunk=chunk, keep=0, progress=seen.append)
    assert read.losses.shape == (0,)
    assert rows == [1] * (1 if chunk is None else -(-LENGTH // chunk))
    for ours, theirs in zip(read.cache.layers, whole.cache.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("chunk", [None, 100])
@pytest.mark.parametrize("keep", [1, 32, 150, LENGTH - 1])
@pytest.mark.parametrize("which", ["model", "capped"])
def test_kept_losses_are_the_last_of_all(request, document, monkeypatch, which, keep, chunk):
    model = request.getfixturevalue(which)
    losses = prefill(model, document.ids, chunk=chunk).losses
    # A few rows at a time, so that the first ones can be left out.
    monkeypatch.setattr(read_file, "LOSS_BYTES", 4 * 16 * model.config.vocab_size)
    kept = prefill(model, document.ids, chunk=chunk, keep=keep).losses
    torch.testing.assert_close(kept, losses[-keep:])
    assert len(kept) == keep


def test_losses_by_position_add_up_to_the_whole(model, document):
    losses = prefill(model, document.ids).losses
    stretches = loss_by_position(losses, document.scored, width=100)
    assert [(first, last) for first, last, _ in stretches] == [(0, 100), (100, 200), (200, 300), (300, LENGTH)]
    # The first token has no loss.
    counts = [last - max(first, 1) for first, last, _ in stretches]
    total = sum(count * loss for count, (*_, loss) in zip(counts, stretches, strict=True))
    assert total / (LENGTH - 1) == pytest.approx(mean_loss(losses, document.scored), abs=1e-6)


def test_unscored_tokens_do_not_count():
    losses, scored = torch.tensor([1.0, 10.0, 3.0, 20.0]), [True, True, False, True, False]
    assert mean_loss(losses, scored) == 2.0
    assert mean_loss(losses, scored, 2, 3) is None
    assert loss_by_position(losses, scored, width=2) == [(0, 2, 1.0), (2, 4, 3.0)]

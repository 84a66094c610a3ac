"""One-pass perplexity equals a token-by-token computation, and so do its bits per byte."""

import math

import pytest
import torch

from ropewalk.evaluate.losses import block_losses, perplexity
from ropewalk.evaluate.tasks import TASKS

TEXT = "Grüße aus 東京 😀: naïve façade déjà vu, señor. " * 8


def nats(model, context, token):
    """-log p(token | context), in one forward of its own, float64."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([list(context)])).logits[0, -1].double()
    return (torch.logsumexp(logits, 0) - logits[token]).item()


@pytest.mark.parametrize("which", ["bpe", "bytes_only"])
def test_loss_perplexity_and_bits_are_those_of_every_token_by_itself(request, model, report, tmp_path, which):
    tokenizer = request.getfixturevalue(which)
    file = tmp_path / "own.txt"
    file.write_text(TEXT, encoding="utf-8")
    task = TASKS.get("perplexity")
    document = task.build(tokenizer, 270, seed=0, corpus=str(file))
    sample = task.measure(model, tokenizer, document, report=report)

    ids = document.ids
    losses = [nats(model, ids[:place], ids[place]) for place in range(1, len(ids))]
    mean = sum(losses) / len(losses)
    assert sample.n == len(losses) == 269
    assert sample.scores == pytest.approx([sum(losses[:255]) / 255, sum(losses[255:]) / 14], abs=1e-4)
    assert sample.details["loss"] == pytest.approx(mean, abs=1e-4)
    assert sample.details["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    # With a start token all text is scored; without one, its first byte is not ("G" is a token of one byte).
    text = document.text.encode("utf-8")
    first = 0 if ids[0] == tokenizer.bos_token_id else 1
    bits = sum(losses) / math.log(2) / len(text[first:])
    assert sample.details["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    assert TEXT.encode("utf-8").startswith(text.removesuffix(b"\n\n")[:-4])


def test_bits_per_byte_compare_where_nats_per_token_do_not(model, bpe, bytes_only, report):
    """A model that knows nothing pays ln V a token; per byte of text that is what V and the token's length say."""
    model.lm_head.weight.data.zero_()
    task = TASKS.get("perplexity")
    for tokenizer in (bpe, bytes_only):
        document = task.build(tokenizer, 600, seed=0, corpus="moby-dick")
        found = task.measure(model, tokenizer, document, report=report).details
        assert found["loss"] == pytest.approx(math.log(len(bpe)), abs=1e-5)
        size = len(document.text.encode("utf-8")) - (0 if document.ids[0] == tokenizer.bos_token_id else 1)
        tokens = len(document.ids) - 1
        assert found["bits_per_byte"] == pytest.approx(tokens * math.log2(len(bpe)) / size, rel=1e-6)


@pytest.mark.parametrize(("count", "width"), [(1, 8), (7, 8), (12, 8), (100, 8), (1000, 256), (4095 + 16 * 256, 256)])
def test_blocks_average_to_the_mean_of_the_tokens_whatever_is_left_over(count, width):
    losses = torch.rand(count, generator=torch.Generator().manual_seed(count)) * 10
    blocks = block_losses(losses, width=width)
    assert sum(blocks) / len(blocks) == pytest.approx(sum(losses.tolist()) / count, rel=1e-12)
    assert len(blocks) == max(1, round(count / width))


def test_perplexity_beyond_any_float_is_not_known():
    assert perplexity(math.log(20.0)) == pytest.approx(20.0)
    assert perplexity(710.0) is None

"""A SentenceTransformer over an encoder with rotary positions reads longer texts."""

import numpy as np
import pytest

import ropewalk
from tests.architectures import ENCODERS, PRETRAINED_LENGTH
from tests.models.batches import TARGET
from tests.models.embedding.encoders import pipeline

SHORT = " ".join(f"w{i % 7}" for i in range(20))
LONG = " ".join(f"w{i % 11}" for i in range(100))


def encoder(family: str):
    return pipeline(ENCODERS[family](), limit=PRETRAINED_LENGTH)


@pytest.mark.parametrize("family", ["modernbert", "nomic_bert"])
@pytest.mark.parametrize("method", ["dynamic-ntk", "ntk", "self-extend:group=3,window=22", "rerope:window=22"])
def test_pipeline_reads_the_end_of_a_long_text_and_pads_mean_nothing(family: str, method: str) -> None:
    model = encoder(family)
    texts = [SHORT, LONG, f"{LONG} w30"]
    stock = model.encode(texts)
    assert np.array_equal(stock[1], stock[2])  # the end is cut off
    with ropewalk.extend(model, method, target_length=TARGET):
        alone = np.stack([model.encode(text) for text in texts])
        assert np.abs(alone[1] - alone[2]).max() > 1e-4
        for side in ("left", "right"):
            model.tokenizer.padding_side = side
            np.testing.assert_allclose(model.encode(texts), alone, atol=1e-5)
    model.tokenizer.padding_side = "right"
    assert np.array_equal(model.encode(texts), stock)


@pytest.mark.parametrize("family", ["modernbert", "nomic_bert"])
def test_short_text_is_embedded_as_by_the_original_model(family: str) -> None:
    model = encoder(family)
    stock = model.encode(SHORT)
    with ropewalk.extend(model, "dynamic-ntk", target_length=TARGET):
        assert np.array_equal(model.encode(SHORT), stock), "its table is the model's own up to the trained window"
    with ropewalk.extend(model, "self-extend:group=3,window=22", target_length=TARGET):
        np.testing.assert_allclose(model.encode(SHORT), stock, atol=1e-5)

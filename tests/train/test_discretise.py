"""Buckets of factors are the learned table, and say how far they are from it."""

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from ropewalk.errors import MethodError
from ropewalk.grid import Grid
from ropewalk.methods import CLEX, parse
from ropewalk.train.discretise import discretise
from tests.contract.cases import make_spec

SPEC = make_spec(head_dim=32, base=5e5, pretrained_length=64)
RNG = np.random.default_rng(0)
NETWORK = CLEX(
    up=Grid(RNG.uniform(-1, 1, (16, 24)) / 16), down=Grid(RNG.normal(0, 0.02, (24, 16))), gate=math.inf, max_factor=16
)


def theta(method, length: int) -> np.ndarray:
    return method.plan(SPEC, length).table.inv_freq.array[0, 0]


def test_bucket_as_a_method_has_the_learned_table_within_its_rounding() -> None:
    for bucket in discretise(NETWORK, SPEC, [128, 512, 1024]):
        method = bucket.method(SPEC)
        for length in (10, bucket.length):  # the same table for every text: the bucket is chosen when a model is served
            error = np.abs(theta(method, length) / theta(NETWORK, bucket.length) - 1).max()
            assert error == pytest.approx(bucket.rounding, rel=1e-6)
            assert method.plan(SPEC, length).table.attention_scaling == 1
        assert 0 < bucket.rounding < 2**-23


def test_spread_of_a_bucket_is_that_of_its_shortest_text_on_a_steady_trajectory() -> None:
    """Untrained, ln theta falls by c_i ln(2t - 1), so the shortest text is the farthest one, on the slowest pair."""
    first, second = discretise(CLEX(), SPEC, [128, 512])
    assert (first.shortest, first.length, second.shortest, second.length) == (65, 128, 129, 512)
    for bucket in (first, second):
        ratio = (2 * bucket.length / 64 - 1) / (2 * bucket.shortest / 64 - 1)
        assert bucket.within == pytest.approx(math.log(ratio), rel=1e-9)


def test_narrow_buckets_are_nearer_than_wide_ones() -> None:
    (wide,) = discretise(NETWORK, SPEC, [512])
    narrow = discretise(NETWORK, SPEC, [128, 256, 512])
    assert max(bucket.within for bucket in narrow) < wide.within


def test_saved_bucket_is_read_by_longrope(tmp_path) -> None:
    (bucket,) = discretise(NETWORK, SPEC, [512])
    path = tmp_path / "factors.json"
    bucket.save(path, SPEC)
    read = parse(f"longrope:file={path}").plan(SPEC, 512)
    assert read == bucket.method(SPEC).plan(SPEC, 512)
    value = json.loads(path.read_text())
    assert (value["rope_type"], value["factor"]) == ("longrope", 8.0)
    assert [value[name] for name in ("attention_factor", "short_mscale", "long_mscale")] == [1.0] * 3
    assert_allclose(value["long_factor"], np.array(SPEC.inv_freq) / theta(NETWORK, 512), rtol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], r"growing lengths, got \[\]"),
        ([256, 256], "growing lengths"),
        ([64, 128], "64 tokens lies within the trained window of 64"),
        ([128, 2000], "reaches 1024 tokens"),
    ],
)
def test_buckets_that_cannot_be_are_refused(lengths, message) -> None:
    with pytest.raises(MethodError, match=message):
        discretise(NETWORK, SPEC, lengths)

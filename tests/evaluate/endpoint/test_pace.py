import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.evaluate.endpoint.pace import Pace


class Time:
    """Virtual seconds, from any beginning."""

    def __init__(self) -> None:
        self.now = 1000.0

    async def sleep(self, seconds):
        self.now += seconds


def moments(requests, tokens, sizes, gaps):
    """When each request is let through, the next one coming `gap` seconds after it."""
    time = Time()
    pace = Pace(requests, tokens, clock=lambda: time.now, sleep=time.sleep)
    passed = []
    for size, gap in zip(sizes, gaps, strict=True):
        asyncio.run(pace.wait(size))
        passed.append(time.now)
        time.now += gap
    return passed


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 40)), min_size=1, max_size=40),
    st.one_of(st.none(), st.integers(1, 7)),
    st.one_of(st.none(), st.integers(50, 120)),
)
def test_no_minute_holds_more_than_allowed(arrivals, requests, tokens):
    sizes, gaps = zip(*arrivals, strict=True)
    passed = moments(requests, tokens, sizes, gaps)
    for start in passed:
        # A shade less than 60 s: what begins exactly a minute later may be rounded down to before it.
        inside = [size for moment, size in zip(passed, sizes, strict=True) if start <= moment < start + 59.999]
        assert requests is None or len(inside) <= requests
        assert tokens is None or sum(inside) <= tokens


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30), st.integers(1, 7))
def test_request_waits_only_for_the_one_that_fills_its_minute(gaps, requests):
    passed = moments(requests, None, [1] * len(gaps), gaps)
    arrived = [1000.0, *(moment + gap for moment, gap in zip(passed, gaps, strict=True))][:-1]
    for index, moment in enumerate(passed):
        freed = passed[index - requests] + 60 if index >= requests else 0
        assert moment == pytest.approx(max(arrived[index], freed))


def test_requests_that_wait_together_pass_in_order():
    time = Time()
    order = []

    async def nap(seconds):
        order.append(seconds)

    async def burst():
        pace = Pace(2, None, clock=lambda: time.now, sleep=nap)
        await asyncio.gather(*(pace.wait(1) for _ in range(5)))

    asyncio.run(burst())
    assert order == [60, 60, 120]


def test_tokens_wait_for_as_many_as_they_need():
    assert moments(None, 100, [60, 40, 50, 10, 100], [0] * 5) == [1000, 1000, 1060, 1060, 1120]

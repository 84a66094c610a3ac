"""Edges: what each query sees in a region, as a range of keys, is what the region contains."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.attention.build import missing
from ropewalk.attention.compiled import NOWHERE, numbers
from ropewalk.plan import Region


def edges(regions, total, new, positions=None) -> torch.Tensor:
    reason = missing(torch.float32)
    if reason is not None:
        pytest.skip(reason)
    flat = [number for region in regions for number in numbers(region)]
    return torch.ops.ropewalk.edges(flat, total, new, NOWHERE if positions is None else positions)


@st.composite
def regions(draw) -> Region:
    lo = draw(st.integers(0, 20))
    hi = draw(st.none() | st.integers(lo + 1, 40))
    return Region(lo, hi, draw(st.sampled_from([1, 1, 3, 8])), side=draw(st.sampled_from(["past", "future"])))


@given(region=regions(), total=st.integers(1, 50), data=st.data())
def test_edges_are_the_keys_that_the_region_contains(region, total, data) -> None:
    new = data.draw(st.integers(1, total))
    gaps = data.draw(st.none() | st.lists(st.integers(1, 5), min_size=total, max_size=total))
    positions = None if gaps is None else torch.tensor(gaps).cumsum(0) - 1
    low, high = edges([region], total, new, positions)[0]
    n = torch.arange(total) if positions is None else positions
    inside = region.contains(n[total - new :, None], n[None, :])
    slots = torch.arange(total)
    assert torch.equal((slots >= low[:, None]) & (slots < high[:, None]), inside)
    assert bool((low.diff() >= 0).all()) and bool((high.diff() >= 0).all())


@given(region=regions())
def test_every_region_has_edges_of_its_own(region) -> None:
    other = replace(region, lo=0, hi=1, chunk=1)
    assert torch.equal(edges([other, region], 30, 7)[1], edges([region], 30, 7)[0])

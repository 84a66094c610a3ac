"""Tables of cos and sin: exact at long positions, kept while they fit, and never mixed up."""

import math

import pytest
import torch

from ropewalk.attention import tables
from ropewalk.attention.tables import Tables
from ropewalk.methods import parse
from ropewalk.plan import PositionMap
from tests.contract.cases import make_spec

CPU = torch.device("cpu")
SPEC = make_spec()
PLAN = parse("none").plan(SPEC, 256)
ASKED = (PositionMap(), PLAN, 0, torch.arange(4), CPU)


def test_angles_are_exact_at_a_million_tokens() -> None:
    position = 1_000_003
    cos, sin = Tables().get(PositionMap(), PLAN, 0, torch.tensor([position]), CPU)
    for i, theta in enumerate(SPEC.inv_freq):
        assert abs(cos[0, 0, i].item() - math.cos(position * theta)) < 1e-7
        assert abs(sin[0, 0, i].item() - math.sin(position * theta)) < 1e-7


def test_a_range_is_its_positions_however_the_table_grew() -> None:
    kept = Tables()
    for start, stop in ((0, 3), (2, 90), (40, 41), (0, 1000), (7, 9)):
        ours = kept.get(PositionMap(), PLAN, 0, range(start, stop), CPU)
        fresh = Tables().get(PositionMap(), PLAN, 0, torch.arange(start, stop), CPU)
        assert all(torch.equal(a, b) for a, b in zip(ours, fresh, strict=True))


def test_tables_of_different_maps_frequencies_and_layers_are_not_mixed_up() -> None:
    kept = Tables()
    plans = [parse(text).plan(SPEC, 256) for text in ("none", "pi:factor=2", "yarn:factor=2", "self-extend:group=4")]
    for _ in range(2):
        for plan in plans:
            for band in plan.bands:
                for to in (band.query, band.key):
                    ours = kept.get(to, plan, 0, range(5, 30), CPU)
                    fresh = Tables().get(to, plan, 0, torch.arange(5, 30), CPU)
                    assert all(torch.equal(a, b) for a, b in zip(ours, fresh, strict=True))


@pytest.mark.parametrize("largest", [2**26, 0])
@pytest.mark.parametrize("method", ["self-extend:group=4", "yarn:factor=2"])
def test_rows_have_the_angles_of_their_own_positions(monkeypatch, method, largest) -> None:
    monkeypatch.setattr(tables, "LARGEST", largest)
    plan = parse(method).plan(SPEC, 256)
    to, positions = plan.bands[-1].key, torch.tensor([[7, 8, 9], [0, 0, 1]])
    found = Tables().of_rows(to, plan, 0, positions, 10)
    for row, own in enumerate(positions):
        fresh = Tables().get(to, plan, 0, own, CPU)
        assert all(torch.equal(a[row], b) for a, b in zip(found, fresh, strict=True))


@pytest.mark.parametrize("before", [None, 550])
def test_a_range_too_long_to_keep_is_built_alone_whatever_was_kept(monkeypatch, before) -> None:
    """A kept table has more rows than were asked for, so it could serve a range that alone would be too long."""
    monkeypatch.setattr(tables, "LARGEST", 600 * PLAN.table.pairs)
    kept = Tables()
    if before is not None:
        kept.get(PositionMap(), PLAN, 0, range(before), CPU)
    cos, sin, row = kept.around(PositionMap(), PLAN, 0, range(690, 700), CPU)
    assert (len(cos[0]), len(sin[0]), row) == (10, 10, 0)


def test_tables_made_in_inference_mode_serve_training() -> None:
    with torch.inference_mode():
        found = [x for dtype in (torch.float32, torch.float16) for x in Tables(dtype).get(*ASKED)]
    assert [x.dtype for x in found] == [torch.float32] * 2 + [torch.float16] * 2
    assert not any(x.is_inference() for x in found)


def test_no_more_tables_are_kept_than_allowed(monkeypatch) -> None:
    monkeypatch.setattr(tables, "KEPT", 3)
    kept = Tables()
    for factor in range(1, 9):
        kept.get(PositionMap(), parse(f"pi:factor={factor}").plan(SPEC, 256), 0, range(4), CPU)
    assert len(kept._kept) == 3


def test_a_table_made_in_inference_mode_serves_a_training_step() -> None:
    kept = Tables()
    with torch.inference_mode():
        kept.get(PositionMap(), PLAN, 0, range(8), CPU)
    x = torch.ones(8, SPEC.pairs, requires_grad=True)
    cos, _ = kept.get(PositionMap(), PLAN, 0, range(8), CPU)
    (x * cos[0]).sum().backward()
    assert torch.equal(x.grad, cos[0])

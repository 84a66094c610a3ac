"""A step of decoding as one call: the reference within 1e-6 in float32, and keys in a cache left as they were."""

import numpy as np
import pytest
import torch

from ropewalk.attention import BACKENDS
from ropewalk.attention.ragged import Ragged
from ropewalk.attention.rotated import RotatedKeys
from ropewalk.attention.tail import tail_and_rest
from ropewalk.grid import Grid
from ropewalk.methods import DPE, parse
from ropewalk.plan import Band, Region
from tests.attention.test_gradients import METHODS, SPEC, plan_of
from tests.attention.varlen_emulator import EmulatedVarlen, TorchModule
from tests.contract.test_backends import cast, like, make_inputs

TWO = [name for name in METHODS if name != "dca"]
BACKEND = Ragged("varlen-tail", EmulatedVarlen(TorchModule()), at_once=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Keys in each call of the kernel."""
    found: list[int] = []
    forward = EmulatedVarlen.forward

    def counted(self, q, k, v, call, *rest):
        found.append(call.longest_k)
        return forward(self, q, k, v, call, *rest)

    monkeypatch.setattr(EmulatedVarlen, "forward", counted)
    return found


def assert_exact(found, wanted) -> None:
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left.double(), right.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("total", [333, 131, 130, 40, 1])
@pytest.mark.parametrize("name", TWO)
def test_one_call_is_the_reference(name, total, calls) -> None:
    inputs = cast(make_inputs(SPEC, total=total, new=1, batch=2, sinks=torch.linspace(-1, 2, 4)), torch.float32)
    plan = plan_of(name, log_n=64)
    assert_exact(BACKEND.attend(inputs, plan, SPEC, 0), BACKENDS.get("reference").attend(inputs, plan, SPEC, 0))
    assert calls == [total]


def test_one_call_under_an_attention_scaling_is_the_reference(calls) -> None:
    plan = parse("self-extend:group=4,window=130+yarn:factor=4").plan(SPEC, 1024)
    assert plan.table.attention_scaling != 1
    inputs = cast(make_inputs(SPEC, total=333, new=1), torch.float32)
    assert_exact(BACKEND.attend(inputs, plan, SPEC, 0), BACKENDS.get("reference").attend(inputs, plan, SPEC, 0))
    assert calls == [333]


def test_one_call_over_masks_per_head_is_the_reference(calls) -> None:
    mask = Grid(np.random.default_rng(0).random((1, 4, 16)) < 0.5)
    plan = DPE(window=130, scales=(3.0, 1.0, 7.5, 9.0), mask=mask).plan(SPEC, 1024)
    inputs = cast(make_inputs(SPEC, total=333, new=1), torch.float32)
    assert_exact(BACKEND.attend(inputs, plan, SPEC, 0), BACKENDS.get("reference").attend(inputs, plan, SPEC, 0))
    assert calls == [333]


@pytest.mark.parametrize("name", TWO)
def test_padded_rows_are_the_rows_alone(name, calls) -> None:
    rows = ((40, 333), (0, 333), (299, 333))
    inputs = cast(make_inputs(SPEC, total=333, new=1, batch=3), torch.float32)
    output, lse = BACKEND.attend(like(inputs, rows=rows), plan_of(name, log_n=64), SPEC, 0)
    for row, (first, last) in enumerate(rows):
        one = slice(row, row + 1)
        alone = like(
            inputs, query=inputs.query[one], key=inputs.key[one, :, first:last], value=inputs.value[one, :, first:last]
        )
        wanted = BACKENDS.get("reference").attend(alone, plan_of(name, log_n=64), SPEC, 0)
        assert_exact((output[one], lse[one]), wanted)
    assert calls == [333]


@pytest.mark.parametrize("name", TWO)
def test_steps_over_a_cache_are_the_reference_and_leave_it_as_it_was(name, calls) -> None:
    plan, total, steps = plan_of(name), 333, 5
    inputs = cast(make_inputs(SPEC, total=total, new=total), torch.float32)
    held = RotatedKeys(
        inputs.key[:, :, : total - steps], 1, plan, spec=SPEC, layer=0, origins=[0], tables=BACKEND.tables
    )
    for stop in range(total - steps + 1, total + 1):
        held.append(inputs.key[:, :, stop - 1 : stop])
        part = held.part(slice(None), slice(0, stop))
        before = {to: keys.clone() for to, keys in part.items()}
        key, value = inputs.key[:, :, :stop], inputs.value[:, :, :stop]
        plain = like(inputs, query=inputs.query[:, :, stop - 1 : stop], key=key, value=value)
        found = BACKEND.attend(like(plain, key=torch.full_like(key, torch.nan), rotated=part), plan, SPEC, 0)
        assert_exact(found, BACKENDS.get("reference").attend(plain, plan, SPEC, 0))
        assert all(torch.equal(keys, before[to]) for to, keys in part.items())
    assert calls == list(range(total - steps + 1, total + 1))


def test_other_plans_longer_calls_and_gradients_take_a_call_for_each_band(calls) -> None:
    inputs = cast(make_inputs(SPEC, total=333, new=2), torch.float32)
    BACKEND.attend(inputs, plan_of("dpe"), SPEC, 0)
    assert len(calls) == 2
    last = like(inputs, query=inputs.query[:, :, -1:])
    BACKEND.attend(last, plan_of("dca"), SPEC, 0)
    assert len(calls) == 4
    BACKEND.attend(like(last, query=last.query.clone().requires_grad_()), plan_of("dpe"), SPEC, 0)
    assert len(calls) == 6


def test_the_bands_that_are_taken_at_once_are_the_last_distances_and_all_others() -> None:
    local, remote = plan_of("dpe").bands
    assert tail_and_rest(plan_of("dpe")) == tail_and_rest(plan_of("dpe", bands=(remote, local))) == (local, remote)
    for regions in ((Region(0, 5), Region(6)), (Region(1, 5), Region(5)), (Region(0, 5), Region(5, 9)), (Region(),)):
        assert tail_and_rest(plan_of("dpe", bands=tuple(Band(region) for region in regions))) is None
    chunks = (Band(Region(0, 1, 7)), Band(Region(1, None, 7)))
    assert tail_and_rest(plan_of("dpe", bands=chunks)) is None

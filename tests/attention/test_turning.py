"""Queries and keys as a backend gets them."""

from dataclasses import replace

import torch

from ropewalk.attention.tables import Tables
from ropewalk.attention.turning import turned
from ropewalk.grid import Grid
from ropewalk.methods import parse
from ropewalk.rotary import FrequencyTable
from tests.contract.cases import make_spec
from tests.contract.test_backends import cast, make_inputs


def test_queries_under_a_log_n_scale_are_rounded_once() -> None:
    """A rounded scale would move all logits of a query alike, in bfloat16 by up to 0.4 %."""
    spec = make_spec()
    still = FrequencyTable(Grid([0.0] * spec.pairs))
    plan = replace(parse("none").plan(spec, 256), table=still, log_n=8)
    inputs = cast(make_inputs(spec, total=60, new=60), torch.bfloat16)
    scale = (torch.arange(60, dtype=torch.float64) + 1).log().div(torch.tensor(8.0, dtype=torch.float64).log())
    ((query,), _) = (tuple(some.values()) for some in turned(inputs, plan, spec, 0, Tables()))
    assert torch.equal(query, (inputs.query.float() * scale.clamp(min=1).float()[:, None]).bfloat16())

"""The sampler, the target and T of a run follow from its method and its model."""

import pytest

from ropewalk.errors import TrainingError
from ropewalk.methods import CLEX, parse
from ropewalk.train.choose import method_for, sampler_for, target_of
from ropewalk.train.samplers import E2LLM, Clex, Contiguous, PoSE, RandPos
from tests.contract.cases import make_spec

SPEC = make_spec(pretrained_length=64)


@pytest.mark.parametrize(
    ("method", "asked", "target"),
    [
        ("clex", None, 1024),
        ("clex:max_factor=4", None, 256),
        ("clex", 300, 300),
        ("pi:factor=8", None, 512),
        ("none", None, 64),
    ],
)
def test_target_is_as_asked_or_what_the_method_reaches(method, asked, target) -> None:
    assert target_of(parse(method), SPEC, asked) == target


def test_longest_factor_of_clex_covers_the_target_unless_it_is_given() -> None:
    assert method_for(CLEX(), SPEC, 300) == CLEX(max_factor=5)
    assert method_for(CLEX(max_factor=4), SPEC, 300) == CLEX(max_factor=4)
    assert method_for(parse("pi"), SPEC, 300) == parse("pi")


def test_sampler_is_filled_from_the_model_and_the_target() -> None:
    assert sampler_for(None, CLEX(max_factor=5), SPEC, 300) == Clex(pretrained_length=64, max_factor=5)
    pi = parse("pi:factor=5")
    assert sampler_for(None, pi, SPEC, 300) == Contiguous()
    assert sampler_for("pose", pi, SPEC, 300, chunks=3) == PoSE(target_length=300, chunks=3)
    assert sampler_for("randpos", pi, SPEC, 300) == RandPos(target_length=300)
    assert sampler_for("e2-llm", parse("none"), SPEC, 300) == E2LLM(pretrained_length=64, max_scale=5)


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("contiguous", "clex", "do not go together"),
        ("clex", "pi", "do not go together"),
        ("e2-llm", "pi:factor=2", "with the method none, got pi:factor=2"),
        ("pos", "pi", "did you mean 'pose'"),
    ],
)
def test_pairs_that_do_not_go_together_are_refused(name, method, message) -> None:
    with pytest.raises(TrainingError, match=message):
        sampler_for(name, parse(method), SPEC, 300)

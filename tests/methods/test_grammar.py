"""The text form of methods: read, written back, and refused with one clear line."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import MethodError
from ropewalk.methods import DPE, METHODS, Combined, LeakyReRoPE, LongRoPE, SelfExtend, Unchanged, Yarn, parse
from ropewalk.methods.grammar import written
from tests.contract.cases import NAMES

numbers = st.floats(1e-9, 1e9) | st.integers(1, 99).map(float)
VALUES = {
    int: st.integers(1, 2**31),
    float: numbers,
    bool: st.booleans(),
    str: st.sampled_from(["tanh", "silu"]),
    Path: st.sampled_from([Path("x.json"), Path("out/my profile.json"), Path("/a/b-c_d.e")]),
}


def values_of(kind) -> st.SearchStrategy:
    return VALUES[kind] if kind in VALUES else st.lists(numbers, min_size=1, max_size=9).map(tuple)


@st.composite
def methods(draw, name: str):
    """A method of this name with some of its fields given; nothing is checked before a model is known."""
    parts = []
    for part in name.split("+"):
        kinds = {key: kind for key, (_, kind) in written(METHODS.get(part)).items()}
        chosen = draw(st.sets(st.sampled_from(sorted(kinds))))
        if "+" in name:
            chosen -= {"retain"}  # longrope alone retains start tokens
        parts.append(METHODS.get(part)(**{key: draw(values_of(kinds[key])) for key in sorted(chosen)}))
    return parts[0] if len(parts) == 1 else Combined(position=parts[0], frequency=parts[1])


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_written_method_is_read_back(name, data) -> None:
    method = data.draw(methods(name))
    assert parse(str(method)) == method


@pytest.mark.parametrize("name", NAMES)
def test_name_alone_leaves_every_field_open(name) -> None:
    assert str(parse(name)) == name


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("none", Unchanged()),
        ("self-extend:group=4,window=1k", SelfExtend(group=4, window=1024)),
        (" self-extend : window = 1_024 , group=4 ", SelfExtend(group=4, window=1024)),
        ("self-extend:log-n=yes,logit-scale=1.2", SelfExtend(log_n=True, logit_scale=1.2)),
        ("self-extend:log_n=false", SelfExtend(log_n=False)),
        ("dpe:window=1024,scales=1/1/1/1/4/4/4/4.5", DPE(window=1024, scales=(1, 1, 1, 1, 4, 4, 4, 4.5))),
        ("dpe:profile=out/x.json", DPE(profile=Path("out/x.json"))),
        ("longrope:long=1/2,original=4k", LongRoPE(long=(1.0, 2.0), original=4096)),
        ("longrope:long=1/2,retain=0", LongRoPE(long=(1.0, 2.0), retain=0)),
        ("yarn:factor=2.5,stack=TRUE", Yarn(factor=2.5, stack=True)),
        ("dpe:window=8+yarn:factor=2", Combined(position=DPE(window=8), frequency=Yarn(factor=2.0))),
        ("dpe + yarn", Combined(position=DPE(), frequency=Yarn())),
    ],
)
def test_text_is_read_by_the_type_of_the_field(text, method) -> None:
    assert parse(text) == method


def test_infinity_is_a_number() -> None:
    assert math.isinf(parse("leaky-rerope:slope=inf").slope)


@pytest.mark.parametrize("slope", [1e16, 2.5e300, 1e-20, math.inf])
def test_very_large_and_small_numbers_are_written_and_read_back(slope) -> None:
    """Python writes 1e16 as 1e+16, and the plus sign joins methods."""
    method = LeakyReRoPE(slope=slope)
    assert parse(str(method)) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self-extnd", r"unknown method 'self-extnd'; did you mean 'self-extend'.*known: .*none, "),
        ("", r"unknown method ''.*known: .*none, "),
        ("dpe+", r"unknown method ''"),
        ("dpe+yrn", r"unknown method 'yrn'; did you mean 'yarn'"),
        ("self-extend:grup=4", r"self-extend: unknown parameter 'grup'; did you mean 'group'\? known: .*window"),
        ("self-extend:4", r"self-extend: unknown parameter '4'"),
        ("dpe:mask=1", r"dpe: unknown parameter 'mask'"),
        ("self-extend:group=", r"self-extend: parameter 'group' has no value; write group=VALUE"),
        ("self-extend:group", r"self-extend: parameter 'group' has no value"),
        ("self-extend:group=4,group=8", r"self-extend: parameter 'group' is given twice"),
        ("self-extend:log-n=1,log_n=1", r"self-extend: parameter 'log_n' is given twice"),
        ("self-extend:group=2.5", r"self-extend: group wants a whole number, got '2.5'"),
        ("self-extend:group=0", r"self-extend: group wants a whole number, got '0'"),
        ("self-extend:window=-4", r"self-extend: window wants a whole number, got '-4'"),
        ("yarn:factor=two", r"yarn: factor wants a number, got 'two'"),
        ("yarn:stack=maybe", r"yarn: stack wants true or false, got 'maybe'"),
        ("dpe:scales=1/x", r"dpe: scales wants a list of numbers such as 1/1/4/4, got '1/x'"),
        ("dpe:scales=1//4", r"dpe: scales wants a list of numbers"),
        ("yarn+dpe", r"yarn\+dpe: join one position method and one frequency method, in this order"),
        ("dpe+self-extend", r"join one position method and one frequency method"),
        ("none+yarn", r"join one position method and one frequency method"),
        ("dpe+yarn+pi", r"joins 3 methods"),
    ],
)
def test_wrong_text_is_refused(text, message) -> None:
    with pytest.raises(MethodError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_parameter_can_be_written(name) -> None:
    """Names are words of the grammar: no dash, no character that separates."""
    method = METHODS.get(name)
    assert set(written(method)) <= {f.name for f in fields(method)}
    assert all(key.isidentifier() for key in written(method))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_names_its_paper_and_cites_it(name) -> None:
    method = METHODS.get(name)
    assert method.name == name and method.paper
    assert method.bibtex.startswith("@") and method.bibtex.count("{") == method.bibtex.count("}")
    assert method.needs in ("nothing", "profile", "training") and method.kind in ("position", "frequency", "both")

"""What NVIDIA's generator at c3f5e3b does, each as its own code does it with seed 42."""

import random
import re

import pytest

from ropewalk.evaluate.ruler.base import Body
from ropewalk.evaluate.ruler.compat import shrink
from ropewalk.evaluate.ruler.fit import TooShortError
from ropewalk.evaluate.ruler.suite import FAMILIES, RULER
from ropewalk.evaluate.ruler.wording import NOISE


def draw(units):
    return Body("x" * units, ("x",))


def count(body):
    return len(body.context)


@pytest.mark.parametrize(("task", "units", "fits"), [("niah_multikey_3", 47, 22), ("niah_single_2", 3289, 2789)])
def test_sample_that_is_too_long_loses_a_whole_step(task, units, fits):
    assert count(shrink(FAMILIES.get(task), 4096, units - 1, units, draw, count)) == fits


def test_sample_without_a_step_to_lose_is_too_short():
    with pytest.raises(TooShortError) as error:
        shrink(FAMILIES.get("niah_multikey_3"), 4096, 21, 47, draw, count)
    assert error.value.tokens == 22


@pytest.mark.parametrize("task", RULER)
def test_smallest_sample_is_drawn_and_holds_its_answer(generator, task):
    family, shared = FAMILIES.get(task), generator(task, 4096, mode="compat")
    body = family.frozen(shared._setting, shared._rng(0), 0, family.fewest)
    assert family.metric(body.context, body.references) == 1.0


def test_variable_tracking_is_at_most_two_steps_short(generator, tokenizer):
    """The bound of the search does not count the worked example; one that does ends the search too early."""
    length = 16384
    made = generator("vt", length, mode="compat").sample(0)
    line = len(tokenizer("\n" + " ".join(NOISE))["input_ids"])
    assert len(made.ids) + made.tokens_to_generate > length - 2 * FAMILIES.get("vt").step(length) * line


def test_needle_without_a_sentence_before_it_follows_a_space_of_its_own(generator):
    """At depth 0, and where two have the same depth in a short text."""
    shared = generator("niah_multivalue", 4096, mode="compat")
    found = [
        FAMILIES.get("niah_multivalue").frozen(shared._setting, random.Random(seed), 0, 40).context
        for seed in range(60)
    ]
    assert any(context.startswith(" One of the special") for context in found)
    assert any(re.search(r"is: \d{7}\.  One of the special", context) for context in found)
    assert all(" ".join(context.split()) == context.strip().replace("  ", " ") for context in found)
    between = FAMILIES.get("niah_multivalue").between
    parts = [part for context in found for part in re.sub(between, "\n", context).split("\n")]
    assert sum(part.startswith("One of the special") for part in parts) > 200
    assert all(part.count("One of the special") <= 1 for part in parts)
    plain = {re.sub(r" ?One of the special magic numbers for .+? is: \d{7}\. ?", " ", text).strip() for text in found}
    assert {" ".join(text.split()) for text in plain} == {" ".join(shared._setting.essay_words[:40])}


def test_needle_stands_where_its_arithmetic_puts_it(generator, monkeypatch):
    """int(100 * (28 / 100)) is 28 and int(100 * (29 / 100)) 28, where 100 * 29 / 100 is 29."""
    shared = generator("niah_single_2", 4096, mode="compat")
    monkeypatch.setattr("ropewalk.evaluate.ruler.niah.sentences", lambda text: [f"S{i}." for i in range(100)])
    monkeypatch.setattr("ropewalk.evaluate.ruler.niah.DEPTHS", (29,))
    context = FAMILIES.get("niah_single_2").frozen(shared._setting, random.Random(0), 0, 500).context
    assert re.search(r"S27\. One of the special magic numbers for .+ is: \d{7}\. S28\.", context)

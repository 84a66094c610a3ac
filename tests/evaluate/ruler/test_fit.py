import itertools
from dataclasses import dataclass

import pytest

from ropewalk.evaluate.ruler import base, fit
from ropewalk.evaluate.ruler.base import Body, Unit
from ropewalk.evaluate.ruler.suite import OFFLINE, SYNTHETIC


@dataclass(frozen=True)
class Words:
    """As many words as there are units."""

    least: int = 2

    def units(self):
        return (Unit(f"word{number}", f" word{number}") for number in itertools.count())

    def body(self, units):
        return Body(" ".join(unit.text for unit in units), ("a",))


@pytest.mark.parametrize(
    ("exact", "most"),
    [
        (lambda words: words, 1000),
        (lambda words: 3 * words + 7, 331),
        (lambda words: words // 2, 2001),
        # separators that merge, a prompt that grows by fits and starts, one that never grows
        (lambda words: words + words // 10 * 5, 669),
        (lambda words: 100 * (words // 100), 1099),
    ],
)
def test_fit_finds_the_most_units_for_any_way_of_counting(tokenizer, exact, most):
    body = fit.fit(Words(), tokenizer, 1000, lambda body: exact(len(body.context.split())))
    units = len(body.context.split())
    assert exact(units) <= 1000
    assert exact(units) >= 998 or units == most


@pytest.mark.parametrize(
    "exact", [lambda words: 5, lambda words: 5 if words < 50 else 2000, lambda words: words * 7919 % 2000]
)
def test_fit_ends_where_counts_make_no_sense(tokenizer, exact):
    counted = []

    def count(body):
        counted.append(exact(len(body.context.split())) if counted else 5)
        return counted[-1]

    fit.fit(Words(), tokenizer, 1000, count)
    assert len(counted) <= fit.ROUNDS + 1


def test_fit_refuses_a_room_below_the_least(tokenizer):
    with pytest.raises(fit.TooShortError) as error:
        fit.fit(Words(least=11), tokenizer, 10, lambda body: len(body.context.split()))
    assert error.value.tokens == 11


def test_fit_ends_when_the_units_do(tokenizer):
    class Few(Words):
        def units(self):
            return itertools.islice(super().units(), 20)

    body = fit.fit(Few(), tokenizer, 1000, lambda body: len(body.context.split()))
    assert len(body.context.split()) == 20


class Counting:
    """A tokenizer that adds up the tokens of all texts that it was given."""

    def __init__(self, inner):
        self.inner = inner
        self.tokens = 0

    def __call__(self, text, **options):
        encoded = self.inner(text, **options)
        ids = encoded["input_ids"]
        self.tokens += len(ids) if isinstance(text, str) else sum(map(len, ids))
        return encoded

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.mark.parametrize("task", [*OFFLINE, *SYNTHETIC])
def test_tokens_read_to_make_a_sample_are_linear_in_its_length(generator, tokenizer, task):
    read = []
    for length in (8192, 65536):
        counting = Counting(tokenizer)
        generator(task, length, tokenizer=counting).sample(0)
        read.append(counting.tokens / length)
    # the samples' own ids, the units, and a few exact counts: not more of them for more tokens
    assert max(read) < 9
    assert read[1] < read[0] + 2.5


def test_texts_of_a_setting_are_read_once(tokenizer, essays):
    setting = base.Setting(tokenizer, 1024, 0, essays)
    assert setting.essay_words is setting.essay_words
    assert " ".join(setting.sentences) == setting.essay == " ".join(setting.essay_words)

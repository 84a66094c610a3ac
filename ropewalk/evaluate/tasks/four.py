"""Four needles in running text, as DPE and as STRING ask for them."""

import random
from abc import abstractmethod

from ropewalk.evaluate.document import Document
from ropewalk.evaluate.ruler.wording import NEEDLE_SENTENCE, NEEDLES
from ropewalk.evaluate.ruler.words import load_words
from ropewalk.evaluate.tasks.base import TASKS, Question
from ropewalk.evaluate.tasks.haystack import Frame, Needle
from ropewalk.evaluate.tasks.hidden import AnyOrder

NEEDLE_COUNT = 4
# Both repositories: a needle lies anywhere in its stratum, and the last 1% of the text has none.
STRATUM = 0.99 / NEEDLE_COUNT
# Both repositories.
NEW_TOKENS = 128


class FourNeedles(AnyOrder):
    """Four values, one in each of four strata of width 0.99 / 4 of the text, asked for with one question.

    The details say of each value whether it was found, so both rules, the fraction of four and two or more of four, can
    be computed from either task; only their wording and the number of digits differ. The log-probabilities are of the
    values in reading order, each given the true ones before it.

    The authors' code is mended: all of keys, values, depths and text are drawn anew for every document (STRING's runner
    draws its values once and reads the same text 500 times, so its samples differ in depths only and are not
    independent); needles stand between any two sentences (both grow long prompts by 50 sentences and put needles
    between these, and DPE moves those that fall on one place to the end); the length is exact, and the prompt is not
    tokenised anew at every step.
    """

    digits: int
    tail: str

    @abstractmethod
    def words(self, rng: random.Random, values: tuple[str, ...]) -> tuple[str, tuple[str, ...], str, str]:
        """Head, needles' sentences, question, and how its answer is begun."""

    def frame(self, rng: random.Random, seed: int) -> Frame:
        least = 10 ** (self.digits - 1)
        values = tuple(map(str, rng.sample(range(least, 10 * least), NEEDLE_COUNT)))
        depths = [(index + rng.random()) * STRATUM for index in range(NEEDLE_COUNT)]
        head, sentences, asked, begun = self.words(rng, values)
        needles = tuple(map(Needle, sentences, values, depths))
        return Frame(head, " ", self.tail, needles, (Question(asked + begun, asked, values, NEW_TOKENS),))


class NeedleFour(FourNeedles):
    """DPE's metric (arXiv 2504.18857): the mean fraction found of four seven-digit values of one key.

    The wording is that of RULER's niah_multivalue, which DPE took over.
    """

    name = "needle-four"
    protocol = "needle-four/1"
    metric = "retrieved"
    digits = 7
    tail = "\n"

    def words(self, rng: random.Random, values: tuple[str, ...]) -> tuple[str, tuple[str, ...], str, str]:
        lists = load_words()
        key = f"{rng.choice(lists.adjectives)}-{rng.choice(lists.nouns)}"
        head, asked = NEEDLES.task.split("{context}\n")
        sentences = tuple(NEEDLE_SENTENCE.format(type="numbers", key=key, value=value) for value in values)
        begun = NEEDLES.prefix.format(type="numbers", query=key)
        return head.format(type="numbers"), sentences, asked.format(type="numbers", query=key), begun

    def grade(self, document: Document, question: int, said: str) -> float:
        found = self.found(self.questions(document)[question], said)
        return sum(found) / len(found)


class NeedleString(FourNeedles):
    """STRING's success rule (arXiv 2410.18745): 1 where two or more of four six-digit numbers without keys are found.

    The wording is quoted from niah/test_niah_llama.py of HKUNLP/STRING at 216cc2f (notice in ropewalk/data/README.md).
    There the begun answer is left out for Llama 3.1, because it hurts that model; here every model is asked the same.
    """

    name = "needle-string"
    protocol = "needle-string/1"
    metric = "two_of_four"
    digits = 6
    tail = "\n\n"

    def words(self, rng: random.Random, values: tuple[str, ...]) -> tuple[str, tuple[str, ...], str, str]:
        return (
            "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz "
            "you about the important information there.\n",
            tuple(f"One of the magic number is: {value}." for value in values),
            "What are the magic numbers mentioned in the provided text?",
            "\nThe numbers are",
        )

    def grade(self, document: Document, question: int, said: str) -> float:
        return float(sum(self.found(self.questions(document)[question], said)) >= 2)


TASKS.register("needle-four")(NeedleFour())
TASKS.register("needle-string")(NeedleString())

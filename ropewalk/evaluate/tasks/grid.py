"""The depth x length grid: eleven needles at eleven depths of one document."""

import random

from ropewalk.evaluate.ruler.wording import NEEDLE, NEEDLE_SENTENCE, NEEDLES
from ropewalk.evaluate.ruler.words import load_words
from ropewalk.evaluate.tasks.base import TASKS, Question
from ropewalk.evaluate.tasks.haystack import Frame, Needle
from ropewalk.evaluate.tasks.hidden import FirstInteger

NEEDLE_COUNT = 11
# Seven digits, and a few tokens before them: the question ends where the number has to come.
NEW_TOKENS = 16


class NeedleGrid(FirstInteger):
    """One column of the grid of a needle in a haystack: depths 0%, 10%, ... 100%, in this order in the scores.

    Kamradt's grid reads one document for each cell. Here one document holds a needle at every depth, with RULER's
    wording, each with a key and a value of its own, and each is asked for alone after a single read: a grid of one
    document a cell costs an eleventh. Asking that way is exact (see `HiddenTask`), but it is another task: the needles
    are read together, so for every question the other ten are distractors that look like the answer, as in RULER's
    niah_multikey_1 (which has three), and the scores of one document are not independent. It is harder than a grid
    of lone needles, and a miss may be a mixed-up key: the text that was generated then holds another needle's value.

    A needle stands between two sentences at the place nearest to its depth; the score is 1 where the first integer
    generated is its value. SmolLM2-135M mixes up keys inside its window already (4 of 11 in one document of 2k tokens,
    all 7 wrong answers values of other needles): for models of that size the task "needle" tells more.
    """

    name = "needle-grid"
    protocol = "needle-grid/1"
    metric = "retrieved"

    def frame(self, rng: random.Random, seed: int) -> Frame:
        words = load_words()
        first, second = rng.sample(words.adjectives, NEEDLE_COUNT), rng.sample(words.nouns, NEEDLE_COUNT)
        keys = [f"{adjective}-{noun}" for adjective, noun in zip(first, second, strict=True)]
        values = list(map(str, rng.sample(range(10**6, 10**7), NEEDLE_COUNT)))
        needles, questions = [], []
        for index, (key, value) in enumerate(zip(keys, values, strict=True)):
            sentence = NEEDLE_SENTENCE.format(type="numbers", key=key, value=value)
            needles.append(Needle(sentence, value, index / (NEEDLE_COUNT - 1)))
            asked = NEEDLE.task.split("{context}\n")[1].format(type="number", query=key)
            begun = NEEDLE.prefix.format(type="number", query=key)
            questions.append(Question(asked + begun, asked, (value,), NEW_TOKENS))
        head = NEEDLES.task.split("{context}")[0].format(type="numbers")
        return Frame(head, " ", "\n", tuple(needles), tuple(questions))


TASKS.register("needle-grid")(NeedleGrid())

"""The words and the running text that the tasks are made of."""

import lzma
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from ropewalk.evaluate import corpus as corpora

SENTENCE_END = r"""(?<=[.!?])(["')\]]*) +(?=["'(\[]*[A-Z0-9])"""


@dataclass(frozen=True)
class Words:
    """The lists of the PyPI package wonderwords 2.2.0 (MIT), in its order: 912 adjectives, 6786 nouns, 1042 verbs."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: tuple[str, ...]

    def pool(self) -> list[str]:
        """All of them, each once, sorted."""
        return sorted({*self.adjectives, *self.nouns, *self.verbs})


def load_words() -> Words:
    """The bundled lists; source, licence and hash stand in ropewalk/data/README.md."""
    packed = resources.files("ropewalk").joinpath("data", "wonderwords.txt.xz").read_bytes()
    adjectives, nouns, verbs = lzma.decompress(packed).decode("utf-8").strip().split("\n\n")
    return Words(*(tuple(block.split("\n")) for block in (adjectives, nouns, verbs)))


# All tasks of a sweep read the same text, 25 MB with its sentences; a file that changes meanwhile is not read again.
@lru_cache(maxsize=1)
def running_text(corpus: str) -> str:
    """A corpus as one line with single spaces; errors of `ropewalk.evaluate.corpus.load`."""
    return " ".join(corpora.load(corpus).split())


@lru_cache(maxsize=1)
def running_sentences(corpus: str) -> tuple[str, ...]:
    """The sentences of `running_text`."""
    return tuple(sentences(running_text(corpus)))


def sentences(text: str) -> list[str]:
    """Cut after . ! or ? that a space and a capital or a digit follow.

    NVIDIA's generator takes nltk's punkt; RULER only needs plausible boundaries, because needles are put there.
    """
    return re.sub(SENTENCE_END, r"\1\n", text).split("\n")

import hashlib
import lzma
from importlib import resources

from ropewalk.evaluate.ruler.words import load_words, sentences


def test_word_lists_are_the_pinned_ones_and_the_readme_has_their_hash():
    data = resources.files("ropewalk") / "data"
    plain = lzma.decompress((data / "wonderwords.txt.xz").read_bytes())
    assert hashlib.sha256(plain).hexdigest() in (data / "README.md").read_text(encoding="utf-8")
    words = load_words()
    assert [len(words.adjectives), len(words.nouns), len(words.verbs)] == [912, 6786, 1042]
    assert len(words.pool()) == len(set(words.pool())) > 8000
    assert not any(word != word.strip() or not word for word in words.pool())


def test_sentences_are_cut_without_losing_a_character():
    text = 'Mr. Smith said "Go." Then he left! Did he? (Yes.) 12 came.'
    parts = sentences(text)
    assert " ".join(parts) == text
    assert parts[-1] == "12 came." and "Did he?" in parts

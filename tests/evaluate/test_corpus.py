"""The bundled texts are what their README says, and a user's own text is read or refused in one line."""

from importlib import resources
from pathlib import Path

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate import corpus


@pytest.mark.parametrize("name", corpus.NAMES)
def test_bundled_text_has_the_recorded_hash(name):
    readme = resources.files("ropewalk").joinpath("data", "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
    assert f"`{corpus.sha256(name)}`" in row
    assert f"{len(corpus.load(name).encode()):,} bytes" in row
    assert f"{len(corpus.paragraphs(name)):,} paragraphs" in row


@pytest.mark.parametrize("name", corpus.NAMES)
def test_paragraphs_join_to_the_text(name):
    assert "\n\n".join(corpus.paragraphs(name)) + "\n" == corpus.load(name)


def test_texts_hold_what_they_are_named_after():
    assert any(p.startswith("Call me Ishmael.") for p in corpus.paragraphs("moby-dick"))
    titles = [p for p in corpus.paragraphs("sotu") if p.startswith("State of the Union address, ")]
    years = [int(title.split(", ")[1][:4]) for title in titles]
    assert (years[0], years[-1]) == (1947, 2021)
    assert years == sorted(years)


def test_own_text_file_is_read_in_paragraphs(tmp_path: Path):
    file = tmp_path / "own.txt"
    file.write_bytes("First line,\r\nsecond  line.\r\n \r\n\r\nNext: é.".encode())
    assert corpus.paragraphs(str(file)) == ["First line, second line.", "Next: é."]


def test_unknown_name_says_the_nearest():
    with pytest.raises(EvaluationError, match=r"unknown text 'mobydick'; did you mean 'moby-dick'\? known: .*sotu"):
        corpus.load("mobydick")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no text file at"), (b" \n\n", "holds no text"), (b"ok \xff", r"not UTF-8 text \(byte 3\)")],
    ids=["missing", "empty", "latin-1"],
)
def test_unusable_text_file_is_refused(tmp_path: Path, content, message):
    file = tmp_path / "bad.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EvaluationError, match=message) as caught:
        corpus.load(str(file))
    assert "\n" not in str(caught.value)

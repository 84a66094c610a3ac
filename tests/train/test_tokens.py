"""Documents are read from every kind of source, tokenised once, or refused with the line."""

import json

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from ropewalk.errors import TrainingError
from ropewalk.train.sources import stream
from ropewalk.train.tokens import read_documents
from tests.train.words import words


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def refuse():
    raise AssertionError("the tokenizer was asked for")


def save(folder, rows, name) -> str:
    """The same rows in a kind of file."""
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, rows)))
    elif name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return str(path)


KINDS = ("a.jsonl", "a.parquet", "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_its_documents_in_order(tmp_path, kind) -> None:
    texts = save(tmp_path, [{"text": "one two"}, {"text": "three"}], kind)
    assert list(stream(texts)) == ["one two", "three"]
    tokenizer = words("one two three")
    found = read_documents([texts], lambda: tokenizer)
    assert [one.tolist() for one in found] == [tokenizer("one two")["input_ids"], tokenizer("three")["input_ids"]]
    assert found.joined()[0].tolist() == found[0].tolist() + found[1].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["ids", "input_ids"])
def test_token_ids_need_no_tokenizer(tmp_path, kind, name) -> None:
    source = save(tmp_path, [{name: [5, 6, 7]}, {name: [8]}], kind)
    assert [one.tolist() for one in read_documents([source], refuse)] == [[5, 6, 7], [8]]


def test_text_files_are_one_document_and_end_with_the_end_token(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("one two\n\nthree")
    tokenizer = words("one two three")
    (found,) = read_documents([str(tmp_path / "a.txt")], lambda: tokenizer, end=True)
    assert found.tolist() == [*tokenizer("one two three")["input_ids"], tokenizer.eos_token_id]


def test_documents_are_tokenised_once_and_again_after_a_change(tmp_path, cache) -> None:
    source = save(tmp_path, [{"text": "one two"}], "a.jsonl")
    calls: list[str] = []

    class Counting:
        eos_token_id = 1

        def __init__(self, known: str) -> None:
            self.inner = words(known)

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __call__(self, text, **named):
            calls.append(text)
            return self.inner(text, **named)

    def read(known="one two"):
        calls.clear()
        read_documents([source], lambda: Counting(known))
        return calls.count("one two")

    assert (read(), read()) == (1, 0)
    save(tmp_path, [{"text": "one two"}, {"text": "two"}], "a.jsonl")
    assert (read(), read()) == (1, 0)
    assert read("two one") == 1  # another tokenizer
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("line", ["{", "3", '{"words": "x"}', '{"text": 3}', '{"ids": [1.5]}'])
def test_line_that_is_no_document_is_refused_with_its_number(tmp_path, line) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "ab"}\n' + line)
    with pytest.raises(TrainingError, match=r"b\.jsonl', line 2: "):
        read_documents([str(path)], lambda: words("ab"))


@pytest.mark.parametrize("ids", [[[1, 2]], [1.5], [-1], [2**31], [True]])
def test_ids_that_are_no_list_of_token_ids_are_refused(tmp_path, ids) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"ids": ids}))
    with pytest.raises(TrainingError, match="one list of token ids"):
        read_documents([str(tmp_path / "b.jsonl")], refuse)


def test_sources_without_documents_are_refused(tmp_path) -> None:
    for name in ("none.jsonl", "none.txt", "none.parquet", "none"):
        with pytest.raises(TrainingError, match="none"):
            read_documents([str(tmp_path / name)], refuse)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(TrainingError, match="has no document"):
        read_documents([str(tmp_path / "empty.jsonl")], refuse)
    (tmp_path / "hollow.jsonl").write_text('{"ids": []}')
    with pytest.raises(TrainingError, match="have no tokens"):
        read_documents([str(tmp_path / "hollow.jsonl")], refuse)
    mixed = save(tmp_path, [{"text": "a"}, {"ids": [1]}], "mixed.jsonl")
    with pytest.raises(TrainingError, match="document 2: texts and token ids in one source"):
        read_documents([mixed], lambda: words("a"))


def test_folder_of_splits_and_broken_files_are_refused(tmp_path) -> None:
    whole = datasets.Dataset.from_list([{"text": "a"}])
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "plain").mkdir()
    for name, message in (("splits", "test.*train.*one of them"), ("a.parquet", "Parquet file"), ("plain", "save_to")):
        with pytest.raises(TrainingError, match=message):
            read_documents([str(tmp_path / name)], refuse)

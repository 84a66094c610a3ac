"""Documents are read or refused with the line; sequences are a function of the seed and their index."""

import json

import numpy as np
import pytest

from ropewalk.errors import TrainingError
from ropewalk.train.data import Sequences, read_documents
from ropewalk.train.samplers import Contiguous, PoSE

DOCUMENTS = [np.arange(100), np.arange(1000, 1017), np.arange(2000, 2045)]


def tokenizer(text: str, verbose: bool) -> dict[str, list[int]]:
    """One token a character."""
    return {"input_ids": [ord(character) for character in text]}


def test_text_and_lines_become_documents(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("héllo")
    lines = [{"text": "ab"}, {"ids": [5, 6, 7]}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_documents([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], tokenizer)
    assert [one.tolist() for one in found] == [[104, 233, 108, 108, 111], [97, 98], [5, 6, 7]]


@pytest.mark.parametrize("line", ["{", "3", '{"words": "x"}', '{"text": 3}', '{"ids": "x", "text": null}'])
def test_line_that_is_no_document_is_refused_with_its_number(tmp_path, line) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "ab"}\n' + line)
    with pytest.raises(TrainingError, match=r"b\.jsonl', line 2: "):
        read_documents([str(path)], tokenizer)


@pytest.mark.parametrize("ids", [[[1, 2]], [1.5]])
def test_ids_that_are_no_list_of_whole_numbers_are_refused(tmp_path, ids) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps({"ids": ids}))
    with pytest.raises(TrainingError, match="one list of whole numbers"):
        read_documents([str(tmp_path / "b.jsonl")], tokenizer)


def test_missing_file_is_refused(tmp_path) -> None:
    for name in ("none.jsonl", "none.txt", "none.parquet"):
        with pytest.raises(TrainingError, match="none"):
            read_documents([str(tmp_path / name)], tokenizer)


def test_every_piece_comes_once_an_epoch_in_an_order_of_the_epoch() -> None:
    data = Sequences(DOCUMENTS, Contiguous(), length=20, count=28, seed=0)
    assert len(data.pieces) == 7  # five of the first document, none of the second, two of the third
    firsts = [int(data[index].ids[0]) for index in range(28)]
    epochs = [firsts[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(epoch) == [0, 20, 40, 60, 80, 2000, 2020] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_sequences_depend_on_seed_and_index_alone_and_are_drawn_anew_every_epoch() -> None:
    made = {seed: Sequences(DOCUMENTS[:1], PoSE(target_length=500), length=20, count=9, seed=seed) for seed in (0, 1)}
    backwards = [made[0][index] for index in reversed(range(9))][::-1]
    positions = [made[0][index].drawn.positions for index in range(9)]
    assert all((one.drawn.positions == other).all() for one, other in zip(backwards, positions, strict=True))
    assert len({tuple(one) for one in positions}) == 9
    assert any((made[1][index].drawn.positions != positions[index]).any() for index in range(9))


def test_pose_draws_its_second_chunk_from_five_sequences() -> None:
    data = Sequences(DOCUMENTS, PoSE(target_length=500), length=20, count=200, seed=0)
    tokens = [data[index].ids for index in range(200)]
    assert max(int(one[-1] - one[0]) for one in tokens) > 60
    assert all((np.diff(one) > 0).all() for one in tokens)


def test_documents_that_are_all_too_short_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"no document has 200 tokens \(the longest of 3 has 100\)"):
        Sequences(DOCUMENTS, Contiguous(), length=200, count=1, seed=0)

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.rowfile import read_rows, shipped_rows, write_rows
from tests.evaluate.samples import sample


def test_rows_come_back_as_they_were(tmp_path):
    rows = [sample(document, [0.1, 1 / 3]) for document in range(3)]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_is_no_row_is_named_by_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [sample(0)])
    path.write_text(path.read_text() + '{"key": 1}\n')
    with pytest.raises(EvaluationError, match="line 2"):
        read_rows(path)
    with pytest.raises(EvaluationError, match="there are no rows"):
        read_rows(tmp_path / "nothing.jsonl")


def test_file_that_cannot_be_read_or_written_is_one_line(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvaluationError, match=r"cannot read .*rows\.jsonl' as UTF-8 text"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match=r"cannot write .*file/rows\.jsonl'"):
        write_rows(tmp_path / "file" / "rows.jsonl", [sample(0)])


def test_shipped_rows_hold_finite_scores_of_one_prompt_for_all_methods():
    prompts = {}
    for row in shipped_rows():
        place = (row.model, row.key.task, row.key.length, row.key.seed, row.key.document)
        prompts.setdefault(place, set()).add(row.prompt_sha256)
    assert all(len(found) == 1 for found in prompts.values())

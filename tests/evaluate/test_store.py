import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.row import results
from ropewalk.evaluate.store import Store, _alive
from tests.evaluate.samples import KEY, sample, sweep

ROOT = Path(__file__).parents[2]
DOCUMENTS = 300


def start_sweep(path, documents=DOCUMENTS, **options):
    command = [sys.executable, "-m", "tests.evaluate.samples", str(path), str(documents)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.sqlite"


def test_rows_come_back_as_they_were_stored(path):
    rows = [sample(2), sample(0, method="yarn"), sample(1, [1e-300, -0.1 + 0.3], length=8192, task="perplexity")]
    rows[0] = replace(rows[0], peak_bytes=2**40)
    with Store(path) as store:
        assert [store.append(row) for row in rows] == [True] * 3
    with Store(path, create=False) as store:
        assert store.rows() == rows
        assert [store.done(row.key) for row in rows] == [True] * 3
        assert not store.done(replace(rows[0].key, dtype="bfloat16"))


def test_every_field_of_the_key_makes_another_sample(path):
    with Store(path) as store:
        store.append(sample())
        for name, value in vars(sample().key).items():
            assert not store.done(replace(sample().key, **{name: value + (1 if isinstance(value, int) else "x")}))


def test_rows_are_chosen_by_value_or_by_several(path):
    with Store(path) as store:
        for length in (4096, 8192, 16384):
            for method in ("none", "yarn"):
                store.append(sample(method=method, length=length))
        assert len(store.rows(method="yarn")) == 3
        assert [row.key.length for row in store.rows(method="none", length=[16384, 4096])] == [4096, 16384]
        assert store.rows(length=[]) == []
        with pytest.raises(EvaluationError, match="cannot be chosen by 'lenght'; choose by one of task, protocol"):
            store.rows(lenght=4096)


def test_same_key_is_stored_once_and_the_first_stays(path):
    with Store(path) as store:
        assert store.append(sample(scores=[1.0]))
        assert not store.append(sample(scores=[0.0]))
        assert [row.scores for row in store.rows()] == [(1.0,)]


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf")]])
def test_scores_that_are_no_numbers_are_refused(path, scores):
    with Store(path) as store:
        with pytest.raises(EvaluationError, match="wanted finite scores"):
            store.append(sample(scores=scores))
        assert store.rows() == []


def test_ten_kills_end_with_the_rows_of_an_unbroken_sweep(path, tmp_path):
    rng = random.Random(0)
    for _ in range(10):
        process = start_sweep(path, documents=10**6)
        said = int(process.stdout.readline())
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said = [said, *(int(line) for line in process.communicate()[0].splitlines())]
        assert process.returncode == -signal.SIGKILL
        with Store(path) as store:
            stored = {row.key.document for row in store.rows()}
            assert set(said) <= stored
            assert stored == set(range(len(stored)))
            in_flight = store.interrupted()
            assert len(in_flight) <= 1
            assert [key.document for key in in_flight] in ([], [len(stored)])
    documents = len(stored) + 20
    sweep(path, documents)
    sweep(tmp_path / "unbroken.sqlite", documents)
    with Store(path) as broken, Store(tmp_path / "unbroken.sqlite") as unbroken:
        assert broken.rows() == unbroken.rows()
        assert len(broken.rows()) == documents
        assert broken.interrupted() == []


def test_two_writers_at_once_store_every_sample_once(path):
    # Neither finds a file: they make it at once, too.
    processes = [start_sweep(path) for _ in range(2)]
    said = []
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        said.append({int(line) for line in out.splitlines()})
    assert not said[0] & said[1]
    with Store(path) as store:
        assert [row.key.document for row in store.rows()] == list(range(DOCUMENTS))
        assert store.interrupted() == []


def test_sample_that_a_living_process_measures_is_not_claimed_twice(path):
    with Store(path) as store:
        assert store.claim(KEY)
        assert store.claim(KEY)  # this process is the one that holds it
        code = (
            "import sys; from ropewalk.evaluate.store import Store; from tests.evaluate.samples import KEY; "
            "print(Store(sys.argv[1]).claim(KEY))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT)
        assert done.stdout == "False\n", done.stderr
        assert store.interrupted() == []
    with Store(path) as store:
        assert store.interrupted() == [] and store.claim(KEY), "closing gives the claim back"


@pytest.mark.parametrize("reaped", [True, False])
def test_claim_of_an_ended_process_is_reported_and_taken_over(path, reaped):
    code = (
        "import os, sys; from ropewalk.evaluate.store import Store; from tests.evaluate.samples import KEY; "
        "store = Store(sys.argv[1]); assert store.claim(KEY); print('claimed', flush=True); os._exit(9)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert (
        process.stdout.read() == "claimed\n"
    )  # to its end: the process is gone, and stays a zombie until it is reaped
    if reaped:
        assert process.wait() == 9
    with Store(path) as store:
        deadline = time.monotonic() + 10
        while not store.interrupted() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert store.interrupted() == [KEY]
        assert store.claim(KEY)
        assert store.interrupted() == []
    process.communicate()


def test_process_number_used_again_is_another_process():
    assert not _alive(os.getpid(), began=time.time() - 10**6)


def test_torn_write_loses_the_last_sample_and_says_which(path, tmp_path):
    with Store(path) as store:
        for document in range(5):
            store.claim(sample(document).key)
            store.append(sample(document))
        whole = path.with_name(path.name + "-wal").stat().st_size
        store.claim(sample(5).key)
        before = path.with_name(path.name + "-wal").stat().st_size
        store.append(sample(5))
        wal = path.with_name(path.name + "-wal").read_bytes()
        assert whole < before < len(wal)
        # Copied while open, as a power cut leaves it; the claim is of a process that is gone by then.
        torn = tmp_path / "torn.sqlite"
        shutil.copy(path, torn)
    for kept in (before + 1, (before + len(wal)) // 2, len(wal) - 1):
        torn.with_name("torn.sqlite-wal").write_bytes(wal[:kept])
        reopened = tmp_path / f"reopened-{kept}.sqlite"
        shutil.copy(torn, reopened)
        shutil.copy(torn.with_name("torn.sqlite-wal"), reopened.with_name(reopened.name + "-wal"))
        with sqlite3.connect(reopened) as db:
            db.execute("UPDATE claims SET began = 0")
        with Store(reopened) as store:
            assert [row.key.document for row in store.rows()] == [0, 1, 2, 3, 4]
            assert store.interrupted() == [sample(5).key]


def test_full_disk_loses_only_the_sample_in_flight(path):
    with Store(path) as store:
        store.append(sample(0))
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages + 3}")
        stored = 1
        with pytest.raises(EvaluationError, match=r"cannot store needle at 4096, .*document \d+ \(database or disk is"):
            for document in range(1, 200):
                store.append(sample(document))
                stored += 1
        assert [row.key.document for row in store.rows()] == list(range(stored))
        assert stored > 1
        store._db.execute("PRAGMA max_page_count = 100000")
        assert store.append(sample(stored))
        assert len(store.rows()) == stored + 1


def test_file_that_cannot_grow_ends_a_sweep_with_one_line_and_it_continues(path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    process = start_sweep(path, preexec_fn=limit)
    out, error = process.communicate(timeout=60)
    stored = len(out.splitlines())
    assert process.returncode == 1 and 0 < stored < DOCUMENTS
    assert "EvaluationError" in error.splitlines()[-1] and "what was stored before is kept" in error.splitlines()[-1]
    with Store(path) as store:
        assert [row.key.document for row in store.rows()] == list(range(stored))
    sweep(path, DOCUMENTS)
    with Store(path) as store:
        assert len(store.rows()) == DOCUMENTS


def test_newer_store_is_refused_and_left_alone(path):
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(EvaluationError, match=r"has schema 2, this ropewalk knows up to 1; update ropewalk"):
        Store(path)
    assert path.read_bytes() == before


def test_other_files_are_refused_and_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(EvaluationError, match="is a database, but no store of ropewalk"):
        Store(path)
    path.write_text("not a database at all, but long enough to be taken for one\n" * 100)
    with pytest.raises(EvaluationError, match="file is not a database"):
        Store(path)
    assert path.read_text().startswith("not a database")


def test_missing_store_is_made_only_where_that_is_wanted(tmp_path):
    with pytest.raises(EvaluationError, match="there is no store at"):
        Store(tmp_path / "none.sqlite", create=False)
    Store(tmp_path / "folder" / "new.sqlite").close()
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["new.sqlite"]
    with pytest.raises(EvaluationError, match="cannot open it"):
        Store(tmp_path)


def test_calibration_prompts_are_refused_as_test_prompts(path):
    with Store(path) as store:
        store.mark_calibration(["prompt-0-1", "prompt-0-2"], used_by="smollm2.json")
        store.mark_calibration(["prompt-0-2"], used_by="other.json")
        assert store.calibration() == {"prompt-0-1": "smollm2.json", "prompt-0-2": "smollm2.json"}
        store.refuse_calibration(["prompt-0-0"])
        with pytest.raises(EvaluationError, match=r"2 of 3 prompts .* calibrate smollm2\.json; test on others"):
            store.refuse_calibration(f"prompt-0-{document}" for document in range(3))
        with pytest.raises(EvaluationError, match="1 of 1 prompts"):
            store.append(sample(1))
        assert store.append(sample(0))


def test_results_hold_the_documents_of_a_cell(path):
    with Store(path) as store:
        for method, document in [("none", 1), ("none", 0), ("yarn", 0)]:
            store.append(sample(document, [1.0, float(document)], method=method))
        first, second = results(store.rows())
    assert (first.method, first.resolved, first.length) == ("none", "none:window=512", 4096)
    assert (first.scores, first.documents, first.score) == (
        (1.0, 0.0, 1.0, 1.0),
        ((0, 0), (0, 0), (0, 1), (0, 1)),
        0.75,
    )
    assert (first.n, first.seconds, first.peak_bytes, second.scores) == (6, 3.0, None, (1.0, 0.0))
    assert first.interval == "t over documents" and second.interval == "wilson"
    assert first.documents_sha256 != second.documents_sha256
    json.dumps(first.to_json(), allow_nan=False)

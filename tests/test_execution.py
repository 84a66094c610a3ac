import os
import signal
import sys
import time
from pathlib import Path

import pytest

from ropewalk.errors import EvaluationError, MethodError
from ropewalk.execution import Cell, run_cells

HERE = "tests.test_execution"


def square(report, *, number):
    report({"seen": number})
    print("noise on stdout does not disturb the messages")
    return {"square": number * number}


def hold(report, *, megabytes):
    return len(bytearray(megabytes * 2**20))


def refuse(report):
    raise MethodError("no such method; take another")


def crash(report):
    sys.exit("out of luck")


def die_once(report, *, marker):
    path = Path(marker)
    if not path.exists():
        path.write_text("was here")
        os.kill(os.getpid(), signal.SIGKILL)
    return path.read_text()


def sleep(report):
    time.sleep(600)


def cell(key, function, **arguments):
    return Cell(key, f"{HERE}:{function}", arguments)


def test_cells_return_values_and_events():
    events = []
    cells = [cell(f"n{number}", "square", number=number) for number in (3, 4, 5)]
    outcomes = run_cells(cells, workers=2, threads=1, on_event=lambda key, event: events.append((key, event["seen"])))
    assert [outcome.value["square"] for outcome in outcomes.values()] == [9, 16, 25]
    assert list(outcomes) == ["n3", "n4", "n5"]
    assert sorted(events) == [("n3", 3), ("n4", 4), ("n5", 5)]


def test_peak_memory_is_that_of_the_cell_alone():
    mine = bytearray(400 * 2**20)
    small, large = run_cells(
        [cell("small", "hold", megabytes=1), cell("large", "hold", megabytes=200)], workers=1, threads=1
    ).values()
    assert small.peak_bytes < len(mine) / 2
    assert large.peak_bytes - small.peak_bytes == pytest.approx(199 * 2**20, rel=0.1)


def test_an_error_of_ours_keeps_its_kind_and_stops_the_others():
    began = time.perf_counter()
    with pytest.raises(MethodError, match="no such method; take another"):
        run_cells([cell("slow", "sleep"), cell("bad", "refuse")], workers=2, threads=1)
    assert time.perf_counter() - began < 60


def test_a_process_that_ends_early_is_named_with_its_last_words():
    with pytest.raises(EvaluationError, match=r"process of broken ended early \(exit code 1\): out of luck"):
        run_cells([cell("broken", "crash")], workers=1, threads=1)


def test_a_process_that_is_killed_is_begun_again_as_often_as_asked(tmp_path):
    events = []
    cells = [cell("dies", "die_once", marker=str(tmp_path / "a")), cell("n3", "square", number=3)]
    outcomes = run_cells(cells, workers=2, threads=1, retries=1, on_event=lambda key, event: events.append(key))
    assert outcomes["dies"].value == "was here" and outcomes["n3"].value == {"square": 9} and events == ["n3"]
    with pytest.raises(EvaluationError, match=r"process of dies ended early \(exit code -9\)"):
        run_cells([cell("dies", "die_once", marker=str(tmp_path / "b"))], workers=1, threads=1)
    with pytest.raises(EvaluationError, match=r"process of broken ended early"):
        run_cells([cell("broken", "crash")], workers=1, threads=1, retries=2)
    with pytest.raises(MethodError, match="no such method"):  # said once, and it would say it again
        run_cells([cell("bad", "refuse")], workers=1, threads=1, retries=2)

"""The budget of a search in readings, settled once."""

import time

from ropewalk.calibrate.budget import parse_budget
from ropewalk.calibrate.confirm import MOST
from ropewalk.calibrate.measured import Measured
from ropewalk.calibrate.request import RunFile
from ropewalk.calibrate.settle import CONFIRM_SHARE, Say, time_reading
from ropewalk.errors import EvaluationError


def settle_readings(
    record: RunFile,
    measured: Measured,
    budget: str,
    target_length: int,
    *,
    method: str,
    documents: range,
    workers: int,
    began: float,
    say: Say,
) -> int:
    """The budget in readings; kept in the run file, so that a search that goes on has the same one.

    Minutes are turned into readings by the time that the first ones take, which the search needs anyway.

    Args:
        method: that is read, as text; one of the candidates.
        documents: of the search.
        workers: that read at once, at most as many as documents.
    """
    if "readings" not in record.settled:
        given = parse_budget(budget)
        seconds = 0.0
        if given.tokens is None:
            say(f"reading {workers} of {target_length} tokens, to turn {budget} into tokens")
            seconds = time_reading(
                lambda at: measured.read([(method, documents[each]) for each in at]),
                workers=workers,
                documents=len(documents),
            )
            say(f"a reading takes {seconds:.1f} s")
        readings = given.readings(target_length, seconds=seconds, spent=time.monotonic() - began, used=0)
        record.settle(readings=readings)
    readings = record.settled["readings"]
    say(f"{budget}: {readings} readings of {target_length} tokens, {readings * target_length:,} tokens")
    assert isinstance(readings, int)
    return readings


def divide(readings: int, *, candidates: int, documents: int, contenders: int, confirm: int) -> tuple[int, int]:
    """(candidates that may be measured, documents held out for a comparison) of a budget.

    Args:
        candidates: that a search needs at least: its first generation.
        documents: that each is read on.
        contenders: of the comparison; `confirm`: documents that it needs at least.

    Raises:
        EvaluationError: the budget does not hold the first generation and the comparison.
    """
    least = candidates * documents + contenders * confirm
    if readings < least:
        raise EvaluationError(
            f"the budget holds {readings} readings; {candidates} candidates on {documents} documents and their "
            f"comparison take {least}; give a larger budget, fewer --documents or a smaller --population"
        )
    held = max(confirm, min(MOST, readings // CONFIRM_SHARE // contenders))
    held = min(held, (readings - candidates * documents) // contenders)
    return (readings - held * contenders) // documents, held

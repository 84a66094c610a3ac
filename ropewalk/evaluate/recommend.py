"""Name a method for a model and a length, by what was measured."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.compare import ENDPOINT, ENOUGH
from ropewalk.evaluate.metric import lower_is_better
from ropewalk.evaluate.paired import Difference, holm, paired_difference
from ropewalk.evaluate.row import Row
from ropewalk.evaluate.statistics import Interval, interval

STOCK = "none"
# What is taken for a difference.
SURE = 0.05


@dataclass(frozen=True)
class Candidate:
    """What is known of a method at the length that decides.

    Attributes:
        method: as it was given when it was measured; `resolved`, with every parameter.
        target_length: tokens that it was set up for.
        score: mean over tasks of their means, higher is better; `ci95`: over documents.
        documents: that it was measured on.
        against_stock: paired difference from the stock model on the same documents; None where that was not measured.
        holm_p: its p, adjusted over the methods: the best of several is the best by luck more often than one is.
        cpu_seconds: processor time of a document, mean.
        short: paired difference from the stock model at the longest length within the trained window, None if not
            measured: what attaching it costs short texts.
    """

    method: str
    resolved: str
    target_length: int
    score: float
    ci95: Interval
    documents: int
    against_stock: Difference | None
    holm_p: float | None
    cpu_seconds: float
    short: Difference | None


@dataclass(frozen=True)
class Recommendation:
    """A method and why.

    Attributes:
        method: the best of `candidates`, or "none" where nothing was shown to be better than the stock model.
        length: tested length that decides: the shortest that is not below the target, else the longest.
        reason: one sentence.
        cheaper: methods that cost less and that the data do not tell from the best.
        candidates: all that were measured there, best first.
        remarks: what to know before it is believed.
    """

    method: str
    length: int
    reason: str
    cheaper: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields by name; tuples become lists once dumped."""
        return asdict(self)


def recommend(rows: Sequence[Row], target_length: int, pretrained_length: int) -> Recommendation:
    """The method with the highest score at the target length, if it is better than the stock model beyond doubt.

    Beyond doubt: by the paired test, p below SURE after Holm over the methods, which takes six documents or more. A
    method counts under the setting that it was measured with; controls and endpoints do not count, and losses only
    where no task at the length has a score. Only the prompts that every method has read count (a method with less
    than half of them is left out), scores of different tasks are averaged as they are, and ties go to the cheaper.

    Args:
        rows: of one model, from one store or several. Where they have several fingerprints, tokenizers or number types,
            those count that have most of the rows.
        target_length, pretrained_length: tokens.

    Raises:
        EvaluationError: no rows beyond the trained window, though the target is.
    """
    rows = [row for row in rows if not row.key.control and row.key.backend != ENDPOINT]
    reach = [row for row in rows if row.key.length > pretrained_length or target_length <= pretrained_length]
    if not reach:
        raise EvaluationError(
            f"nothing was measured beyond the {pretrained_length} tokens that the model was trained on; run "
            f"`ropewalk eval needle --lengths {target_length} --method none --method METHOD` with it first"
        )
    [(identity, _)] = Counter(map(_identity, reach)).most_common(1)
    strange = sum(_identity(row) != identity for row in rows)
    rows = [row for row in rows if _identity(row) == identity]
    tested = sorted({row.key.length for row in reach if _identity(row) == identity})
    documents = {
        one: max(map(len, _settings(row for row in reach if row.key.length == one).values())) for one in tested
    }
    # A length with too few documents to show anything steps back behind one that has them.
    judged = [one for one in tested if documents[one] >= ENOUGH] or tested
    length = next((one for one in judged if one >= target_length), judged[-1])
    thin = [f"{documents[one]} documents only at {one} tokens" for one in tested if one not in judged]
    if not all(lower_is_better(row.metric) for row in rows if row.key.length == length):
        rows = [row for row in rows if not lower_is_better(row.metric)]
    here = _settings(row for row in rows if row.key.length == length)
    within = [row.key.length for row in rows if row.key.length <= pretrained_length]
    short = _settings(row for row in rows if within and row.key.length == max(within))
    most = max(len(group) for group in here.values())
    few = {name: group for name, group in here.items() if 2 * len(group) < most}
    here = {name: group for name, group in here.items() if name not in few}
    common = set.intersection(*({_prompt(row) for row in group} for group in here.values()))
    if not common:
        raise EvaluationError(f"no prompt was read with every method at {length} tokens; evaluate all in one command")
    kept = {name: [row for row in group if _prompt(row) in common] for name, group in here.items()}
    stock = next((group for group in kept.values() if group[0].method == STOCK), None)
    inside = next((group for group in short.values() if group[0].method == STOCK), None)
    candidates = _adjusted([_candidate(group, stock, short.get(name), inside) for name, group in kept.items()])
    ranked = sorted(zip(candidates, kept.values(), strict=True), key=lambda pair: (-pair[0].score, pair[0].cpu_seconds))
    remarks = [f"{strange} samples of another fingerprint, tokenizer or number type are left out"] if strange else []
    if few:
        names = ", ".join(group[0].method for group in few.values())
        remarks.append(f"left out, with less than half of the {most} prompts: {names}")
    return _decide(ranked, length, target_length, remarks + thin)


def _identity(row: Row) -> tuple[str, str, str]:
    """What must agree for rows of one name to be of one model."""
    return row.key.model_sha256, row.key.tokenizer_sha256, row.key.dtype


def _settings(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    settings: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        settings.setdefault((row.key.resolved, row.key.plan_sha256, row.key.backend), []).append(row)
    return settings


def _adjusted(candidates: list[Candidate]) -> list[Candidate]:
    """With `holm_p` filled in."""
    ps = holm([one.against_stock.p for one in candidates if one.against_stock])
    adjusted = iter(ps)
    return [replace(one, holm_p=next(adjusted)) if one.against_stock else one for one in candidates]


def _decide(
    ranked: list[tuple[Candidate, list[Row]]], length: int, target_length: int, remarks: list[str]
) -> Recommendation:
    """By candidates with their rows, best first."""
    best, its_rows = ranked[0]
    if length < target_length:
        remarks.append(f"judged at {length} tokens, the longest that was measured well: {target_length} is beyond it")
    if best.documents < 10:
        remarks.append(f"{best.documents} documents only")
    gain = best.against_stock
    sure = gain is None or (gain.mean > 0 and best.holm_p is not None and best.holm_p < SURE)
    if best.method == STOCK:
        reason = f"no method scored higher than the stock model at {length} tokens"
    elif gain is None:
        reason = f"highest score at {length} tokens; the stock model was not measured there"
    elif not sure:
        reason = f"at {length} tokens nothing is better than the stock model beyond doubt"
    else:
        reason = f"highest score at {length} tokens, and better than the stock model there"
    wins = best.method != STOCK and sure
    cheaper = [
        other.method
        for other, rows in ranked[1:]
        if wins
        and other.method != STOCK
        and other.cpu_seconds < best.cpu_seconds
        and (difference := _paired(its_rows, rows)) is not None
        and (difference.mean >= 0 or difference.p >= SURE)
    ]
    method = best.method if wins else STOCK
    candidates = tuple(one for one, _ in ranked)
    return Recommendation(method, length, reason, tuple(cheaper), candidates, tuple(remarks))


def _candidate(
    group: list[Row], stock: list[Row] | None, short: list[Row] | None, inside: list[Row] | None
) -> Candidate:
    row = group[0]
    tasks = {row.key.task for row in group}
    means = [fmean(_oriented(each) for each in group if each.key.task == task) for task in tasks]
    return Candidate(
        method=row.method,
        resolved=row.key.resolved,
        target_length=row.target_length,
        score=fmean(means),
        ci95=interval([_oriented(each) for each in group], [_prompt(each) for each in group]),
        documents=len(group),
        against_stock=_paired(stock, group) if stock and row.method != STOCK else None,
        holm_p=None,
        cpu_seconds=fmean(each.cpu_seconds for each in group),
        short=_paired(inside, short) if inside and short and row.method != STOCK else None,
    )


def _prompt(row: Row) -> tuple[str, str]:
    return row.key.task, row.prompt_sha256


def _oriented(row: Row) -> float:
    """The mean score of a document; more is better."""
    return fmean(row.scores) * (-1 if lower_is_better(row.metric) else 1)


def _paired(first: list[Row], second: list[Row]) -> Difference | None:
    """Second minus first over the prompts that both have, one number a document."""

    def scores(rows: list[Row]) -> dict[tuple[str, str], float]:
        return {_prompt(row): _oriented(row) for row in rows}

    ours, theirs = scores(first), scores(second)
    shared = [place for place in ours if place in theirs]
    if not shared:
        return None
    return paired_difference([ours[place] for place in shared], [theirs[place] for place in shared], shared)

"""What a search found against what was known before it, on documents that it never saw."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.calibrate.measured import Measured, Objective
from ropewalk.calibrate.rule import Rule, Samples, mean, paired
from ropewalk.evaluate.paired import paired_difference


@dataclass(frozen=True)
class HeldOut:
    """The comparison, and what is kept.

    Attributes:
        kept: name of the contender that is kept: what was searched, where it is cheaper than every rival by more than
            the rule's standard errors; else the cheapest.
        documents: that all contenders read.
        costs: mean objective of each contender by name, nats.
        comparisons: the searched one against each rival: the cost that it saves, the log-probability of the answers
            that it gains and the loss that it adds, each with mean, 95% interval and p.
    """

    kept: str
    documents: int
    reason: str
    costs: dict[str, float]
    comparisons: tuple[dict[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"comparisons": list(self.comparisons)}


def hold_out(
    measured: Measured, contenders: dict[str, str], documents: Sequence[int], objective: Objective, rule: Rule
) -> HeldOut:
    """Read every contender on the documents, and compare the first with each of the others.

    Args:
        contenders: methods, as text, by name; the first is what was searched. Two that are the same method are read
            once, and nothing is won there.
        documents: fresh ones; with fewer than the rule wants nothing is read and the second contender is kept.
    """
    searched, *rivals = contenders
    if len(documents) < rule.confirm_documents:
        reason = f"not compared: {len(documents)} fresh documents were left of the budget, {rule.confirm_documents} "
        return HeldOut(rivals[0], 0, reason + "are needed", {})
    measured.read([(method, at) for at in documents for method in contenders.values()])
    costs = {
        name: {at: [objective(measured.rows[method, at])] for at in documents} for name, method in contenders.items()
    }
    means = {name: mean(found) for name, found in costs.items()}
    own = measured.samples(contenders[searched], documents)
    compared: list[dict[str, Any]] = []
    for name in rivals:
        saved = paired(costs[searched], costs[name])
        answers, loss = measured.samples(contenders[name], documents)
        compared.append(
            {
                "against": name,
                "saved": _numbers(costs[searched], costs[name]),
                "answers": _numbers(answers, own[0]),
                "loss": _numbers(loss, own[1]),
                "wins": saved.mean > 0 and saved.mean > rule.standard_errors * saved.error,
            }
        )
    lost = [each["against"] for each in compared if not each["wins"]]
    kept = min(means, key=lambda name: means[name]) if lost else searched
    if not lost:
        reason = f"cheaper than {', '.join(rivals)} on {len(documents)} fresh documents"
    else:
        reason = (
            f"no sure gain over {', '.join(lost)} on {len(documents)} fresh documents; {kept} is kept, the cheapest"
        )
    return HeldOut(kept, len(documents), reason, means, tuple(compared))


def _numbers(first: Samples, second: Samples) -> dict[str, Any]:
    """Second minus first, by document."""
    places = [(at, index) for at in sorted(first) for index in range(len(first[at]))]
    difference = paired_difference(
        [first[at][index] for at, index in places],
        [second[at][index] for at, index in places],
        [at for at, _ in places],
    )
    low, high = difference.interval.low, difference.interval.high
    return {
        "mean": difference.mean,
        "interval": [low if math.isfinite(low) else None, high if math.isfinite(high) else None],
        "p": difference.p,
        "test": difference.test,
    }

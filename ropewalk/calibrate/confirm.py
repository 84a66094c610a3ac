"""The joint result of a detection against the uniform profile, on fresh documents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ropewalk.calibrate.axis import Setting
from ropewalk.calibrate.halving import Measure
from ropewalk.calibrate.rule import Rule, Samples, mean, paired
from ropewalk.evaluate.paired import paired_difference

# Documents of a confirmation are counted from here, those of the search from 0 up to here.
FRESH = 500
# Beyond so many a confirmation gains little: an interval shrinks with the square root.
MOST = 32

CALIBRATED, UNIFORM, RULE, STOCK = "calibrated", "uniform", "rule", "stock"


@dataclass(frozen=True)
class Confirmation:
    """What is kept, and why.

    Attributes:
        kept: "calibrated", "uniform" (every group at the baseline), "rule" (what `dpe` does without a profile) or
            "stock" (every scale 1; only where the target is the trained window).
        setting: what is kept.
        documents: fresh ones that it was read on; 0 where there was nothing to compare or nothing to read.
        reason: in words.
        comparisons: calibrated minus each of the others: mean, standard error, 95% interval, p, and the loss.
    """

    kept: str
    setting: Setting
    documents: int
    reason: str
    comparisons: tuple[dict[str, Any], ...] = ()


def confirm(
    joint: Setting,
    others: dict[str, Setting],
    measure: Measure,
    losses: Callable[[Setting], Samples],
    *,
    readings: int,
    rule: Rule,
) -> Confirmation:
    """Read the joint result and what it must beat on fresh documents, and keep it only where it wins.

    It wins when it is better than each of the others by more than the rule's standard errors of the paired difference
    over documents, and its loss did not grow by more than the rule's margin. Groups are detected one at a time; nothing
    else has shown that their winners go together.

    Args:
        joint: the chosen value of every axis.
        others: what it must beat, by name, UNIFORM first.
        losses: the loss of the last tokens of each document that a setting was measured on.
        readings: documents that may be read.
    """
    rivals = {name: setting for name, setting in others.items() if setting != joint}
    same = [name for name, setting in others.items() if setting == joint]
    if not rivals:
        return Confirmation(UNIFORM, joint, 0, "every group chose the baseline; nothing to confirm")
    settings = list(dict.fromkeys([joint, *rivals.values()]))
    count = min(MOST, readings // len(settings))
    if count < rule.confirm_documents:
        reason = f"not confirmed: {count} fresh documents were left of the budget, {rule.confirm_documents} are needed"
        return Confirmation(UNIFORM, others[UNIFORM], 0, reason)
    scores = measure([(setting, FRESH + at) for at in range(count) for setting in settings])
    fresh = {setting: _fresh(scores[setting]) for setting in settings}
    compared = [
        _compare(name, fresh[setting], fresh[joint], _fresh(losses(setting)), _fresh(losses(joint)), rule)
        for name, setting in rivals.items()
    ]
    if all(each["wins"] for each in compared):
        told = " and ".join(f"{each['against']} by {each['mean']:.3f} nats" for each in compared)
        kept = same[0] if same else CALIBRATED
        return Confirmation(kept, joint, count, f"better than {told} on {count} fresh documents", tuple(compared))
    known = {name: setting for name, setting in others.items() if setting in fresh}
    best = max(known, key=lambda name: mean(fresh[known[name]]))
    lost = ", ".join(each["against"] for each in compared if not each["wins"])
    reason = f"the calibrated scales did not win against {lost} on {count} fresh documents; {best} is kept"
    return Confirmation(best, known[best], count, reason, tuple(compared))


def _fresh(samples: Samples) -> dict[int, Sequence[float]]:
    return {document: facts for document, facts in samples.items() if document >= FRESH}


def _compare(
    name: str, other: Samples, joint: Samples, other_loss: Samples, joint_loss: Samples, rule: Rule
) -> dict[str, Any]:
    documents = sorted(joint)
    difference = paired(other, joint)
    flat = [[score for one in documents for score in samples[one]] for samples in (other, joint)]
    clusters = [one for one in documents for _ in joint[one]]
    reported = paired_difference(flat[0], flat[1], clusters)
    grown = [b - a for one in documents for a, b in zip(other_loss.get(one, ()), joint_loss.get(one, ()), strict=True)]
    loss = fmean(grown) if grown else None
    wins = difference.mean > rule.standard_errors * difference.error and (loss is None or loss <= rule.loss_margin)
    return {
        "against": name,
        "documents": len(documents),
        "mean": difference.mean,
        "error": difference.error if math.isfinite(difference.error) else None,
        "interval": [reported.interval.low, reported.interval.high],
        "p": reported.p,
        "test": reported.test,
        "loss": loss,
        "wins": wins,
    }

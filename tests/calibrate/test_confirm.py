"""The joint result is kept only where it wins on fresh documents."""

import pytest

from ropewalk.calibrate.confirm import FRESH, confirm
from ropewalk.calibrate.request import Request
from ropewalk.calibrate.rule import Rule
from ropewalk.calibrate.settle import groupings, make_axes, rivals
from ropewalk.rotary import RotarySpec, default_inv_freq

JOINT, UNIFORM, STOCK = (1.0, 2.0), (4.0, 4.0), (1.0, 1.0)


def measured(effects, losses=None):
    """Measure and losses: document d is as hard as d, a setting adds its effect, and a little of its own by d."""
    asked = []

    def measure(wanted):
        scores = {}
        for setting, document in wanted:
            asked.append((setting, document))
            value = -1.0 - document % 3 + effects[setting] + 0.01 * (document % 2) * setting[0]
            scores.setdefault(setting, {})[document] = [value, value - 0.5]
            scores[setting][0] = [100.0 if setting == JOINT else 0.0]  # of the search, must not count
        return scores

    def loss(setting):
        return {document: [(losses or {}).get(setting, 3.0)] for one, document in asked if one == setting}

    measure.asked = asked
    return measure, loss


def test_winner_is_kept_with_its_evidence():
    measure, loss = measured({JOINT: 0.2, UNIFORM: 0.0})
    found = confirm(JOINT, {"uniform": UNIFORM}, measure, loss, readings=13, rule=Rule())
    assert (found.kept, found.setting, found.documents) == ("calibrated", JOINT, 6)
    assert min(document for _, document in measure.asked) == FRESH
    [one] = found.comparisons
    assert one["wins"] and one["mean"] == pytest.approx(0.2 - 0.015) and one["documents"] == 6
    assert one["interval"][0] <= one["mean"] <= one["interval"][1] and one["p"] == 2 / 2**6


def test_loser_gives_way_to_the_uniform_profile():
    measure, loss = measured({JOINT: -0.1, UNIFORM: 0.0})
    found = confirm(JOINT, {"uniform": UNIFORM}, measure, loss, readings=12, rule=Rule())
    assert (found.kept, found.setting) == ("uniform", UNIFORM) and "did not win against uniform" in found.reason


def test_winner_that_spoils_the_text_is_not_kept():
    measure, loss = measured({JOINT: 0.5, UNIFORM: 0.0}, {JOINT: 3.1, UNIFORM: 3.0})
    found = confirm(JOINT, {"uniform": UNIFORM}, measure, loss, readings=12, rule=Rule(loss_margin=0.05))
    assert found.kept == "uniform" and found.comparisons[0]["loss"] == pytest.approx(0.1)
    again = confirm(JOINT, {"uniform": UNIFORM}, measure, loss, readings=12, rule=Rule(loss_margin=0.2))
    assert again.kept == "calibrated"


def test_inside_the_window_the_stock_model_must_be_beaten_too():
    rivals = {"uniform": UNIFORM, "stock": STOCK}
    measure, loss = measured({JOINT: 0.2, UNIFORM: 0.0, STOCK: 0.4})
    found = confirm(JOINT, rivals, measure, loss, readings=12, rule=Rule())
    assert (found.kept, found.setting, found.documents) == ("stock", STOCK, 4)
    measure, loss = measured({UNIFORM: 0.3, STOCK: 0.0})
    same = confirm(UNIFORM, rivals, measure, loss, readings=12, rule=Rule())
    assert (same.kept, same.setting, same.documents) == ("uniform", UNIFORM, 6)


def test_what_would_be_had_without_a_calibration_must_be_beaten():
    spec = RotarySpec(64, 64, 1e5, 8192, 9, 3, 30, tuple(default_inv_freq(1e5, 64).tolist()))
    asked = [
        Request("m", target, "1h", groups=groups) for target, groups in ((16384, "1/6,1"), (16384, "8"), (8192, "2"))
    ]
    known = [rivals(one, spec, make_axes(one, spec, groupings(one, spec)[0])) for one in asked]
    assert known[0] == {"uniform": (4.0, 4.0, 4.0), "rule": (1.0, 4.0, 4.0)}
    assert known[1] == {"uniform": (4.0,) * 8}  # no group of eight can express the rule
    assert known[2] == {"uniform": (2.0, 2.0), "stock": (1.0, 1.0)}
    measure, loss = measured({JOINT: 0.2, UNIFORM: 0.0, STOCK: 0.4})
    found = confirm(JOINT, {"uniform": UNIFORM, "rule": STOCK}, measure, loss, readings=12, rule=Rule())
    assert (found.kept, found.setting) == ("rule", STOCK) and "did not win against rule" in found.reason


def test_nothing_is_read_where_nothing_can_be_confirmed():
    measure, loss = measured({})
    same = confirm(UNIFORM, {"uniform": UNIFORM}, measure, loss, readings=12, rule=Rule())
    assert (same.kept, same.documents) == ("uniform", 0)
    poor = confirm(JOINT, {"uniform": UNIFORM}, measure, loss, readings=5, rule=Rule(confirm_documents=3))
    assert (poor.kept, poor.setting) == ("uniform", UNIFORM) and "not confirmed: 2 fresh" in poor.reason
    assert measure.asked == []

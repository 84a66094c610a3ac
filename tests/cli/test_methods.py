"""`ropewalk methods`."""

import json

from ropewalk.methods import METHODS
from ropewalk.methods.tables import TABLE_METHODS
from tests.cli.conftest import Call, Run


def test_methods_lists_every_method_as_json(run: Run) -> None:
    done = run("methods", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    for listed, known in ((answer["methods"], METHODS), (answer["position_tables"], TABLE_METHODS)):
        assert sorted(one["name"] for one in listed) == sorted(known)
        assert all(one["summary"] and one["paper"] and one["needs"] for one in listed)


def test_methods_prints_a_row_for_every_method(call: Call) -> None:
    code, out, _ = call("methods")
    assert code == 0
    assert all(f"\n{name} " in out for name in (*METHODS, *TABLE_METHODS))


def test_one_method_is_explained_with_its_parameters(call: Call) -> None:
    code, out, _ = call("methods", "dpe")
    assert code == 0
    assert "window: a whole number; optional" in out
    assert "floor(m / s_i)" in out
    code, out, _ = call("methods", "dpe", "--json")
    assert json.loads(out)["parameters"]["scales"] is None


def test_unknown_method_names_the_nearest(call: Call) -> None:
    code, out, err = call("methods", "self-extnd")
    assert (code, out) == (2, "")
    assert err.startswith("error: unknown method 'self-extnd'; did you mean 'self-extend'?")
    assert err.count("\n") == 1

"""`ropewalk profiles`."""

import json

from ropewalk.profile import shipped
from tests.cli.conftest import Call


def test_profiles_lists_what_is_shipped(call: Call) -> None:
    code, out, err = call("profiles", "--json")
    assert code == 0, err
    [line] = out.splitlines()
    found = json.loads(line)["profiles"]
    assert [one["name"] for one in found] == list(shipped())
    assert {one["kind"] for one in found} >= {"dpe", "string", "dca"}
    code, out, err = call("profiles")
    assert code == 0 and "dpe:profile=dpe-qwen2.5-7b-instruct" in out and "scales=2/16/8/8/32/8/2/4" in out, err
    assert "Meta-Llama-3-8B-Instruct at 128k" in out

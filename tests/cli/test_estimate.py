"""`ropewalk estimate`."""

import json

from tests.cli.conftest import Call, Run


def test_estimate_says_what_a_length_needs(run: Run, tiny_model) -> None:
    done = run("estimate", tiny_model, "--length", "1m", "--method", "self-extend:window=16", "--gpus", 2, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["length"], told["devices"]) == (2**20, 2)
    assert told["total"] == told["weights"] + told["cache"] + told["transients"]
    assert "tensor parallel over 2 devices" in done.stderr


def test_pages_of_vllm_hold_half_as_much_again_for_two_key_maps(call: Call, tiny_model) -> None:
    found = {}
    for engine in ("transformers", "vllm"):
        code, told, err = call(
            "estimate", tiny_model, "--length", "1m", "--method", "rerope:window=16", "--engine", engine, "--json"
        )
        assert code == 0, err
        found[engine] = json.loads(told)["cache"]
    assert 1.49 < found["vllm"] / found["transformers"] < 1.5


def test_seconds_follow_from_the_speed_of_a_device(call: Call, tiny_model) -> None:
    code, told, err = call("estimate", tiny_model, "--length", 4096, "--flops", "1e9", "--json")
    assert code == 0, err
    assert json.loads(told)["seconds"] == json.loads(told)["operations"] / 1e9


def test_another_engine_is_refused(call: Call, tiny_model) -> None:
    code, _, err = call("estimate", tiny_model, "--length", 4096, "--engine", "sglang")
    assert code == 2 and "--engine transformers or --engine vllm" in err


def test_a_length_beyond_the_method_is_refused(call: Call, tiny_model) -> None:
    code, _, err = call("estimate", tiny_model, "--length", "1m", "--method", "clex:max_factor=2")
    assert code == 2 and "reaches 128 tokens" in err and "give a larger max_factor" in err


def test_heads_that_do_not_divide_are_refused(call: Call, tiny_model) -> None:
    code, _, err = call("estimate", tiny_model, "--length", 4096, "--gpus", 3)
    assert code == 2 and "do not divide among 3 devices" in err

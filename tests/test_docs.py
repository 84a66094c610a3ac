"""The generated pages agree with the code, and the commands that pages show are commands."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ropewalk.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "-m", "scripts.docs", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_task_and_suite_stands_on_the_page_of_evaluation() -> None:
    from ropewalk.evaluate.ruler.suite import RULER
    from ropewalk.evaluate.suite import names

    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert RULER[0] in page and RULER[-1] in page
    missing = [name for name in names() if name not in RULER and f"`{name}`" not in page]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_are_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)) + "\n"
    blocks += "\n".join(re.findall(r"^    (ropewalk .*)$", text, re.MULTILINE))
    known = typer.main.get_command(app).commands
    for command in re.findall(r"^ropewalk .*$", blocks, re.MULTILINE):
        verb, *words = shlex.split(command, comments=True)[1:]
        known[verb].make_context(verb, words)
    verbs = re.findall(r"`ropewalk ([a-z-]+)[^`]*`", text)
    assert set(verbs) <= set(known)

"""The generated pages agree with the code."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


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

"""Write the documentation that is made from code and rows.

docs/cli.md, the table of methods in README.md, method pages, and the tables of docs/performance.md and
docs/measurements/training.md.

`python -m scripts.docs` writes all; with `--check` it writes nothing and exits with 1 when one is out of date.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from ropewalk.cli.methods import CHANGES, listed, spelled
from scripts import method_pages, performance, training

ROOT = Path(__file__).resolve().parent.parent
START, STOP = "<!-- methods -->", "<!-- /methods -->"
NOTE = "<!-- written by `python -m scripts.docs`; change the code, not this page -->\n\n"


def command_line() -> str:
    """The reference of every verb, by typer's own generator."""
    command = [sys.executable, "-m", "typer", "ropewalk.cli", "utils", "docs", "--name", "ropewalk"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return NOTE + done.stdout.strip() + "\n"


def methods_table() -> str:
    """One row per method, as `ropewalk methods` lists them."""
    rows = ["| method | changes | parameters | needs | paper | what it does |", "|---|---|---|---|---|---|"]
    for one in listed():
        name, kind, given = f"`{one['name']}`", CHANGES[one["kind"]], spelled(one["parameters"])
        cells = (name, kind, given, one["needs"], one["paper"], one["summary"])
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def readme(text: str) -> str:
    """README.md with the table between its markers replaced."""
    before, start, rest = text.partition(START)
    _, stop, after = rest.partition(STOP)
    if not (start and stop):
        raise SystemExit(f"README.md has no place for the table of methods: it needs the lines {START} and {STOP}")
    return f"{before}{START}\n\n{methods_table()}\n\n{STOP}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a page is out of date")
    check = parser.parse_args().check
    pages = {
        ROOT / "docs" / "cli.md": command_line(),
        ROOT / "README.md": readme((ROOT / "README.md").read_text()),
        performance.PAGE: performance.page(performance.PAGE.read_text()),
        training.PAGE: training.page(training.PAGE.read_text()),
        **method_pages.pages(),
    }
    stale = [page for page, text in pages.items() if not page.exists() or page.read_text() != text]
    for page in stale:
        print(f"{'out of date' if check else 'written'}: {page.relative_to(ROOT)}")
        if not check:
            page.parent.mkdir(exist_ok=True)
            page.write_text(pages[page])
    if check and stale:
        print("run: python -m scripts.docs")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

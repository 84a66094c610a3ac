"""The pages hang together: every method has a page and a picture, every relative link leads somewhere."""

import re
from pathlib import Path

import pytest

from ropewalk.methods import METHODS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PICTURE = 60 * 1024  # bytes


def test_methods_and_pages_are_the_same_set() -> None:
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == set(METHODS)


@pytest.mark.parametrize("name", METHODS.names())
def test_method_has_a_small_picture_and_says_when_to_use_it(name) -> None:
    assert 0 < (DOCS / "methods" / "img" / f"{name}.png").stat().st_size <= PICTURE
    text = (DOCS / "methods" / f"{name}.md").read_text()
    for heading in ("## When to use", "## When not", "## Departures from the authors' code"):
        assert f"\n{heading}\n" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_relative_links_lead_somewhere(page) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ropewalk.errors import EvaluationError
from ropewalk.evaluate.report import figures, write_report
from tests.evaluate.report.rows import row, study
from tests.evaluate.samples import sample

ROOT = Path(__file__).parents[3]
# What makes a browser fetch something.
FETCHED = {"src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(written):
    return Page(written.page.read_text(encoding="utf-8"))


def write(rows, folder, **options):
    return Page(write_report(rows, folder, **options).page.read_text(encoding="utf-8"))


def test_every_figure_is_written_twice_and_stands_in_the_page(written, page):
    stems = [file.stem for file in written.figures if file.suffix == ".svg"]
    assert len(stems) == len(set(stems)) > 15
    for file in written.figures:
        data = file.read_bytes()
        if file.suffix == ".png":
            assert data.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
    assert [attrs["id"] for tag, attrs in page.tags if tag == "figure"] == stems
    assert {name.split("-")[0] for name in stems} == {"length", "depth", "position", "difference", "cost"}


def test_page_fetches_nothing(page):
    for tag, attrs in page.tags:
        assert not FETCHED & set(attrs), (tag, attrs)
        assert attrs.get("href", "#").startswith(("#", "data:,")), (tag, attrs)
    policy = next(attrs["content"] for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'") and "script-src 'sha256-" in policy


def test_ids_are_unique_and_every_figure_has_a_text(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    figures = sum(tag == "figure" for tag, _ in page.tags)
    told = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and attrs["role"] == "img"]
    assert sum(len(text) > 40 for text in told) == figures


def test_every_series_can_be_hidden_in_tables_and_figures(page):
    boxes = [attrs["value"] for tag, attrs in page.tags if tag == "input"]
    assert boxes == ["stock-0", "method-0", "method-1", "control-0"]
    for box in boxes:
        has = {tag for tag, attrs in page.tags if attrs.get("class") == box}
        assert {"tr", "g", "details"} <= has
        assert ("figure" in has) == (not box.startswith("control"))


def test_tables_and_settings_hold_the_numbers(page):
    assert "Effective length" in page.text and "85% of the stock score at 4096 tokens" in page.text
    assert "n=40 (4 docs)" in page.text and "95%" in page.text
    for shown in ("dpe0123456789abcdef", "needle-ten-kinds/1", "torch 2.13.0", "4096: 4072", "ropewalk eval needle"):
        assert shown in page.text


def test_interrupted_samples_empty_answers_and_doubts_are_shown(tmp_path):
    rows = [row("vt", method, i, length=4096) for method in ("none", "yarn") for i in range(3)]
    rows[0] = replace(rows[0], prompt_sha256="other")
    rows[1] = replace(rows[1], details={"prediction": " "})
    rows[2] = replace(rows[2], details={"prediction": "x"})
    rows[0] = replace(rows[0], details={"prediction": "x"})
    page = write(rows, tmp_path, interrupted=[rows[0].key])
    assert "1 samples were interrupted" in page.text and str(rows[0].key) in page.text
    assert "1 of 3 prompts differ by hash and are left out" in page.text and "vt at 4k, yarn" in page.text
    assert "1 of 3 answers are empty" in page.text


def test_names_and_outputs_are_text_and_no_markup(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x00_$\\frac{a}$"
    rows = [sample(i, [1.0], method=name) for i in range(2) for name in ("none", evil, "_hidden")]
    rows = [replace(one, model=evil, corpus=evil, device=evil, details={"prediction": evil}) for one in rows]
    rows = [replace(one, key=replace(one.key, task=evil, protocol=evil)) for one in rows]
    page = write(rows, tmp_path, title=evil, source=evil)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, attrs in page.tags if tag == "img" or "onerror" in attrs]
    assert "alert(1)" in page.text
    assert any("_hidden" in word for word in page.words)
    for file in (tmp_path / "figures").iterdir():
        assert re.fullmatch(r"[a-z0-9.-]+", file.name)


def test_names_that_give_the_same_file_name_are_numbered():
    rows = [sample(0, [1.0], task=task) for task in ("a b", "a-b")]
    names = [drawing.name for drawing in figures(rows)]
    assert "length-a-b" in names and "length-a-b--2" in names and len(names) == len(set(names))


def test_one_sample_of_one_method_is_enough(tmp_path):
    page = write([row("perplexity", "yarn", 0, length=4096)], tmp_path)
    assert "no samples of the stock model, so nothing is compared with it" in page.text
    assert "Effective length" not in page.text


def test_several_models_have_sections_and_figures_of_their_own(tmp_path):
    rows = study(lengths=(4096,), methods=("none",), controls=(), seeds=(0,), documents=2, tasks=("vt",))
    other = [replace(one, model="other", key=replace(one.key, model_sha256="other")) for one in rows]
    page = write(rows + other, tmp_path)
    assert {attrs["id"] for tag, attrs in page.tags if tag == "section"} >= {"study-1", "study-2"}
    names = {attrs["id"] for tag, attrs in page.tags if tag == "figure"}
    assert {"model-1-length-vt", "model-2-length-vt"} <= names


def test_a_gpu_is_measured_by_the_clock_on_the_wall():
    rows = [replace(row("vt", "none", 0, length=4096), device="NVIDIA H200", seconds=3.0, cpu_seconds=500.0)]
    [cost] = [one for one in figures(rows) if one.name.startswith("cost-time")]
    assert "seconds per document (NVIDIA H200)" in cost.caption
    assert "stock at 4k: 3," in cost.alt


def test_a_second_report_replaces_the_first(tmp_path):
    rows = [row("vt", "none", 0, length=4096)]
    first = write_report(rows, tmp_path).page.read_bytes()
    assert write_report(rows, tmp_path).page.read_bytes() == first


def test_no_rows_and_no_folder_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no samples to report"):
        write_report([], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="name a folder that can be written to"):
        write_report([row("vt", "none", 0, length=4096)], tmp_path / "file")


def test_reading_rows_for_a_report_needs_no_torch():
    code = "import sys, ropewalk.evaluate.report, ropewalk.evaluate.store; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr

import re
from xml.etree import ElementTree

import pytest

from ropewalk.evaluate.report.data import Series
from ropewalk.evaluate.report.sheet import INK, Sheet, look, style
from ropewalk.evaluate.report.svg import inline, render

STOCK, METHOD = Series("stock", "stock", 0), Series("a <b> & \"c\" $x$ id='d'", "method", 0)


@pytest.fixture(scope="module")
def drawn():
    """A figure of two series as an SVG file."""
    with style():
        sheet = Sheet(4, 3)
        for series in (STOCK, METHOD):
            sheet.line(sheet.axes[0], series, [0.0, 1.0], [0.0, 1.0])
            sheet.tag(series, sheet.axes[0].fill_between([0, 1], 0, 1))
        sheet.legend()
        return render(sheet.figure, "one")


def elements(text):
    return list(ElementTree.fromstring(text).iter())


def test_ids_of_two_figures_differ_and_links_lead_to_them(drawn):
    pages = [elements(inline(drawn, name, "")) for name in ("one", "two")]
    ids = [{one.get("id") for one in page if one.get("id")} for page in pages]
    assert ids[0] and not ids[0] & ids[1]
    for page, own in zip(pages, ids, strict=True):
        assert len([one for one in page if one.get("id")]) == len(own)
        text = " ".join(value for one in page for value in one.attrib.values())
        links = set(re.findall(r"url\(#([^)]*)\)", text)) | {one.get("href")[1:] for one in page if one.get("href")}
        assert links and links <= own


def test_every_part_of_a_series_has_its_class(drawn):
    page = elements(inline(drawn, "one", ""))
    kinds = [one.get("class") for one in page if one.get("class")]
    # Its line, its band, and line and name in the legend.
    assert kinds.count("method-0") == kinds.count("stock-0") == 4
    [name] = [one for one in page if one.get("class") == "method-0" and METHOD.name in "".join(one.itertext())]
    assert name.tag == "g"


def test_ink_takes_the_colour_of_the_page_and_paper_is_left_out(drawn):
    assert INK in drawn and "#ffffff" in drawn
    text = inline(drawn, "one", "")
    assert INK not in text and "currentColor" in text
    assert "#ffffff" not in text and "<style" not in text and "xmlns" not in text


def test_figure_says_what_it_shows_and_fits_its_place(drawn):
    root = elements(inline(drawn, "one", 'said "so" & <no>'))[0]
    assert (root.get("role"), root.get("aria-label")) == ("img", 'said "so" & <no>')
    assert root.get("width") == "384" and root.get("height") is None and root.get("viewBox")


def test_the_same_figure_is_the_same_text(drawn):
    with style():
        sheets = [Sheet(2, 2) for _ in range(2)]
        for sheet in sheets:
            sheet.line(sheet.axes[0], STOCK, [0.0], [1.0])
        first, second = (render(sheet.figure, "same") for sheet in sheets)
    assert first == second and first != drawn


def test_series_are_told_apart_by_colour_or_marker():
    looks = [look(STOCK), *(look(Series(str(i), "method", i)) for i in range(12))]
    assert len({(one.color, one.marker) for one in looks}) == 13
    controls = [look(Series(str(i), "control", i)) for i in range(3)]
    assert len({str(one.linestyle) for one in controls}) == 3 and all(one.linestyle != "-" for one in controls)

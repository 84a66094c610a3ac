"""A figure as SVG: for a file of its own, and to stand in a page among others."""

import io
import re
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

from ropewalk.evaluate.report.sheet import INK, PAPER

SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
# Series.ident, and a number that makes the id of this part its own.
TAG = re.compile(r"((?:stock|method|control)-\d+)--\d+")
# A point, 1/72 inch, in CSS pixels.
CSS_PIXELS = 4 / 3
# Their style would be that of the whole page.
UNWANTED = {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}


def render(figure: Figure, name: str) -> str:
    """The figure as an SVG file; the same figure gives the same text.

    Args:
        name: makes its ids its own.
    """
    file = io.StringIO()
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None, "Creator": "ropewalk"})
    return file.getvalue()


def inline(text: str, name: str, alt: str) -> str:
    """An SVG file as an element of an HTML page.

    Ids begin with `name`, so that those of two figures differ; the parts of a series have its ident as their class; ink
    is the page's `currentColor`; paper is left out; the height is up to the page, as the width is where it has less.

    Args:
        text: from `render`.
        name: of the figure, letters, digits and hyphens.
        alt: what a reader who cannot see it is told.
    """
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in UNWANTED or child.get("id", "").partition("--")[0] == PAPER:
                parent.remove(child)
    for element in root.iter():
        _own(element, name)
    root.attrib.pop("height")
    width = f"{float(root.attrib['width'].removesuffix('pt')) * CSS_PIXELS:.0f}"
    root.attrib |= {"role": "img", "aria-label": alt, "width": width}
    return ElementTree.tostring(root, encoding="unicode")


def _own(element: ElementTree.Element, name: str) -> None:
    """Make an element the page's: no namespaces, ids and links of its own, the colours of the page."""
    element.tag = element.tag.rpartition("}")[2]
    if element.tag == "text":
        # The family only: the page has its own.
        element.set("style", re.sub(r"(\d(?:\.\d+)?px) [^;]*", r"\1 sans-serif", element.get("style", "")))
    ident = element.attrib.pop("id", None)
    if ident and (match := TAG.fullmatch(ident)):
        element.set("class", match[1])
    elif ident:
        element.set("id", f"{name}-{ident}")
    link = element.attrib.pop(LINK, None)
    if link:
        element.set("href", f"#{name}-{link.removeprefix('#')}")
    for key, value in list(element.attrib.items()):
        if key in ("style", "clip-path", "fill", "stroke"):
            element.set(key, value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor"))

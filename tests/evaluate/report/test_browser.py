"""The page in a real browser: Debian's chromium, which `make browser` installs for `make test-all`."""

import shutil
from itertools import product

import pytest

from ropewalk.evaluate.report import write_report
from tests.evaluate.report.rows import WINDOW, study

pytestmark = pytest.mark.slow

PHONE, DESKTOP = 390, 1400
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

VISIBLE = """
const [selector] = arguments;
return [...document.querySelectorAll(selector)].filter((one) => one.getBoundingClientRect().width > 0).length;
"""
COLOURS = """
const of = (element) => getComputedStyle(element);
const text = document.querySelector("figure svg text");
return [of(document.body).backgroundColor, of(document.body).color, of(text).fill,
        of(document.querySelector('figure g.stock-0 > path[style*="fill: none"]')).stroke];
"""
WIDTHS = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth];"
# Anything wider than the window, but for what scrolls by itself.
WIDE = """
const edge = document.documentElement.clientWidth + 1;
return [...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".scroll *, svg *, .skip") && one.getBoundingClientRect().right > edge)
    .map((one) => one.outerHTML.slice(0, 80));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of seven methods, three controls and seven tasks at four lengths."""
    folder = tmp_path_factory.mktemp("page")
    return write_report(study(documents=2), folder, pretrained_length=WINDOW, source="results.db").page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.fail(f"{' and '.join(missing)} not found: run `make browser` (as root), which make test-all does first")
    options = ChromeOptions()
    options.binary_location = found["chromium"]
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(found["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture
def open_page(browser, page):
    def open_page(width=DESKTOP, theme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        return browser

    return open_page


def box(browser, name):
    [label] = [label for label in browser.find_elements("css selector", "#filter label") if label.text == name]
    return label.find_element("tag name", "input")


@pytest.mark.parametrize(("width", "theme"), list(product((PHONE, DESKTOP), ("light", "dark"))))
def test_page_renders_without_errors_and_fits_its_width(open_page, width, theme):
    driver = open_page(width, theme)
    assert driver.get_log("browser") == []
    figures = driver.find_elements("css selector", "figure svg")
    assert len(figures) > 40
    for figure in figures:
        size = figure.size
        assert 200 < size["width"] <= width and 100 < size["height"] < 1200
    across = driver.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert across[0] <= across[1] <= width
    assert driver.execute_script(WIDE) == []


def test_drawn_parts_lie_within_their_figures(open_page):
    driver = open_page()
    outside = driver.execute_script("""
        return [...document.querySelectorAll("figure svg text")].filter((text) => {
            const inner = text.getBoundingClientRect(), outer = text.closest("svg").getBoundingClientRect();
            return inner.left < outer.left - 3 || inner.right > outer.right + 3 || inner.top < outer.top - 3
                || inner.bottom > outer.bottom + 3;
        }).map((text) => text.textContent)""")
    assert outside == []


def test_unticking_a_method_hides_it_everywhere_and_ticking_brings_it_back(open_page):
    driver = open_page()
    yarn, dpe = (box(driver, name) for name in ("yarn", "dpe"))
    mine, other = (f".{one.get_attribute('value')}" for one in (yarn, dpe))
    parts = [f"tr{mine}", f"svg g{mine}", f"figure{mine}", f"details{mine}"]
    before = [driver.execute_script(VISIBLE, part) for part in parts]
    others = driver.execute_script(VISIBLE, other)
    assert all(before) and others
    yarn.click()
    assert [driver.execute_script(VISIBLE, part) for part in parts] == [0] * 4
    assert driver.execute_script(VISIBLE, other) == others
    yarn.click()
    assert [driver.execute_script(VISIBLE, part) for part in parts] == before


def test_filter_works_from_the_keyboard(open_page):
    from selenium.webdriver.common.keys import Keys

    driver = open_page()
    for _ in range(40):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = driver.switch_to.active_element
        if focused.get_attribute("type") == "checkbox":
            break
    name = focused.get_attribute("value")
    assert driver.execute_script(VISIBLE, f".{name}") > 0
    focused.send_keys(Keys.SPACE)
    assert driver.execute_script(VISIBLE, f".{name}") == 0
    driver.find_element("id", "all").send_keys(Keys.ENTER)
    assert driver.execute_script(VISIBLE, f".{name}") > 0
    driver.find_element("id", "none").send_keys(Keys.ENTER)
    assert driver.execute_script(VISIBLE, "tbody tr") == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_button_turns_the_colours_of_page_and_figures(open_page, theme):
    driver = open_page(theme=theme)
    before = driver.execute_script(COLOURS)
    button = driver.find_element("id", "theme")
    other = "dark" if theme == "light" else "light"
    assert button.text == other
    button.click()
    after = driver.execute_script(COLOURS)
    assert not set(before) & set(after)
    # Text of the page, text of figures and the stock model's line have one colour.
    assert len(set(before[1:])) == len(set(after[1:])) == 1
    assert button.text == theme
    assert after == open_page(theme=other).execute_script(COLOURS)

"""The status page in a browser: a phone and a desk, light and dark, nothing from elsewhere.

Screenshots are left in the test's folder; AFTER_SCREENSHOTS names another one to look at them.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from playwright import sync_api as playwright
from werkzeug.serving import make_server

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from web_fixtures import add_project, living_project, make_settings, worst_project

from backend.store.projects import Projects
from backend.web.app import create_app

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

PHONE, DESK = 390, 1100


def nothing(settings):
    pass


def fresh(settings):
    add_project(settings, title="Fresh")
    add_project(settings, 2, adopted=True)


def living(settings):
    folder = living_project(settings)
    Projects(settings).note_worker("one", time.time())
    now = time.time()
    folder.write(
        "progress.json",
        {"job": "round", "version": "after-r05-n0079", "stage": "fine-tuning", "done": 42.0,
         "total": 100.0, "started": now - 60, "updated": now},
    )  # fmt: skip


def worst(settings):
    living(settings)
    worst_project(settings)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(build):
        settings = make_settings(tmp_path)
        build(settings)
        server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture
def shots(tmp_path):
    folder = Path(os.environ.get("AFTER_SCREENSHOTS", tmp_path / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def look(browser):
    """look(url, width, scheme) -> (page, addresses it asked for, what the console said)."""
    contexts = []

    def open_page(url, width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        return page, asked, said

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("build", [nothing, fresh, living, worst])
@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (DESK, "dark")])
def test_the_page_fits_and_asks_for_nothing_else(serve, look, shots, build, width, scheme):
    url = serve(build)
    page, asked, said = look(f"{url}/?still", width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.screenshot(path=shots / f"{build.__name__}-{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [f"{url}/?still"]
    assert said == []  # nothing that the content security policy refused, too


def test_text_from_elsewhere_runs_nothing(serve, look):
    page, _, said = look(f"{serve(worst)}/?still", PHONE)
    assert page.title() == "AFTER"
    assert page.locator("script, img, iframe").count() == 0
    assert said == []


def test_text_can_be_read_on_a_phone(serve, look):
    page, _, _ = look(f"{serve(living)}/?still", PHONE)
    smallest = page.evaluate(
        """() => Math.min(...[...document.querySelectorAll('p, td, th, li, svg text')].map(e => {
            const svg = e.ownerSVGElement
            const scale = svg ? svg.getBoundingClientRect().width / 360 : 1
            return parseFloat(getComputedStyle(e).fontSize) * scale
        }))"""
    )
    assert smallest >= 9.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(serve, look, scheme):
    """WCAG AA: 4.5 : 1 for text."""
    page, _, _ = look(f"{serve(worst)}/?still", DESK, scheme)
    lowest = page.evaluate(
        """() => {
        const luminance = c => {
            const [r, g, b] = c.match(/[0-9.]+/g).slice(0, 3).map(v => v / 255)
                .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            return 0.2126 * r + 0.7152 * g + 0.0722 * b
        }
        const behind = e => {
            for (; e; e = e.parentElement) {
                const c = getComputedStyle(e).backgroundColor
                if (!c.includes(', 0)')) return c
            }
            return 'rgb(255, 255, 255)'
        }
        const texts = 'p, td, th, li, a, code, h1, h2, h3, strong, svg text'
        const ratios = [...document.querySelectorAll(texts)].map(e => {
                const s = getComputedStyle(e)
                const a = luminance(e.ownerSVGElement ? s.fill : s.color), b = luminance(behind(e))
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
            })
        return Math.min(...ratios)
    }"""
    )
    assert lowest >= 4.5


def test_the_page_has_names_for_what_it_shows(serve, look):
    page, _, _ = look(f"{serve(living)}/?still", DESK)
    assert page.locator("html[lang=en]").count() == 1
    for selector in ("svg", "[role=progressbar]", "[role=region]"):
        for element in page.locator(selector).all():
            assert element.get_attribute("aria-label")


def test_the_page_reloads_itself(serve, look):
    page, asked, _ = look(f"{serve(living)}/", PHONE)
    page.wait_for_event("load", timeout=15_000)
    assert len(asked) == 2

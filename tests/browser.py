"""A headless Chromium that is to stay on loopback, and says what went wrong in it."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from conftest import skip_or_fail
from services import DEADLINE

SHOTS = Path(__file__).parent.parent / "build" / "screenshots"  # build output, to be looked at
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium():
    """A browser of Playwright's; skips where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip_or_fail("needs playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        skip_or_fail("needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page in a tab of its own; `complaints` are console errors and requests beyond loopback."""

    def __init__(self, browser, link, **options):
        self.complaints = []
        self.tab = browser.new_page(**{"viewport": {"width": 1400, "height": 900}} | options)
        self.tab.set_default_timeout(1000 * DEADLINE)
        self.tab.on("console", self._console)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", self._request)
        self.tab.on("dialog", self._dialog)
        self.tab.goto(link)

    def _console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request):
        if urlsplit(request.url).hostname not in ("127.0.0.1", None):  # None: data:
            self.complaints.append(request.url)

    def _dialog(self, dialog):
        self.complaints.append(f"a script ran: {dialog.message}")
        dialog.dismiss()

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SHOTS / f"{name}.png")


class Visit(Tab):
    """A page of the dashboard."""

    def __init__(self, browser, link, theme="light"):
        super().__init__(browser, link, color_scheme=theme)
        self.tab.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")

    def text(self, name):
        """The text of a part of the page, as it is seen."""
        return self.tab.evaluate(
            """(name) => {
                const view = Bokeh.index.find_one_by_id(Bokeh.documents[0].get_model_by_name(name).id);
                return view.shadow_el.innerText ?? view.shadow_el.textContent;
            }""",
            name,
        )

    def has(self, name, text, seconds=DEADLINE):
        """Wait until a part of the page shows a text."""
        self.tab.wait_for_function(
            """([name, text]) => {
                const model = Bokeh.documents[0].get_model_by_name(name);
                const box = document.createElement("template");
                box.innerHTML = model.text;
                return box.content.textContent.includes(text);
            }""",
            arg=[name, text],
            timeout=1000 * seconds,
        )

    def column(self, source, name):
        """A column of a data source, as nested lists."""
        return self.tab.evaluate(
            """([source, name]) => {
                const column = Bokeh.documents[0].get_model_by_name(source).data[name];
                return Array.from(column, (c) => c.shape
                    ? {shape: c.shape, values: Array.from(c)} : ArrayBuffer.isView(c) ? Array.from(c) : c);
            }""",
            [source, name],
        )

    def choose(self, view):
        """Look at the tiles another way."""
        self.tab.get_by_text(view, exact=True).first.click()

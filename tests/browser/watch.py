"""Pages of a real browser, each watched: what it asks for, and what goes wrong in it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)
from stage import PASSWORD, Stage

#: Names of Chromium on the path.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: For which a page may take to show what is waited for; machines are busy.
PATIENCE_MS = 60_000
#: What reaches beyond the page where the page can be scrolled sideways.
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] : ['the page', ...document.querySelectorAll('body *')]
  .filter((element) => !element.closest || element.getBoundingClientRect().right > innerWidth)
  .map((element) => (element.outerHTML || element).slice(0, 80))"""


def find_chromium() -> str | None:
    """Find a Chromium on the path; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def running_browser(path: str) -> Iterator[Browser]:
    """Start a Chromium of this machine without a window."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # The sandbox needs rights that root and containers do not have; pages are this system's own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def link_to(page: Page, postback_id: str) -> Locator:
    """Find the links to a postback, whose ids are cut short."""
    return page.locator(f'main a[href$="/postbacks/{postback_id}"]')


class Desk:
    """Browser before a stage's dashboard: opens pages as somebody, and watches them.

    Attributes:
        responses: all that pages were answered.
        expected: parts of messages that a test asks for.
        wrong: requests to others than the dashboard, dialogs, messages and errors of pages.
    """

    def __init__(self, browser: Browser, stage: Stage) -> None:
        self._browser = browser
        self._stage = stage
        self._contexts: list[BrowserContext] = []
        self.responses: list[Response] = []
        # Chromium says so of each answer from 400 on, those that a test asks for among them.
        self.expected: tuple[str, ...] = ("Failed to load resource: the server responded",)
        self.wrong: list[str] = []

    def page(self, role: str = "operator", **options: Any) -> Page:
        """Open a page of a browser of its own, logged in with a role; nobody is logged in where the role is empty."""
        context = self._browser.new_context(base_url=self._stage.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", self._on_request)
        context.on("response", self._on_response)
        context.on("console", lambda message: self._on_console(message.type, message.text))
        context.on("weberror", lambda error: self.wrong.append(f"error: {error.error}"))
        context.on("dialog", self._on_dialog)
        self._contexts.append(context)
        if role:
            answer = context.request.post(
                "/login",
                form={"name": f"ann-{role}", "secret": PASSWORD},
                headers={"Origin": self._stage.url, "Sec-Fetch-Site": "same-origin"},
                max_redirects=0,
            )
            assert answer.status == 303, answer.text()
        return context.new_page()

    def statuses(self, part: str) -> Counter[int]:
        """Count what requests were answered whose address has this part."""
        return Counter(response.status for response in self.responses if part in response.url)

    def check(self) -> None:
        """Check that nothing went wrong, and that no script from elsewhere has run."""
        assert self.wrong == [], self.wrong

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(f"{self._stage.url}/"):
            self.wrong.append(f"request: {request.url}")

    def _on_response(self, response: Response) -> None:
        self.responses.append(response)

    def _on_console(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(part in text for part in self.expected):
            self.wrong.append(f"console: {text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

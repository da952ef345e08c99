"""Waiting in a browser for what a test means, however slow the machine is."""

import time
from typing import Any

LONG_SECONDS = 120


def until(page: Any, expression: str, argument: Any = None) -> None:
    """Wait until it is true. Playwright's own way evaluates in the page, which its policy forbids."""
    end = time.monotonic() + LONG_SECONDS
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def refreshed(page: Any) -> None:
    """Wait until the page has drawn itself anew once more."""
    page.evaluate(
        """() => new Promise((done) => {
            const drawn = (event) => event.detail.target.id === "page" && (done(), stop());
            const stop = () => document.removeEventListener("htmx:afterSettle", drawn);
            document.addEventListener("htmx:afterSettle", drawn);
        })"""
    )

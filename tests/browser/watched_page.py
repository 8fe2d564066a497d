"""What must not happen on any page: errors, and requests that leave for another host."""

from __future__ import annotations

from playwright.sync_api import Page


class WatchedPage:
    """A page, and the `problems` on it since it is watched."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.problems: list[str] = []
        self._own = ("/".join(url.split("/")[:3]), "data:", "blob:")
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)

    def leave(self) -> list[str]:
        """Watch it no more. Returns the problems."""
        self.page.remove_listener("pageerror", self._on_error)
        self.page.remove_listener("request", self._on_request)
        return self.problems

    def _on_error(self, error: object) -> None:
        self.problems.append(str(error))

    def _on_request(self, request) -> None:
        if not request.url.startswith(self._own):
            self.problems.append(f"asked {request.url}")

"""A panel's updates, as tests read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from components.services.run_job import run_job
from components.services.services import Services


def shown(updates: Iterator[dict]) -> dict:
    """The last value of every component."""
    values = {}
    for update in updates:
        values |= update
    return values


def run(services: Services, updates: Iterator, show: Callable[[dict], Any]) -> list:
    """All updates of a panel's work, its failure among them."""
    return list(run_job(services, "measure", None, updates, show))

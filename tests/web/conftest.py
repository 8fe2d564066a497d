"""What the page's tests share: services of their own."""

from __future__ import annotations

import gradio as gr
import pytest

from components.services.bases import Bases
from components.services.deployment import Deployment
from components.services.services import Services


@pytest.fixture(scope="session")
def bases() -> Bases:
    """Bases of the owner's own page, open for all tests that need nothing else."""
    return Bases()


@pytest.fixture
def services(bases) -> Services:
    """Services of the owner's own page."""
    return Services.of(bases=bases)


@pytest.fixture(scope="session")
def own_page(bases) -> gr.Blocks:
    """The owner's own page, for tests that read how it is wired."""
    from components.page import build

    return build(services=Services.of(bases=bases))


@pytest.fixture
def public_services() -> Services:
    """Services of a public page that allows healing, with nothing open."""
    return Services.of(Deployment.of(public=True, healing=True))

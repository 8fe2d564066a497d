"""Push the patient to the Hub, into the namespace of the visitor who signed in on a Space.

The visitor's token comes with the request and is passed to the upload. It is never stored, logged
or shown.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts
from components.services import checkpoints
from components.services.client_address import visitor
from components.services.run_job import in_turn, run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.job_buttons import stops
from components.widgets.status.status import note
from surgery import SurgeryError
from surgery.checkpoint.push import push
from surgery.operation import Operation

from .push import PushPanel


def wire(panel: PushPanel, parts: PageParts) -> None:
    """Tie it to the page."""
    services = parts.services

    def send(
        session: Session,
        healed: HealedStore,
        name: str,
        public: bool,
        request: gr.Request,
        profile: gr.OAuthProfile | None,
        token: gr.OAuthToken | None,
    ) -> Iterator[dict]:
        def updates() -> Iterator[dict]:
            if profile is None or token is None:
                raise SurgeryError("Sign in first.")
            operation = session.operation(healed)
            user = profile.username
            sending = upload(services, operation, name, not public, user, lambda: token.token)
            yield from in_turn(services.pushing, visitor(request), turn(sending), panel.running)

        def turn(sending: Iterator[dict]) -> Iterator[dict]:
            sent = note("Starting")
            for sent in sending:
                yield panel.running(sent)
            yield panel.ended(sent)

        yield from run_job(services, "save", request, updates(), panel.ended)

    sending = panel.start.click(
        send,
        [parts.session, parts.healed, panel.name, panel.public],
        [panel.status, panel.stop],
        **QUIET,
        **AT_ONCE,
    )
    stopped, hidden = note("Stopped."), gr.update(visible=False)
    stops(panel.stop, [sending], lambda: (stopped, hidden), None, [panel.status, panel.stop])


def upload(
    services: Services,
    operation: Operation,
    name: str,
    private: bool,
    user: str,
    token: Callable[[], str],
) -> Iterator[dict]:
    """Status values while the patient is written and sent to `user`/`name`.
    `token` is a function, so that the text itself is in no frame that an error report shows. Raises
    `SurgeryError`."""
    downloads, key = services.downloads, secrets.token_hex(16)
    folder = downloads.folder_of(key)

    def work(progress) -> str:
        try:
            out = checkpoints.write(
                services.bases,
                operation,
                name,
                checkpoints.AS_STORED,
                folder,
                False,
                progress,
            )
            place = f"{user}/{checkpoints.file_name(name) or out.name}"
            return push(out, place, private=private, progress=progress, token=token())
        finally:
            downloads.forget(key)
            shutil.rmtree(folder, ignore_errors=True)

    address = yield from watch(work, lambda status: status)
    yield note(f"Pushed to {address}")

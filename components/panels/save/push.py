"""On a Space: the patient straight to the Hub, into the namespace of whoever signed in.

Knows sign-in and where the checkpoint waits meanwhile; uploading is the library's affair. The
visitor's token comes with the request, goes to the upload, and is kept, logged and shown nowhere.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.services.deployment import current
from components.services.downloads import Downloads
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.healed_store import Clinic
from components.sessions.session import Session
from components.widgets.status.status import Status, failed, note
from components.widgets.stop_button import stops
from surgery import Plan, SurgeryError
from surgery.checkpoint.push import push
from surgery.progress import Cancelled

from .panel import AS_STORED, file_name, write

if TYPE_CHECKING:
    from surgery.healing import Healed

_NEEDED = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class PushPanel:
    """The panel's components."""

    name: gr.Textbox
    public: gr.Checkbox
    start: gr.Button
    stop: gr.Button
    status: Status


def offered() -> bool:
    """Whether visitors can sign in: only on a Space whose README asks for it."""
    return current().on_space and all(os.environ.get(name) for name in _NEEDED)


def push_panel() -> PushPanel | None:
    """Lay it out, where it is offered."""
    if not offered():
        return None
    with gr.Row(elem_classes="save-controls", equal_height=True):
        name = gr.Textbox(
            label="Repository",
            placeholder="my-patient",
            info="In your own namespace on the Hub. Made if it isn't there.",
            max_length=80,
            elem_id="push-name",
        )
        public = gr.Checkbox(
            value=False, label="Public", info="Else only you can see it.", elem_id="push-public"
        )
    with gr.Row(elem_classes="save-buttons"):
        gr.LoginButton(size="md", scale=0, min_width=220)
        start = gr.Button("Push to the Hub", scale=0, min_width=160, size="md", elem_id="push")
        stop = gr.Button("Stop", scale=0, min_width=80, size="md", elem_id="push-stop")
    status = Status(value={}, elem_id="push-status")
    return PushPanel(name, public, start, stop, status)


def wire(panel: PushPanel | None, session: gr.State, clinic: gr.State) -> None:
    """Tie it to the page."""
    if panel is None:
        return

    def send(
        session: Session,
        clinic: Clinic,
        name: str,
        public: bool,
        request: gr.Request,
        profile: gr.OAuthProfile | None,
        token: gr.OAuthToken | None,
    ) -> Iterator[dict]:
        try:
            admit("save", request)
            if profile is None or token is None:
                raise SurgeryError("Sign in first.")
            plan = session.plan
            yield from upload(
                session.spec,
                plan,
                name,
                not public,
                profile.username,
                lambda: token.token,
                clinic.patient(session.spec, plan),
            )
        except SurgeryError as error:
            yield failed(error)

    sending = panel.start.click(
        send,
        [session, clinic, panel.name, panel.public],
        panel.status,
        concurrency_limit=1,
        **_QUIET,
    )
    stops(panel.stop, [sending], lambda: note("Stopped."), None, [panel.status])


def upload(
    spec: str,
    plan: Plan,
    name: str,
    private: bool,
    user: str,
    token: Callable[[], str],
    healed: Healed | None = None,
) -> Iterator[dict]:
    """Status values while the patient, healed if it is, is written and sent to `user`/`name`.
    `token` is a function, so that the text itself stands in no frame that an error report shows."""
    key = secrets.token_hex(16)
    folder = Downloads.shared().of(key)
    try:

        def work(progress) -> str:
            try:
                out = write(spec, plan, name, AS_STORED, folder, False, progress, healed)
                place = f"{user}/{file_name(name) or out.name}"
                return push(out, place, private=private, progress=progress, token=token())
            finally:
                Downloads.shared().forget(key)
                shutil.rmtree(folder, ignore_errors=True)

        job = Job(work)
        for report in job:
            yield report.view()
        yield note(f"It is at {job.result()}")
    except Cancelled:
        yield note("Stopped.")
    except SurgeryError as error:
        yield failed(error)

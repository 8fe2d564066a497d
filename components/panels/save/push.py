"""Lay out the push to the Hub, into the namespace of the visitor who signed in on a Space."""

from __future__ import annotations

import os
from dataclasses import dataclass

import gradio as gr

from components.services.deployment import Deployment
from components.services.run_job import JobPanel
from components.widgets.status.status import Status

NEEDED = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")


@dataclass(frozen=True)
class PushPanel(JobPanel):
    """The panel's components."""

    name: gr.Textbox
    public: gr.Checkbox
    start: gr.Button
    stop: gr.Button
    status: Status


def offered(deployment: Deployment) -> bool:
    """Whether visitors can sign in: only on a Space whose README asks for it."""
    return deployment.on_space and all(os.environ.get(name) for name in NEEDED)


def layout(deployment: Deployment) -> PushPanel | None:
    """Lay it out in the current tab, where it is offered."""
    if not offered(deployment):
        return None
    with gr.Row(elem_classes="save-controls", equal_height=True):
        name = gr.Textbox(
            label="Repository",
            placeholder="my-patient",
            info="In your own namespace on the Hub; created if missing.",
            max_length=80,
            elem_id="push-name",
        )
        public = gr.Checkbox(
            value=False,
            label="Public",
            info="Otherwise only you can see it.",
            elem_id="push-public",
        )
    with gr.Row(elem_classes="save-buttons"):
        gr.LoginButton(size="md", scale=0, min_width=220)
        start = gr.Button("Push to the Hub", scale=0, min_width=160, size="md", elem_id="push")
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="push-stop"
        )
    status = Status(value={}, elem_id="push-status")
    return PushPanel(name, public, start, stop, status)

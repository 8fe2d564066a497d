"""Choose the text to measure on: one of the project's, the visitor's own, or a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.services.deployment import Deployment
from surgery import SurgeryError, texts
from surgery.progress import Progress

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Sample

OWN, DATASET = "your own text", "a data set on the Hub"
_LONGEST = 40_000  # characters: more tokens than a sample takes
_ROWS = 32  # of a data set


@dataclass(frozen=True)
class SamplePicker:
    """The components."""

    kind: gr.Dropdown
    own: gr.Textbox

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components whose values `sample_of` takes after the base."""
        return [self.kind, self.own]


def sample_picker(public: bool) -> SamplePicker:
    """Lay it out in the current row."""
    # On a public page no data set is requested in the owner's name.
    offered = [*texts.KINDS, OWN] if public else [*texts.KINDS, OWN, DATASET]
    kind = gr.Dropdown(
        offered,
        value=texts.DEFAULT,
        label="Text to measure on",
        info="Six kinds are included; scores differ between them.",
        scale=1,
        min_width=220,
        elem_id="sample-kind",
    )
    own = gr.Textbox(
        label="Your text",
        placeholder="Paste some paragraphs",
        lines=2,
        max_lines=6,
        max_length=_LONGEST,
        visible=False,
        scale=3,
        elem_id="sample-own",
    )

    def chosen(kind: str) -> dict:
        if kind == DATASET:
            return gr.update(
                visible=True, label="Data set", placeholder="org/name, or org/name:split"
            )
        return gr.update(
            visible=kind == OWN, label="Your text", placeholder="Paste some paragraphs"
        )

    kind.input(chosen, kind, own, queue=False, show_progress="hidden", api_visibility="private")
    return SamplePicker(kind, own)


def sample_of(
    base: Base,
    kind: str,
    own: str,
    deployment: Deployment,
    progress: Progress,
    half: texts.Half = "choose",
) -> Sample:
    """The chosen text, tokenized for the base; of the kinds that are offered the short text of a
    half. Raises `SurgeryError`."""
    from surgery.analysis import Sample

    own = str(own or "").strip()[:_LONGEST]
    deployment.check_text(own)
    if kind == DATASET and deployment.public:
        raise SurgeryError("A public page can't use data sets: paste some of the text instead.")
    if kind == OWN:
        if not own:
            raise SurgeryError("Your text is empty: paste some paragraphs.")
        return Sample.of(base, own)
    if kind == DATASET:
        name, _, split = own.partition(":")
        if not name:
            raise SurgeryError("Name a data set on the Hub, as org/name.")
        rows = texts.from_dataset(name, split or "train", limit=_ROWS, progress=progress)
        return Sample.of(base, rows)
    return Sample.of(base, texts.get(str(kind), half))


def judging_sample(base: Base, kind: str, sample: Sample) -> tuple[Sample, Sample | None]:
    """What to choose plans on, and what to judge them on: another part of the same kind of text.
    None for the second if the visitor's text is too short to be divided."""
    from surgery.analysis import text_to_judge_on

    if kind in texts.KINDS:
        return sample, text_to_judge_on(base, kind)
    try:
        return sample.halves()
    except SurgeryError:
        return sample, None


def name_of(kind: str, own: str) -> str:
    """The choice in a word or two, for the log."""
    if kind == OWN:
        return "own text"
    return str(own or "")[:80] if kind == DATASET else str(kind)

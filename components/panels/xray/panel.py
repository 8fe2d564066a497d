"""Lay out the X-ray panel: one text to measure on, and tabs that measure."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.services import Services

from . import compare, scan, skills, suggest
from .compare import ComparePanel
from .sample_picker import SamplePicker, sample_picker
from .scan import ScanPanel
from .skills import SkillsPanel
from .suggest import SuggestPanel

TAB = "X-ray"
SCAN = "scan"  # the tab within it


@dataclass(frozen=True)
class XrayPanel:
    """The panel's parts."""

    tabs: gr.Tabs
    sample: SamplePicker
    scan: ScanPanel
    compare: ComparePanel
    skills: SkillsPanel
    suggest: SuggestPanel


def layout(services: Services) -> XrayPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-controls fields", equal_height=True):
        sample = sample_picker(services.deployment.public)
    with gr.Tabs(elem_id="xray-parts") as tabs:
        with gr.Tab("Where to cut", id=SCAN):
            seeing = scan.layout()
        with gr.Tab("What the cut did"):
            comparing = compare.layout()
        with gr.Tab("Skills", id="skills"):
            probing = skills.layout()
        with gr.Tab("Suggestions"):
            suggesting = suggest.layout()
    return XrayPanel(tabs, sample, seeing, comparing, probing, suggesting)

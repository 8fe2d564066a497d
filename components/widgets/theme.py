"""Colours, type and spacing of the page. Fonts are the system's own, so nothing is fetched."""

from __future__ import annotations

import gradio as gr

_SANS = ("Inter", "Source Sans 3", "ui-sans-serif", "system-ui", "sans-serif")
_MONO = ("ui-monospace", "SF Mono", "JetBrains Mono", "DejaVu Sans Mono", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's plain theme with our colours; contrast is at least 4.5:1 in light and dark."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="#f6f7f8",
        body_background_fill_dark="#0e1116",
        body_text_color="#1b1f24",
        body_text_color_dark="#eef1f5",
        body_text_color_subdued="#56606b",
        body_text_color_subdued_dark="#a3aebb",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#161b22",
        background_fill_secondary="#eff1f3",
        background_fill_secondary_dark="#1e252e",
        block_background_fill="#ffffff",
        block_background_fill_dark="#161b22",
        block_border_color="#dde1e6",
        block_border_color_dark="#2a323c",
        border_color_primary="#dde1e6",
        border_color_primary_dark="#2a323c",
        color_accent="#0b5fc4",
        color_accent_soft="#0b5fc41c",
        color_accent_soft_dark="#6db3ff2b",
        block_label_text_color="#56606b",
        block_label_text_color_dark="#a3aebb",
        block_title_text_color="#3a434d",
        block_title_text_color_dark="#c3ccd6",
        block_info_text_color="#56606b",
        block_info_text_color_dark="#a3aebb",
        input_background_fill="#ffffff",
        input_background_fill_dark="#10151b",
        # Fields are seen by their borders: at least 3:1.
        input_border_width="1px",
        input_border_width_dark="1px",
        input_border_color="#87919c",
        input_border_color_dark="#66727f",
        checkbox_border_width="1px",
        checkbox_border_width_dark="1px",
        checkbox_border_color="#87919c",
        checkbox_border_color_dark="#66727f",
        checkbox_label_border_width="0px",
        checkbox_label_border_width_dark="0px",
        input_placeholder_color="#68727d",
        input_placeholder_color_dark="#8d98a5",
        button_primary_background_fill="#0b5fc4",
        button_primary_background_fill_hover="#0a52a9",
        button_primary_background_fill_dark="#3d8ef0",
        button_primary_background_fill_hover_dark="#5aa0f5",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#07121f",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#eff1f3",
        button_secondary_background_fill_dark="#1e252e",
        button_secondary_background_fill_hover_dark="#28313c",
        button_secondary_text_color="#1b1f24",
        button_secondary_text_color_dark="#eef1f5",
        button_secondary_border_color="#cfd5db",
        button_secondary_border_color_dark="#38424d",
        button_border_width="1px",
        button_border_width_dark="1px",
        block_shadow="none",
        shadow_drop="none",
    )

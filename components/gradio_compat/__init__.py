"""Changes to Gradio's own behaviour."""

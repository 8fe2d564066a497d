"""The lesson on initialising models: its steps, figures and common mistakes."""

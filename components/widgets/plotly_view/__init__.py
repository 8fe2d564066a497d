"""Plotly pictures, updated in place."""

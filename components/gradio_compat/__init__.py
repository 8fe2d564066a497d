"""Patches of Gradio and uses of its internals, one file for each.

Each file says which Gradio it was written for, why it is needed, and when it can go.
tests/web/test_gradio_compat.py fails when Gradio no longer behaves as a file assumes.
"""

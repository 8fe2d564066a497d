"""Choosing the base model."""

"""Weights: distributions and single matrices."""

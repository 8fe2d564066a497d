"""Checks that a rebuilt model computes what the plan says."""

"""Heal: training that recovers the patient."""

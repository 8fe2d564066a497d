"""Configs rewritten for a plan: plain dicts, no modules, no tensors."""

"""The texts to learn from where none is given: they need neither a file nor a network."""

MIXED = "mixed"  # half of each of these:
OWN = "own"  # what the base writes
PYTHON = "python"  # source code of Python's own library

#: {kind: what it is, in words}
DESCRIPTIONS = {
    MIXED: "text sampled from the base and Python's library",
    OWN: "text sampled from the base",
    PYTHON: "Python's library",
}

"""Healing: training that brings an operated model back, by distillation from its uncut base.

    settings = Settings(minutes=15)
    healed = heal(base, plan, settings, "out.healing")
    healed.save("out")

    settings   what a run is told
    text       what it reads: a file, a data set, or what the base itself writes
    minutes    how a run's minutes are divided between text, looks and steps
    order      which windows a step reads and at which rate, from its number alone
    trainee    the patient with parameters of its own where it learns
    objective  distillation, next token, hidden states
    teaching   teacher and patient over the same windows, and their loss
    judge      perplexity on held-out text, beside the base and the cut patient
    run        the loop, an iterator of events
    state      what was learnt so far, as whole tensors
    kept       states on disk; a killed run goes on from the last one
    healed     the result: a patient that streams and saves
    cost       operations, hours, money and memory, before it begins

The loop is plain PyTorch with accelerate, so that the same run goes over several processes.
"""

from .cost import ACCELERATORS, REFERENCES, Cost, cost
from .evaluation import Judge, Look
from .healed import Healed
from .run import Diverged, Event, Healing, heal
from .settings import Settings

__all__ = [
    "ACCELERATORS",
    "REFERENCES",
    "Cost",
    "Diverged",
    "Event",
    "Healed",
    "Healing",
    "Judge",
    "Look",
    "Settings",
    "cost",
    "heal",
]

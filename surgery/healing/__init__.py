"""Healing: training that restores an operated model, by distillation from its uncut base.

    settings = Settings(minutes=15)
    healed = heal(base, plan, settings, "out.healing")
    healed.save("out")

    settings        every parameter, with its default, bounds and description
    cost            operations, hours, money and memory, before a run begins
    text            training text: a file, a data set, or what the base itself writes
    own_text        what the base writes, many rows side by side
    time_budget     how a run's minutes are divided between text, evaluations and steps
    schedule        data order and learning rate, as functions of seed and step
    student         the patient with parameters of its own where it trains
    objective       losses: distillation KL, next-token, hidden-state distance
    distillation    teacher and student over the same sequences
    evaluation      perplexity on held-out text, beside the base and the cut patient
    trial_step      how long a step takes, and whether it fits
    start           what a run begins from: the cut patient, or a repaired one
    run             the training loop, an iterator of events
    whole_run       heals to the end, in one call
    state           trained tensors and optimizer state
    run_checkpoint  states on disk, from which a killed run resumes
    records         schemas of the JSON files beside them
    healed          the result: a patient that streams and saves

The loop is plain PyTorch with accelerate, so that the same run can use several processes. Names are
imported when they are first used: settings need no torch.
"""

from surgery.lazy import lazy_names

_HOMES = {
    "ACCELERATORS": "cost",
    "CostEstimate": "cost",
    "Diverged": "run",
    "Event": "run",
    "Healed": "healed",
    "HealingRun": "run",
    "Evaluator": "evaluation",
    "EvalResult": "evaluation",
    "REFERENCES": "cost",
    "Settings": "settings",
    "estimate_cost": "cost",
    "heal": "whole_run",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)

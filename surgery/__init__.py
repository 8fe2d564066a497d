"""Layer surgery for decoder-only language models, as a library.

    from surgery import Base, Plan

    base = Base.open("bundled")
    plan = Plan.parse("0:22, 8:30", depth=base.depth)
    base.preview(plan).parameters
    patient = base.operate(plan)
    for piece in patient.stream("Once upon a time", max_new_tokens=64):
        print(piece, end="")
    base.save(plan, "out/")

Names are imported when they are first used: plans and `--help` need no torch.
"""

from .lazy import lazy_names

__version__ = "0.2.0"

_HOMES = {
    "Base": "base",
    "BaseError": "errors",
    "Cancelled": "progress",
    "History": "history",
    "Init": "plan",
    "Layer": "plan",
    "PRESETS": "presets",
    "Operation": "operation",
    "Patient": "patient",
    "Plan": "plan",
    "PlanError": "errors",
    "Preview": "preview",
    "Refused": "errors",
    "RepairSettings": "repairing",
    "Repaired": "repairing",
    "SaveError": "errors",
    "SurgeryError": "errors",
    "repair": "repairing",
    "resize_embeddings": "derived.resized",
    "set_compute_dtype": "compute.choice",
    "stack": "derived.stacked",
    "stack_united": "derived.united",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)

"""Repair without training: close the gap that a cut leaves in the hidden states, in closed form.

    repaired = repair(base, plan)
    if repaired.helps:
        repaired.save("out")

    settings        the methods, and what a repair is asked for
    calibration     the text that hidden states are compared on
    targets         which of the base's hidden states a layer should return
    outputs         the output projections that can be fitted
    memory          what a fit takes, checked before it
    least_squares   weighted ridge regression from sums over tokens
    refit           fits along depth, layer by layer: refit and lstsq
    scale_match     the method alpha
    run             choose the layers, repair, and measure what was gained
    repaired        the result: a patient that streams and saves

Names are imported when they are first used: settings need no torch.
"""

from surgery.lazy import lazy_names

_HOMES = {
    "METHODS": "settings",
    "RepairSettings": "settings",
    "Repaired": "repaired",
    "repair": "run",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)

"""Make the model `layer-surgery` known to lm-eval.

The package names it in the entry-point group `lm_eval.models`. lm-eval's registry takes entry
points, but no release up to 0.4.13 looks for any, so until one does they have to be registered.
"""

from __future__ import annotations

from surgery.optional import require

NAME = "layer-surgery"
TARGET = "surgery.harness.model:PatientLM"


def register() -> None:
    """Let lm-eval find the model by its name, in this process. Does nothing if it already does.
    Raises `SurgeryError` if lm-eval is not installed."""
    require("lm_eval", "Evaluation")
    import lm_eval.models  # noqa: F401  it registers its own models only while there are none
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)

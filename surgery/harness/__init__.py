"""Evaluate patients, saved or not, with lm-evaluation-harness.

    python -m surgery.harness run --model layer-surgery \\
        --model_args "base=bundled,plan=0:13;17:30" --tasks arc_easy

    opening         the patient that model arguments describe
    model           lm-eval's model class `layer-surgery`
    registration    make it known to lm-eval
    download_counts no reports of what is loaded
    evaluation      a base and its patient on the same tasks, compared item by item
    kept_results    what was evaluated on this machine, for the page's Log

Only `model` needs lm-eval when it is imported; names are imported when they are first used.
"""

from surgery.lazy import lazy_names

_HOMES = {
    "KeptResult": "kept_results",
    "LoadedLM": "model",
    "PatientLM": "model",
    "Result": "evaluation",
    "evaluate": "evaluation",
    "keep": "kept_results",
    "kept": "kept_results",
    "open_patient": "opening",
    "register": "registration",
}
__all__ = sorted(_HOMES)
__getattr__ = lazy_names(__name__, _HOMES)

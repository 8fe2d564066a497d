"""Settings of a healing run: every parameter with its default, bounds and description.

The command line's options and the page's form are made from this one model, and only it validates.
It is written to disk with a run, so that a resumed run is the same run. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from surgery import numbers
from surgery.errors import SurgeryError

#: Minutes of a run where neither steps nor minutes are given.
DEFAULT_MINUTES = 10.0
#: Peak learning rates by default: of a run, and of one that begins from a repaired patient, which
#: at the higher rate first loses what the repair brought.
LEARNING_RATE, AFTER_REPAIR = 5e-4, 1.5e-4

#: What each choice stands for, in the order in which they are offered.
CHOICES: Mapping[str, Mapping[str, str]] = {
    "objective": {
        "distill": "distillation from the base",
        "next-token": "next-token prediction",
    },
    "default_text": {
        "mixed": "half written by the base, half from Python's library",
        "own": "written by the base",
        "python": "source code of Python's library",
    },
    "train": {
        "seams": "layers next to seams",
        "new": "added layers",
        "all": "all layers",
        "lora": "LoRA adapters on all layers",
    },
    "schedule": {
        "cosine": "down to a tenth by a cosine",
        "linear": "down to a tenth in a line",
        "constant": "constant",
    },
}
_NO_LIMIT = 10**6  # an upper bound from here on only guards against nonsense
_SAME_RUN = ("save_every", "evaluate_every")  # settings that change none of a run's numbers


def _setting(
    default: Any,
    label: str,
    description: str,
    low: float | None = None,
    high: float | None = None,
    *,
    unit: str = "",
    basic: bool = False,
    **more: Any,
) -> Any:
    """A field. `basic` ones stand in the open, the others under advanced settings."""
    extra: Any = {"unit": unit, "group": "basic" if basic else "advanced"}
    return Field(
        default,
        title=label,
        description=description,
        ge=low,
        le=high,
        json_schema_extra=extra,
        **more,
    )


class Settings(BaseModel):
    """Settings of a run. Raises `SurgeryError` with one sentence for values that make no sense.

    `objective`: `distill` minimises T²·KL(teacher ‖ patient) of the next token's distribution at
    `temperature` T (Hinton et al., arXiv 1503.02531); the teacher is the uncut base. `hidden` is
    the weight of a second term, the relative squared distance of the hidden states before each
    seam from the teacher's. `next-token` is the cross-entropy of plain pretraining.

    `train`: `lora` puts low-rank adapters (arXiv 2106.09685) of `rank`, `alpha` (None: the rank)
    and `dropout` on every linear map of the layers; `new` trains the whole weights of layers that
    the plan added (LLaMA-Pro, arXiv 2401.02415), `seams` those within `radius` of a place where
    the plan departs from the base's order, `all` those of every layer. `layers` names positions in
    the plan instead, for LoRA or for whole weights. Embeddings, final norm and head stay frozen.

    `text` is a file, `data` a data set on the Hub ("org/name", streamed). With neither it is
    `default_text`: `own` is sampled from the base, `sampled_tokens` of it (0: as much as the run
    reads, or can write in its minutes), `python` is source code of Python's own library, and
    `mixed` is as much of each; up to 2**18 tokens. `held_out` is a file of text to evaluate on,
    which should be of another source; by default the project's own four texts are used.

    The length is `steps`, or else `minutes` (text sampling included), turned into steps by the
    speed of the first ones. A step reads `batch` sequences of `window` tokens, over all processes,
    each of which may do its share in `accumulate` equal parts to save memory.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    text: str = _setting("", "Text file", "Train on the text of this file.", basic=True)
    data: str = _setting(
        "", "Data set", "Train on a Hub data set: org/name, or org/name:subset.", basic=True
    )
    held_out: str = _setting(
        "", "Held-out text", "Evaluate on this file instead of the short texts."
    )
    objective: Literal["distill", "next-token"] = _setting(
        "distill", "Objective", "What the patient learns.", basic=True
    )
    temperature: float = _setting(
        1.0, "Temperature", "Softmax temperature of the distillation.", 0.1, 100
    )
    hidden: float = _setting(
        0.0, "Hidden-state weight", "Weight of the hidden states' distance before seams.", 0, 1e6
    )
    train: Literal["seams", "new", "all", "lora"] = _setting(
        "seams", "Train", "Which weights change.", basic=True
    )
    layers: tuple[Annotated[int, Field(ge=0)], ...] = _setting(
        (), "Layers", "Train the layers at these positions instead, such as 11:15.", strict=False
    )
    radius: int = _setting(4, "Radius", "Layers on each side of a seam.", 1, 4096, unit="layers")
    rank: int = _setting(16, "LoRA rank", "Rank of the LoRA adapters.", 1, 4096)
    alpha: float | None = _setting(
        None, "Alpha", "Scale of the LoRA adapters; by default the rank.", 1e-6, 1e6
    )
    dropout: float = _setting(0.0, "Dropout", "Dropout of the LoRA adapters.", 0, 0.9)
    steps: int | None = _setting(
        None, "Steps", "Stop after this many steps.", 1, 10**9, unit="steps"
    )
    minutes: float | None = _setting(
        None,
        "Minutes",
        f"Stop after about this many minutes, by default {numbers.plain(DEFAULT_MINUTES)}.",
        0.05,
        1e6,
        unit="minutes",
        basic=True,
    )
    batch: int = _setting(2, "Batch size", "Sequences per step.", 1, 10**6, unit="sequences")
    window: int = _setting(256, "Sequence length", "Tokens per sequence.", 2, 10**7, unit="tokens")
    accumulate: int = _setting(
        1,
        "Gradient accumulation",
        "Split each process's share of a batch into so many parts, to save memory.",
        1,
        10**6,
    )
    learning_rate: float | None = _setting(
        None,
        "Learning rate",
        f"Peak learning rate; by default {LEARNING_RATE:g}, or {AFTER_REPAIR:g} after a repair.",
        1e-9,
        10,
    )
    schedule: Literal["cosine", "linear", "constant"] = _setting(
        "cosine", "Schedule", "Learning rate after the warm-up."
    )
    warmup: int = _setting(
        10, "Warm-up", "Steps until the learning rate peaks.", 0, 10**9, unit="steps"
    )
    weight_decay: float = _setting(0.0, "Weight decay", "Weight decay of AdamW.", 0, 10)
    clip: float = _setting(1.0, "Gradient clipping", "Largest norm of the gradients.", 1e-6, 1e6)
    default_text: Literal["mixed", "own", "python"] = _setting(
        "mixed",
        "Default text",
        "If no text is given: half written by the base and half from Python's library, or only one "
        "of them.",
    )
    sampled_tokens: int = _setting(
        0,
        "Sampled tokens",
        "How many tokens of text the base writes; 0 for as many as the run reads.",
        0,
        10**12,
        unit="tokens",
    )
    seed: int = _setting(0, "Seed", "The same seed gives the same run.", 0, 2**31)
    save_every: int | None = _setting(
        None,
        "Save every",
        "Steps between saved states; by default, one is saved each minute.",
        1,
        10**9,
    )
    evaluate_every: int | None = _setting(
        None,
        "Evaluate every",
        "Steps between evaluations; by default, there are ten.",
        1,
        10**9,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SurgeryError(_sentence(error)) from error

    @model_validator(mode="after")
    def _belong_together(self) -> Settings:
        if self.text and self.data:
            raise ValueError("Choose one source of text: a file or a data set.")
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("Choose how long to heal: a number of steps, or minutes.")
        if self.batch % self.accumulate:
            raise ValueError("The batch size must be a multiple of the parts it is split into.")
        if self.hidden and self.objective != "distill":
            raise ValueError("Hidden states are the teacher's: choose the objective distill.")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Over all processes."""
        return self.batch * self.window

    @property
    def writes_in_time(self) -> bool:
        """Does the base write the text, as much as a run's minutes allow?"""
        given = self.text or self.data or self.default_text == "python"
        return not (given or self.sampled_tokens or self.steps)

    def peak_rate(self, repaired: bool = False) -> float:
        """The learning rate, or its default for a run that begins from the cut patient or from a
        `repaired` one."""
        return self.learning_rate or (AFTER_REPAIR if repaired else LEARNING_RATE)

    def replace(self, **changes: Any) -> Settings:
        """The same settings with some changed. Raises `SurgeryError`."""
        return Settings(**{**self.model_dump(), **changes})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump(mode="json")

    def same_run(self, other: Settings) -> bool:
        """Would both give the same losses? How often a run saves and evaluates changes none."""
        return self.model_dump(exclude={*_SAME_RUN}) == other.model_dump(exclude={*_SAME_RUN})


def described(name: str) -> FieldInfo:
    """The field: `.title`, `.description`, `.default`, and `.json_schema_extra` with its unit and
    group."""
    return Settings.model_fields[name]


def bounds(name: str) -> tuple[float, float] | None:
    """The lowest and highest value of a number; None for other settings."""
    limits = {
        key: getattr(limit, key)
        for limit in described(name).metadata
        for key in ("ge", "le")
        if hasattr(limit, key)
    }
    return (limits["ge"], limits["le"]) if len(limits) == 2 else None


def is_whole(name: str) -> bool:
    """Is it an integer?"""
    annotation = described(name).annotation
    return int in (annotation, *get_args(annotation))


def allowed(name: str) -> str:
    """What a setting may be, in a few words: distill or next-token; 0.1 to 100; at least 1."""
    if name in CHOICES:
        return numbers.listed([*CHOICES[name]])
    if (limits := bounds(name)) is None:
        return ""
    low, high = map(numbers.plain, limits)
    return f"{low} to {high}" if limits[1] < _NO_LIMIT else f"at least {low}"


def _sentence(error: ValidationError) -> str:
    """The first of the errors, for a person."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"“{name[:40]}” is not a setting of this version."
    label = described(name).title
    if name == "layers":
        return "Layers must be positions in the plan, counted from 0."
    if name in CHOICES:
        return f"{label} can't be “{str(first['input'])[:40]}”: choose {allowed(name)}."
    if (limits := bounds(name)) is None:
        return f"{label} must be a string."
    kind = "a whole number" if is_whole(name) else "a number"
    return f"{label} must be {kind} from {' to '.join(map(numbers.plain, limits))}."

"""What a run of healing is told: what it learns from, what trains, and for how long.

Plain values that are checked when they are made; they are written to disk with the run, so that a
resumed one is the same run.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from surgery.errors import SurgeryError

OBJECTIVES = ("distill", "next-token")
TRAIN = ("lora", "new", "seams", "all")
SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Raises `SurgeryError` for values that make no sense.

    `objective`: `distill` minimises KL(teacher ‖ patient) of the next token's distribution at
    `temperature`, times its square (Hinton et al., arXiv 1503.02531); the teacher is the uncut
    base. `hidden` is the weight of a second term, the relative squared distance of the hidden
    states behind each seam from the teacher's. `next-token` is the cross-entropy of plain
    pretraining.

    `train`: `lora` puts low-rank adapters (arXiv 2106.09685) of `rank`, `alpha` (None: the rank)
    and `dropout` on every linear map of the layers; `new` trains the whole weights of layers that
    the plan added (LLaMA-Pro, arXiv 2401.02415), `seams` those within `radius` of a place where
    the plan departs from the base's order, `all` those of every layer. `layers` names positions in
    the plan instead, for LoRA or for whole weights. Embeddings, final norm and head stay frozen.

    `text` is a file, `data` a data set on the Hub ("org/name", streamed); with neither, text is
    sampled from the base, `sampled_tokens` of it (0: what the run will read, or can in its minutes,
    up to 2**18 tokens). `held_out` is a file of text to judge by, which should be of another
    source; without it the project's own four texts are.

    The length is `steps`, or else `minutes` (text sampling included), turned into steps by the
    speed of the first ones. A step reads `batch` windows of `window` tokens, over all processes,
    each of which may do its share in `accumulate` equal parts to save memory.
    """

    objective: str = "distill"
    temperature: float = 1.0
    hidden: float = 0.0
    train: str = "seams"
    layers: tuple[int, ...] = ()
    radius: int = 4
    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    text: str = ""
    data: str = ""
    held_out: str = ""
    sampled_tokens: int = 0
    steps: int | None = None
    minutes: float | None = None
    batch: int = 2
    window: int = 256
    accumulate: int = 1
    learning_rate: float = 5e-4
    schedule: str = "cosine"
    warmup: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    save_every: int | None = None  # steps; None: once a minute
    evaluate_every: int | None = None  # steps; None: ten times a run

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for name, allowed in (("objective", OBJECTIVES), ("train", TRAIN), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                said = str(getattr(self, name))[:40]
                raise SurgeryError(f"“{said}” is no {name}: choose {', '.join(allowed)}.")
        for name, low, high in (
            ("temperature", 0.1, 100),
            ("hidden", 0, 1e6),
            ("radius", 1, 4096),
            ("rank", 1, 4096),
            ("alpha", 1e-6, 1e6),
            ("dropout", 0, 0.9),
            ("sampled_tokens", 0, 10**12),
            ("steps", 1, 10**9),
            ("minutes", 0.05, 10**6),
            ("batch", 1, 10**6),
            ("window", 2, 10**7),
            ("accumulate", 1, 10**6),
            ("learning_rate", 1e-9, 10),
            ("warmup", 0, 10**9),
            ("weight_decay", 0, 10),
            ("clip", 1e-6, 1e6),
            ("seed", 0, 2**31),
            ("save_every", 1, 10**9),
            ("evaluate_every", 1, 10**9),
        ):
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            whole = name in _WHOLE
            right = type(value) is int or (not whole and isinstance(value, float))
            if not (right and low <= value <= high):  # also false for NaN
                kind = "a whole number" if whole else "a number"
                shown = name.replace("_", " ")
                raise SurgeryError(f"The {shown} can be {kind} from {low:g} to {high:g}.")
        if not all(isinstance(word, str) for word in (self.text, self.data, self.held_out)):
            raise SurgeryError("text, data and held_out have to be strings.")
        if self.text and self.data:
            raise SurgeryError("Choose one source of text: a file or a data set.")
        if (self.steps is None) == (self.minutes is None):
            raise SurgeryError("Say how long to heal: a number of steps, or minutes.")
        if self.batch % self.accumulate:
            raise SurgeryError("The batch has to be a multiple of the parts it is done in.")
        if self.hidden and self.objective != "distill":
            raise SurgeryError("Hidden states are the teacher's: they belong to distill.")
        if any(type(i) is not int or i < 0 for i in self.layers):
            raise SurgeryError("The layers to train are positions in the plan, from 0.")

    @property
    def tokens_per_step(self) -> int:
        """Over all processes."""
        return self.batch * self.window

    @property
    def writes_in_time(self) -> bool:
        """Does the base write the text, as much as a run's minutes allow?"""
        return not (self.text or self.data or self.sampled_tokens or self.steps)

    def as_dict(self) -> dict:
        """As JSON has it."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> Settings:
        """What `as_dict` gave. Raises `SurgeryError` for anything else."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or values.keys() - known:
            raise SurgeryError("These settings are of another version.")
        try:
            return cls(**values)
        except TypeError as error:
            raise SurgeryError("These settings are of another version.") from error

    def same_run(self, other: Settings) -> bool:
        """Would both give the same losses? How often a run saves and looks changes none."""
        mine, theirs = self.as_dict(), other.as_dict()
        return all(mine[k] == theirs[k] for k in mine if k not in ("save_every", "evaluate_every"))


_OPTIONAL = {"alpha", "steps", "minutes", "save_every", "evaluate_every"}
_WHOLE = {
    "radius",
    "rank",
    "sampled_tokens",
    "steps",
    "batch",
    "window",
    "accumulate",
    "warmup",
    "seed",
    "save_every",
    "evaluate_every",
}

"""The text of the guided lesson: four ways to initialise a model, and three common mistakes.

Each step names its base, plan and prompt, and the number of parameters that the page has to arrive
at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The lesson's untrained model: 12 layers of width 1,024, and untied embeddings of 32,000 tokens.
BARE = (
    "config:bundled,num_hidden_layers=12,hidden_size=1024,intermediate_size=4096,"
    "num_attention_heads=32,num_key_value_heads=8,vocab_size=32000,tie_word_embeddings=false"
)
TRAINED = "bundled"
WHOLE_BARE, SHORT_BARE, LONG_BARE = "0:12", "0:5, 7:12", "0:8, 4:12"
WHOLE, SHORT, LONG = "0:30", "0:13, 17:30", "0:22, 8:30"
PROMPT = "Gravity is"
TOKENS = 48  # generated for each text

# What a step does once its base is open and its plan is set.
Act = Literal["write", "talk", "drawn", "norm", "index", "heal", "save"]


@dataclass(frozen=True)
class Step:
    """One step. `words` are its paragraphs, `notice` says what to look for, and `parameters` is the
    patient's number of parameters. `tab` is the panel that shows it. `fault` marks a mistake, which
    is made on purpose and shown beside the right way."""

    title: str
    short: str
    words: tuple[str, ...]
    notice: str
    base: str
    plan: str
    parameters: int
    act: Act
    button: str
    tab: str = "Talk"
    prompt: str = PROMPT
    fault: bool = False


STEPS: tuple[Step, ...] = (
    Step(
        "First way: random weights",
        "Random weights",
        (
            "A model consists of a config (how many layers, how wide) and weights. With a config "
            "alone, the weights are drawn at random. This model has 12 layers of width 1,024 and a "
            "vocabulary of 32,000 tokens (pieces of words).",
            "It uses the first 32,000 of SmolLM2's 49,152 tokens. A prompt that needs one of the "
            "others is refused with a message.",
        ),
        "The output is noise, and the same noise on both sides: the model has learned nothing "
        "yet, and nothing was cut. Everything it will know has to be trained into it.",
        BARE,
        WHOLE_BARE,
        248_013_824,
        "talk",
        "Create it and generate text",
    ),
    Step(
        "Mistake: the truncated normal that isn't",
        "Mistake: truncated normal",
        (
            "A published notebook claims that initial weights come from a truncated normal "
            "distribution: values beyond two standard deviations (σ = 0.02) are set to zero. Here "
            "the weights of all layers are counted, and the claim is applied to the same counts. "
            "(Norms are left out: they aren't drawn at random but start at 1.)",
        ),
        "The Weights panel shows the MLP's “up” matrices. The histogram has its tails and follows "
        "the dashed normal curve: about one weight in 22 is beyond 2σ, and there is no spike at "
        "zero.",
        BARE,
        WHOLE_BARE,
        248_013_824,
        "drawn",
        "Count the weights",
        tab="Weights",
        fault=True,
    ),
    Step(
        "Second way: existing weights",
        "Existing weights",
        (
            "The same kind of model with trained weights. SmolLM2-135M-Instruct has 30 layers, "
            "which are narrower, and about half the parameters of the random model. Start from "
            "trained weights like these whenever they exist.",
        ),
        "Now the output is language. Base and patient agree word for word, because the patient "
        "runs the base's own layers in the base's order.",
        TRAINED,
        WHOLE,
        134_515_008,
        "talk",
        "Open it and generate text",
    ),
    Step(
        "Third way: shorter (depth down-scaling)",
        "Shorter: the numbers",
        (
            "Drop layers from the middle and keep both ends, whose jobs no other layer can take "
            "over: the first layers turn tokens into meaning, and the last turn meaning into "
            "tokens. 0:5, 7:12 runs layers 0 to 4 and 7 to 11: a range excludes its end.",
        ),
        "Layers 5 and 6 are gone from the strip. Each had 15,206,400 parameters; the embedding and "
        "the output head keep their size.",
        BARE,
        SHORT_BARE,
        217_601_024,
        "write",
        "Set the plan",
    ),
    Step(
        "Third way: what a shorter model writes",
        "Shorter: the text",
        (
            "The same kind of cut on trained weights, so that you can read its effect: four of 30 "
            "layers are dropped from the middle. Nothing is trained after the cut.",
        ),
        "The beginning still makes sense, then the patient repeats itself. It also generates "
        "faster: compare the tokens per second above the texts.",
        TRAINED,
        SHORT,
        120_354_624,
        "talk",
        "Cut it and generate text",
    ),
    Step(
        "Fourth way: longer (depth up-scaling)",
        "Longer: the numbers",
        (
            "Take two overlapping copies of the layers: the first part of one, then the last part "
            "of the other. 0:8, 4:12 runs layers 0 to 7, then 4 to 11. SOLAR's 48 layers were made "
            "from 32 in this way: 0:24, 8:32.",
        ),
        "Layers 4 to 7 are in the patient twice; their second copies are striped. Four more layers "
        "add 60,825,600 parameters.",
        BARE,
        LONG_BARE,
        308_839_424,
        "write",
        "Set the plan",
    ),
    Step(
        "Fourth way: what a longer model writes",
        "Longer: the text",
        (
            "The same on trained weights: 44 layers from 30. The second copy gets inputs that it "
            "never saw in training, so quality suffers at the seam between the copies.",
        ),
        "The model is larger, slower and worse, which is what further training has to repair. It "
        "still starts far ahead of random weights.",
        TRAINED,
        LONG,
        184_076_352,
        "talk",
        "Stack it and generate text",
    ),
    Step(
        "Mistake: the forgotten norm",
        "Mistake: final norm",
        (
            "A published notebook copies the layers, the embedding and the head into the longer "
            "model, but forgets the final norm: the 576 weights that scale the last hidden state "
            "before the head. They keep their initial value 1. No error is raised.",
        ),
        "The same layers and the same prompt give another text: 576 of 184 million parameters are "
        "enough.",
        TRAINED,
        LONG,
        184_076_352,
        "norm",
        "Leave it out, and compare",
        fault=True,
    ),
    Step(
        "Mistake: layers that keep their old index",
        "Mistake: layer_idx",
        (
            "Every layer has an index, layer_idx, and stores its keys and values in the cache slot "
            "of that index. After layers are copied, the indices have to be renumbered. Otherwise "
            "two layers of the longer model share a cache slot, and the shorter model looks for "
            "slots that don't exist.",
        ),
        "The longer model raises no error and is silently wrong. The shorter one stops with an "
        "error. Without the cache, as in training, both are right, so the mistake is noticed late.",
        TRAINED,
        LONG,
        184_076_352,
        "index",
        "Keep the old indices, and compare",
        fault=True,
    ),
    Step(
        "Healing: why, and what it costs",
        "Healing",
        (
            "Perplexity is how many equally likely tokens a model is choosing between, on average: "
            "lower is better. Both operations raise it. Healing continues training from the "
            "operated weights until the layers work together again.",
            "Training costs about 6 FLOPs for each parameter and each token.",
        ),
        "Which operation does more damage, and is the difference larger than the intervals? A "
        "longer model also costs more on every run. Published runs report that up-scaling needs up "
        "to 70 % less data than training from scratch.",
        TRAINED,
        SHORT,
        120_354_624,
        "heal",
        "Measure the damage",
        tab="Heal",
    ),
    Step(
        "Save it",
        "Save",
        (
            "The patient becomes an ordinary checkpoint: layers renumbered, final norm and "
            "tokenizer included, and every tensor checked against the plan before the files "
            "appear. transformers and the tools around it load it like any other model.",
        ),
        "“Load it anywhere” shows the code that loads it. The recipe saved beside the weights "
        "records how it was made.",
        TRAINED,
        SHORT,
        120_354_624,
        "save",
        "Save the checkpoint",
        tab="Save",
    ),
)

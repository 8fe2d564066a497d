"""The guided lesson: four ways to initialise a model, and three mistakes that are often made.

Knows what is said and which base, plan and prompt go with it. Numbers that are expected are written
down here so that the page can hold what it computed against them; nothing here computes or shows
anything. The figures for the lesson's steps are made next door.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The course's model: 12 layers of width 1,024 and an untied vocabulary of 32,000. It needs no file.
BARE = (
    "config:bundled,num_hidden_layers=12,hidden_size=1024,intermediate_size=4096,"
    "num_attention_heads=32,num_key_value_heads=8,vocab_size=32000,tie_word_embeddings=false"
)
TRAINED = "bundled"
WHOLE_BARE, SHORT_BARE, LONG_BARE = "0:12", "0:5, 7:12", "0:8, 4:12"
WHOLE, SHORT, LONG = "0:30", "0:13, 17:30", "0:22, 8:30"
PROMPT = "Gravity is"
TOKENS = 48  # that each text goes on for

# What a step does once its base is open and its plan written.
Act = Literal["write", "talk", "drawn", "norm", "index", "heal", "save"]


@dataclass(frozen=True)
class Step:
    """One step. `words` are its paragraphs, `notice` says what to look for, `parameters` is what
    the patient has to count. `tab` is the panel of the page that shows it; `fault` marks a mistake
    that is really made, beside the right way."""

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
            "A model is a description (the config: how many layers, how wide) and numbers (the "
            "weights). From the description alone, the numbers are drawn at random. This one has "
            "12 layers of width 1,024 and a vocabulary of 32,000 tokens (pieces of words).",
            "It reads and writes with the first 32,000 of SmolLM2's 49,152 tokens. A prompt that "
            "needs one of the others is refused, and the page says so.",
        ),
        "The text is noise, and the same noise on both sides: nothing has been learnt yet, and "
        "nothing was cut. Whatever this model shall know has to be trained into it.",
        BARE,
        WHOLE_BARE,
        248_013_824,
        "talk",
        "Make it and let it speak",
    ),
    Step(
        "Mistake: the truncated normal that isn't",
        "Mistake: truncated normal",
        (
            "A notebook about this says: starting weights come from a truncated normal "
            "distribution, so whatever lies beyond two standard deviations (σ = 0.02) is set to "
            "zero. Here the weights of all layers are counted, and the claim is carried out on the "
            "same counts. (Norms are left out: they are not drawn, they begin at 1.)",
        ),
        "Under Weights, which shows the MLP's “up” matrices, the bell keeps its tails: it lies on "
        "the dashed normal curve. About one weight in 22 is beyond 2σ, and no heap stands at zero.",
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
            "The same kind of model with other numbers: these come from training. "
            "SmolLM2-135M-Instruct has 30 layers, narrower ones, and half the parameters of the "
            "random model. Start from weights like these whenever somebody has trained them.",
        ),
        "Now it is language. Base and patient agree word for word, since the patient runs the "
        "base's own layers in the base's order.",
        TRAINED,
        WHOLE,
        134_515_008,
        "talk",
        "Open it and let it speak",
    ),
    Step(
        "Third way: shorter (depth down-scaling)",
        "Shorter: the numbers",
        (
            "Leave layers out of the middle and keep both ends, which do what no other layer can: "
            "the first ones turn tokens into meaning, the last ones turn meaning into tokens. "
            "0:5, 7:12 runs layers 0 to 4 and 7 to 11: a range leaves its end out.",
        ),
        "Layers 5 and 6 are gone in the strip. Each had 15,206,400 parameters; the vocabulary, at "
        "both ends, stays as large as it was.",
        BARE,
        SHORT_BARE,
        217_601_024,
        "write",
        "Write the plan",
    ),
    Step(
        "Third way: hear a shorter model",
        "Shorter: the text",
        (
            "The same cut on trained weights, so that it can be heard: four of 30 layers are left "
            "out of the middle. Nothing is trained after the cut.",
        ),
        "The beginning still makes sense, then the patient goes round in circles. It also writes "
        "faster: compare the tokens per second above the texts.",
        TRAINED,
        SHORT,
        120_354_624,
        "talk",
        "Cut it and let it speak",
    ),
    Step(
        "Fourth way: longer (depth up-scaling)",
        "Longer: the numbers",
        (
            "Lay two copies over one another and let them overlap: the bottom of one, then the top "
            "of the other. 0:8, 4:12 runs layers 0 to 7, then 4 to 11. SOLAR made a model of 48 "
            "layers from one of 32 this way: 0:24, 8:32.",
        ),
        "Layers 4 to 7 stand in the patient twice; the striped tiles are the second time. Four "
        "layers more are 60,825,600 parameters more.",
        BARE,
        LONG_BARE,
        308_839_424,
        "write",
        "Write the plan",
    ),
    Step(
        "Fourth way: hear a longer model",
        "Longer: the text",
        (
            "The same on trained weights: 44 layers made of 30. The second copy sees inputs that "
            "it never saw in training, so the model stumbles at the seam between the copies.",
        ),
        "A model that is larger, slower and worse: that is what training has to mend. It begins "
        "much nearer to the goal than random weights do.",
        TRAINED,
        LONG,
        184_076_352,
        "talk",
        "Stack it and let it speak",
    ),
    Step(
        "Mistake: the forgotten norm",
        "Mistake: final norm",
        (
            "A notebook copies the layers, the embedding and the head into the longer model, and "
            "forgets the norm behind the last layer: the 576 numbers by which the output is scaled "
            "before words are chosen. They stay at 1, as in a fresh model. Nothing complains.",
        ),
        "The same layers, the same prompt, another text: 576 of 184 million numbers are enough.",
        TRAINED,
        LONG,
        184_076_352,
        "norm",
        "Forget it, and compare",
        fault=True,
    ),
    Step(
        "Mistake: layers that keep their old number",
        "Mistake: layer_idx",
        (
            "Every layer carries its number, layer_idx, and keeps what it remembers of the text "
            "(the KV cache) in the drawer of that number. After a copy the numbers have to be "
            "written anew. Without that, two layers of the longer model share a drawer, and the "
            "shorter model looks for drawers that are not there.",
        ),
        "The longer model says nothing and is silently wrong. The shorter one stops with an error. "
        "Without the cache, as in training, both are right: so the mistake is found late.",
        TRAINED,
        LONG,
        184_076_352,
        "index",
        "Keep the old numbers, and compare",
        fault=True,
    ),
    Step(
        "Healing: why, and what it costs",
        "Healing",
        (
            "Perplexity says between how many words a model hesitates, on average: lower is "
            "better. Both operations raise it. Healing is some more training, from the operated "
            "weights on, until the layers fit together again.",
            "The cost follows from 6 operations for each parameter and each token.",
        ),
        "Which of the two hurts more, and is the difference larger than the intervals? A longer "
        "model costs more to run for ever. Published runs say that up-scaling needs up to 70 % "
        "less data than training from nothing.",
        TRAINED,
        SHORT,
        120_354_624,
        "heal",
        "Measure the harm",
        tab="Heal",
    ),
    Step(
        "Save it",
        "Save",
        (
            "The patient becomes an ordinary checkpoint: every layer numbered anew, final norm and "
            "tokenizer included, every tensor compared with the plan before the files appear. "
            "transformers and every tool around it load it as they load any model.",
        ),
        "“Load it anywhere” shows the lines that open it. The recipe beside the weights says how "
        "it was made.",
        TRAINED,
        SHORT,
        120_354_624,
        "save",
        "Save the checkpoint",
        tab="Save",
    ),
)

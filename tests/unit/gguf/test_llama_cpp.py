"""What llama.cpp's own program prints, and what of it the model wrote."""

import os
from pathlib import Path

import pytest

from surgery import SaveError
from surgery.gguf.llama_cpp import LlamaCpp, Prompt, generated
from surgery.progress import silent


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (" a star. [end of text]\n\n\n", " a star."),
        (" in the village,\n\n", " in the village,"),
        ("def f():\n\n\n\n", "def f():\n\n"),  # the model's own newlines stay
        (" says [end of text] here\n\n", " says [end of text] here"),
        ("", ""),
    ],
)
def test_what_the_program_adds_is_taken_away(printed, text):
    assert generated(printed) == text


def test_a_program_is_run_once_for_each_prompt(tmp_path: Path):
    """One that prints its prompt back, as llama-completion would end a text."""
    program = tmp_path / "llama-completion"
    program.write_text('#!/bin/sh\nprintf "%s [end of text]\\n\\n\\n" "$4"\n')
    os.chmod(program, 0o755)
    prompts = [Prompt("one", (1,)), Prompt("two", (2,))]
    made = LlamaCpp(program, False).continue_all(tmp_path / "a.gguf", prompts, 4, silent)
    assert [(one.ids, one.text) for one in made] == [(None, "one"), (None, "two")]


@pytest.mark.parametrize(
    "answer", [None, "", "{", "[]", '{"texts": [1]}', '{"texts": []}', '{"texts": [["a"]]}']
)
def test_an_answer_that_is_none(tmp_path: Path, answer):
    python, printed = tmp_path / "python", "" if answer is None else f"layer-surgery:{answer}"
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' '{printed}'\n")
    os.chmod(python, 0o755)
    with pytest.raises(SaveError, match="printed no continuation"):
        LlamaCpp(python, True).continue_all(tmp_path / "a.gguf", [Prompt("one", (1,))], 4, silent)

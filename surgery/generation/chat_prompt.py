"""Put a prompt into a chat template, as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase


def processors_template(folder: Path) -> str | None:
    """The chat template that older vision-language models have in a file of their processor, which
    their tokenizer doesn't read."""
    try:
        template = json.loads((folder / "chat_template.json").read_text("utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return template if isinstance(template, str) else None


def in_chat_template(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The prompt as a user's message, followed by the start of the answer.

    Most templates take a message as a string. Those of some vision-language models take only a list
    of parts: they leave a string out without a word, or fail. Raises whatever the template raises:
    it is untrusted, and rendered in a sandbox that reaches nothing but the message.
    """
    outcomes: list[str | Exception] = []
    contents: tuple[Any, ...] = (prompt, [{"type": "text", "text": prompt}])
    for content in contents:
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:
            outcomes.append(error)
            continue
        if prompt.strip() in str(text):
            return str(text)
        outcomes.append(str(text))
    # A template that changes the prompt's words, or has none of them, is taken at its word.
    if isinstance(first := outcomes[0], Exception):
        raise first
    return first

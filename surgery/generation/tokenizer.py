"""Load a model's tokenizer."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from surgery.errors import one_line
from surgery.sources.companions import companions

from .chat_prompt import processors_template


def load_tokenizer(folder: Path | None, name: str) -> tuple[PreTrainedTokenizerBase | None, str]:
    """The tokenizer in a folder, and an empty string; or None and the reason. `name` is what
    messages call the model."""
    none = f"{name} has no tokenizer, so it can't read or write text."
    if folder is None:
        return None, none
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if not tokenizer.chat_template and (template := processors_template(folder)):
            tokenizer.chat_template = template
        # Some damage only shows when the tokenizer is used.
        tokenizer.decode([int(i) for i in tokenizer("a b")["input_ids"]])
    except Exception as error:  # transformers reports a missing tokenizer in many ways
        if not any(_is_vocabulary(file) for file in companions(folder, needed_only=True)):
            return None, none
        message = one_line(error, 200) or type(error).__name__
        return None, (
            f"The tokenizer of {name} can't be used, so text generation is unavailable: "
            f"“{message}”. Check the tokenizer files."
        )
    if (folder / "tokenizer.json").is_file():
        return tokenizer, ""
    # For some families transformers creates an empty tokenizer if there are no files.
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    return (tokenizer, "") if len(tokenizer.get_vocab().keys() - added) > 1 else (None, none)


def _is_vocabulary(file: str) -> bool:
    """Whether this file holds a vocabulary, rather than settings."""
    return not file.endswith(("_config.json", ".jinja", "chat_template.json"))

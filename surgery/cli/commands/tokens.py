"""`tokens`: which layers mattered for each token of an answer."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    UnionOption,
    WithOption,
    check_no_plan,
    open_base,
    open_operation,
    out,
    print_disk_reads,
    print_json,
    progress_bar,
)
from ..prompt import as_utf8
from ..reports.tokens import tokens_json, tokens_report


def tokens(
    base: BaseArgument,
    plan: Annotated[
        str,
        typer.Argument(
            metavar="[PLAN]", help="A plan, as in other commands; without one, the base itself."
        ),
    ] = "",
    *,
    prompt: Annotated[str, typer.Option(help="The text that the answer follows.")],
    answer: Annotated[
        str | None,
        typer.Option(
            help="The answer to measure. By default the one that the model generates, taking the "
            "most likely token each time."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Maximum number of tokens to generate.")] = 32,
    chat: Annotated[
        bool, typer.Option("--chat", help="Apply the chat template to the prompt.")
    ] = False,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure which layers mattered for each token of an answer.

    Each layer is dropped alone: the increase of a token's −ln p is what that layer is worth to it.
    """
    from surgery.analysis import continuation, token_importance
    from surgery.errors import SurgeryError
    from surgery.plan import Plan

    if plan:
        _, written, (made, flat) = open_operation(
            base, plan, with_, from_disk, union=union_vocabulary
        )
    else:
        check_no_plan(with_, union_vocabulary)
        made = open_base(base, from_disk)
        written = flat = Plan.whole(made.depth)
    prompt = as_utf8(prompt)
    with progress_bar() as progress:
        made.load(progress)
        if answer is not None:
            if chat:
                raise SurgeryError("Use --answer without --chat: it continues the prompt as it is.")
            ids = continuation(made, prompt, as_utf8(answer))
        else:
            stream = made.operate(flat).stream(
                prompt, max_new_tokens=max_new_tokens, greedy=True, chat=chat
            )
            for done, _ in enumerate(stream, start=1):
                progress("Generating the answer", done, max_new_tokens)
            ids = list(stream.prompt_ids), stream.ids
        print_disk_reads(made, flat, passes=5)  # three show how layers are run, once
        result = token_importance(made, flat, *ids, progress)
    if as_json:
        print_json(tokens_json(made, written, prompt, result))
        return
    out.print(f"{escape(made.name)}  {escape(str(written))}  ({written.describe()})\n")
    for part in tokens_report(result):
        out.print(part)

"""`compare`: what a plan did to a base, token by token."""

from __future__ import annotations

from rich.markup import escape

from surgery.progress import Progress

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    PlanArgument,
    UnionOption,
    WithOption,
    open_operation,
    out,
    print_disk_reads,
    print_json,
    progress_bar,
)
from ..sample import (
    DatasetOption,
    KindOption,
    LimitOption,
    PrecisionOption,
    TextOption,
    WindowOption,
    read_text,
    sized_sample,
)


def compare(
    base: BaseArgument,
    plan: PlanArgument,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = None,
    precision: PrecisionOption = None,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure what a plan did to a base, token by token.

    Perplexity, divergence, and the tokens whose loss increased most. A short measurement shows how
    many tokens are needed to know the cost precisely.
    """
    from surgery.analysis import LossIncrease, Sample, measured_score
    from surgery.analysis import compare as measure
    from surgery.analysis.json_values import compare_json
    from surgery.plan import Plan

    from ..reports.compare import compare_tables

    opened, written, (made, flat) = open_operation(
        base, plan, with_, from_disk, union=union_vocabulary
    )
    with progress_bar() as progress:
        made.load(progress)
        words = read_text(text, kind, dataset, window, limit, progress, "judge", precision)

        def cost(short: Sample, progress: Progress) -> list[LossIncrease]:
            whole = measured_score(opened, Plan.whole(opened.depth), short, progress)
            return [LossIncrease.of(measured_score(made, flat, short, progress), whole)]

        sample, name = sized_sample(opened, words, precision, cost, progress)
        against = None if made is opened else opened
        print_disk_reads(made, flat, passes=5)  # three show how layers are run, once
        result = measure(made, flat, sample, progress, against=against)
    if as_json:
        print_json(compare_json(opened, written, name, result))
        return
    out.print(f"{escape(opened.name)}  {escape(str(written))}  ({written.describe()})")
    out.print(f"{escape(name)}\n")
    for part in compare_tables(result):
        out.print(part)

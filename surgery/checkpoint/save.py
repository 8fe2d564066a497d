"""Save a model and a plan as a folder that `AutoModelForCausalLM.from_pretrained` loads.

All files appear together or not at all. Bytes are copied from the model's files by tensor name, so
what the plan doesn't change is identical to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedConfig

from surgery.architecture import rewrite, skeleton
from surgery.architecture.apply.initialise import check_supported
from surgery.architecture.config.quantization import SIDE_FILES, renumber
from surgery.architecture.config.spelling import with_older_spellings, with_older_tokenizer_class
from surgery.architecture.inspect.quantized import module_names
from surgery.errors import Refused
from surgery.io.atomic import atomic_folder
from surgery.io.copy import opener_of, reading
from surgery.io.output_target import check_no_cache, check_target, resolve
from surgery.io.sizes import parse_size
from surgery.plan import Plan
from surgery.preview import preview_of
from surgery.progress import Meter, Progress
from surgery.recipes.export import of_base
from surgery.sources import Tensor
from surgery.sources.companions import companions, is_needed
from surgery.sources.folder import read_json

from .card import card
from .resize_record import Resizing, write_resized
from .tensors import DTYPES, check_dtype, tensor_specs
from .trained import TrainedTensors
from .verify import check_quantized, verify
from .writer import arrange, write_shards

if TYPE_CHECKING:
    from surgery.model import Model


def save(
    base: Model,
    plan: Plan,
    out: Path,
    dtype: str | None,
    shard_size: str | int,
    overwrite: bool,
    progress: Progress,
    verified: bool = True,
    healed: TrainedTensors | None = None,
) -> Path:
    """Write `out`: config, safetensors, tokenizer, generation config, recipe, model card.

    It is written beside the target and renamed when whole. `dtype` converts the floating-point
    tensors; `shard_size` is the most that one file holds ("5GB", decimal units). `progress` hears
    of bytes and may raise to cancel. `verified` compares what was written with what the plan says
    before it takes its name. `healed` has the tensors that a repair or training changed.
    Raises `Refused` or `SaveError`, and then `out` is as before.
    """
    limit = parse_size(shard_size)
    out = resolve(out)
    check_supported(base.anatomy, plan)
    skeleton(base.anatomy, plan.sources)  # refuses before anything is written
    base.stored_bytes  # noqa: B018  checks that config and stored tensors belong together
    check_no_cache(out)
    check_target(out, overwrite, base_files=base.local_files())
    remote = _leaves_out(base, plan)
    if remote:
        folder, stored = base.source.companions_folder(progress), base.source.tensors
        opener = base.source.open_range or opener_of(folder)
        base.check_tied(opener, progress)
    else:
        folder, stored, opener = base.open_stored(progress)
    beside = _companions(base, folder, progress)
    specs = tensor_specs(base, plan, stored, dtype, healed.tensors if healed else None)
    total = sum(spec.size for spec in specs)
    if base.anatomy.quantized:
        check_quantized(base, plan, stored, specs)
    side_files = _side_files(base, plan, folder, stored)
    try:
        recipe = of_base(base, plan, base.recipe_name, dtype)
    except Refused:  # no recipe can say random or averaged layers: the card does
        recipe = None
    with atomic_folder(out, total, overwrite, base_files=base.local_files()) as partial:
        write_shards(
            partial, arrange(specs, limit), opener, Meter(progress, "Writing weights", total)
        )
        base.source.check()
        _write_config(base, plan, partial, dtype, stored, folder)
        for name, path in beside.items():
            with reading(path):
                content = path.read_bytes()
            if name == "tokenizer_config.json":
                content = with_older_tokenizer_class(content)
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        for name, text in side_files.items():
            (partial / name).write_text(text, encoding="utf-8")
        if verified:
            # What came by range requests would have to be fetched a second time to be compared.
            verify(base, partial, specs, None if remote else opener, progress)
            base.source.check()
        if healed is not None:
            healed.write(partial, specs)
        if recipe is not None:
            (partial / "recipe.yaml").write_text(recipe, encoding="utf-8", errors="replace")
        if base.resized:
            write_resized(partial, Resizing(*base.resized, base.union))
        text = card(
            title=out.name,
            base=base.name,
            hub_ids=[one.hub_id for one in base.source.merged or (base.source,) if one.hub_id],
            licence=base.source.licence,
            note=base.note,
            plan=plan,
            has_recipe=recipe is not None,
            old=preview_of(base.original, Plan.whole(base.depth)),
            new=preview_of(base, plan),
            trained=healed,
            option="--union-vocabulary"
            if base.union
            else "--resize-embeddings" * (base.resized is not None),
            auto_class=base.auto_class,
            parts=base.parts,
        )
        (partial / "README.md").write_text(text, encoding="utf-8", errors="replace")
    return out


def saved_bytes(base: Model, plan: Plan, dtype: str | None) -> int:
    """Bytes of the tensors that a save in this dtype writes, from headers and shapes only. Raises
    the same errors as `save` for plans that can't be saved."""
    check_supported(base.anatomy, plan)
    check_dtype(base, dtype)
    if base.source.tensors:
        return sum(spec.size for spec in tensor_specs(base, plan, base.source.tensors, dtype))
    kind = DTYPES[dtype][1] if dtype else base.torch_dtype
    return preview_of(base, plan).parameters * kind.itemsize


def _companions(base: Model, folder: Path, progress: Progress) -> dict[str, Path]:
    """The files beside the base's weights to copy: {name in the checkpoint: path}."""
    with reading(folder):
        result = {name: folder / name for name in companions(folder)}
        home = base.source.tokenizer_folder(progress)
        if home and home != folder:
            # A bare config may be in any folder, among unrelated files.
            needed = {name: home / name for name in companions(home, needed_only=True)}
            if base.union:  # whose tokenizer replaces the first base's
                return {name: path for name, path in result.items() if not is_needed(name)} | needed
            result = needed | result
    return result


def _leaves_out(base: Model, plan: Plan) -> bool:
    """Whether the plan leaves out layers of a model that isn't on this machine. Then the rest is
    fetched by range requests; otherwise the whole model is, and stays in the cache."""
    return bool(base.source.open_range and base.source.tensors and plan.dropped)


def _write_config(
    base: Model,
    plan: Plan,
    folder: Path,
    dtype: str | None,
    stored: Mapping[str, Tensor],
    home: Path,
) -> None:
    """Write config.json. `home` has the base's own, whose older keys are kept."""
    modules = module_names(base.anatomy, stored) if base.anatomy.quantized else None
    config = rewrite(base.anatomy.whole, plan.sources, base.depth, modules)
    if not config.architectures or config.is_encoder_decoder:
        config.architectures = [type(base.anatomy.model).__name__]
    config.dtype = DTYPES[dtype][1] if dtype else base.torch_dtype
    text = config.get_text_config(decoder=True)
    # Some classes read only the text config. A conversion applies to all nested configs.
    for part in _parts(config) if dtype else [text]:
        part.dtype = config.dtype
    # It refers to remote code, which is neither copied nor used for the base.
    vars(config).pop("auto_map", None)
    vars(config).pop("transformers_weights", None)  # the base's file may be another than this one's
    config.save_pretrained(folder)
    path, own = folder / "config.json", home / "config.json"
    fields = with_older_spellings(
        read_json(path), read_json(own) if own.is_file() else {}, type(config)
    )
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _parts(config: PreTrainedConfig) -> Iterator[PreTrainedConfig]:
    """The config and all configs nested in it."""
    yield config
    for key in config.sub_configs:
        if isinstance(part := getattr(config, key, None), PreTrainedConfig):
            yield from _parts(part)


def _side_files(
    base: Model, plan: Plan, folder: Path, stored: Mapping[str, Tensor]
) -> dict[str, str]:
    """{file: its renumbered text} for files beside config.json that name quantized modules."""
    texts = {}
    for name in SIDE_FILES:
        if (folder / name).is_file():
            modules = module_names(base.anatomy, stored)
            content = renumber(read_json(folder / name), modules, plan.sources)
            texts[name] = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return texts

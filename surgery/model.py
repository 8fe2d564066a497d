"""A model as found: its source, anatomy, tokenizer and weights. Knows no plans.

Opening one reads its config and tensor headers; weights are loaded on demand, once per process.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from surgery.architecture.inspect.layer_list import embedding_table

from .architecture import Anatomy
from .architecture.inspect.counts import count, layouts
from .architecture.inspect.loader import auto_class, is_multimodal
from .architecture.inspect.names import (
    check_stored,
    disk_layers,
    disk_tables,
    loader_names,
    old_buffers,
    other_layers,
    stored_twice,
)
from .architecture.inspect.quantized import check_declared
from .compute.choice import compute_dtype_of
from .compute.contexts import dtype_name, float32_gain
from .counts import Counts, Layouts, StoredBytes
from .errors import BaseError, SurgeryError
from .generation.image_prompt import load_processor
from .generation.tokenizer import load_tokenizer
from .io.copy import equal, opener_of
from .io.output_target import explained
from .io.ownership import temporary
from .lazy_property import lazy_property
from .loading import initialise, load
from .memory.devices import HEADROOM, accelerators, fitting, main_memory
from .memory.shared_weights import share
from .progress import Meter, Progress, Turn, current, silent
from .sources import Source, Tensor, open_source
from .sources.mapped_weights import DTYPES, MappedWeights
from .sources.source import Opener

_COMPARING = "Comparing embeddings and head"
_FROM_DISK = " Or add --from-disk: weights are then read whenever they are used, which is slow."


class Model:
    """A model as found. `Base` adds what can be done with a plan."""

    #: Where its embeddings were resized to a tokenizer: how many it had, and has now.
    resized: tuple[int, int] | None = None
    #: Whether it is a stack that has the added tokens of all of its bases.
    union = False

    def __init__(self, source: Source, from_disk: bool = False) -> None:
        self.source, self._from_disk = source, from_disk
        #: Whether its weights are larger than memory, and so read whenever they are used.
        self.reads_from_disk = False
        self._model: PreTrainedModel | None = None
        self._loading = Turn("Waiting for the weights")
        self._written: Path | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.depth} layers)"

    # ------------------------------------------------------------------ what it is

    @property
    def name(self) -> str:
        """The name to display."""
        return self.source.name

    @property
    def kind(self) -> str:
        """Its kind of source: bundled, hub, folder, gguf, config or adapter."""
        return self.source.kind

    @property
    def identity(self) -> str:
        """Equal for equal files; it changes when they do."""
        return self.source.identity

    @property
    def note(self) -> str:
        """A remark on where the weights come from; may be empty."""
        return self.source.note

    @property
    def licence(self) -> str | None:
        """Its licence, where that is stated."""
        return self.source.licence

    @property
    def revision(self) -> str | None:
        """The commit on the Hub, if it is from there."""
        return self.source.revision

    @property
    def pinned_id(self) -> str | None:
        """Its Hub id, with the revision if it is known; BASE+ADAPTER if an adapter is merged into
        it and both are from the Hub."""
        ids = [source.pinned_id for source in self.source.merged or (self.source,)]
        return None if None in ids else "+".join(map(str, ids))

    @property
    def recipe_name(self) -> str:
        """Its name in recipes: its Hub id, else its name. Random weights are marked with
        “config:”."""
        if self.source.merged:
            return "+".join(source.pinned_id or source.name for source in self.source.merged)
        return self.pinned_id or (f"config:{self.name}" if self.kind == "config" else self.name)

    def local_files(self) -> Iterable[Path]:
        """Its files on this machine, which no output may replace."""
        return self.source.local_files()

    @property
    def original(self) -> Model:
        """The model as it was before its embeddings were resized."""
        return self

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """For a stack of several bases, each one's name and its first layer; otherwise empty."""
        return ()

    @lazy_property
    def anatomy(self) -> Anatomy:
        """Its layers, on the meta device. Raises `Refused` if transformers can't build it."""
        return Anatomy.of(self.source.config)

    @property
    def depth(self) -> int:
        """The number of decoder layers."""
        return self.anatomy.stack.depth

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each layer if layers differ (“sliding”, “full”); otherwise empty strings."""
        return self.anatomy.kinds

    @property
    def architecture(self) -> str:
        """The family's name, such as “Llama” or “Qwen3Moe”."""
        name = type(self.anatomy.model).__name__
        for ending in ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"):
            name = name.removesuffix(ending)
        return name

    @property
    def auto_class(self) -> str:
        """The Auto class of transformers that loads the whole model, and checkpoints saved from
        it."""
        return auto_class(self.anatomy.whole).__name__

    @lazy_property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of its weights in memory: the one that most of them are stored in."""
        sizes: dict[str, int] = {}
        for tensor in self.source.tensors.values():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.end - tensor.start
        stored = DTYPES.get(max(sizes, key=sizes.__getitem__)) if sizes else None
        if stored is not None:
            return stored
        declared = self.source.config.dtype
        if isinstance(declared, torch.dtype) and declared in DTYPES.values():
            return declared
        return torch.float32

    @property
    def dtype(self) -> str:
        """The name of that dtype, such as “bfloat16”."""
        return dtype_name(self.torch_dtype)

    @property
    def is_quantized(self) -> bool:
        """Whether transformers loads its weights quantized."""
        return getattr(self.source.config, "quantization_config", None) is not None

    @property
    def compute_dtype(self) -> str:
        """The name of the dtype that prompts, scores and training are computed in
        (`set_compute_dtype`); single tokens are decoded as stored. May measure this machine."""
        on_cpu = self.device == "cpu"
        name = compute_dtype_of(self.dtype, not self.is_quantized, on_cpu, float32_gain)
        assert name  # the gain is measured where it decides
        return name

    # ------------------------------------------------------------------ text

    @lazy_property
    def _tokenizer(self) -> tuple[PreTrainedTokenizerBase | None, str]:
        """(tokenizer, "") or (None, reason)."""
        return load_tokenizer(self.source.tokenizer_folder(current()), self.name)

    @property
    def has_tokenizer(self) -> bool:
        """Whether it has a usable tokenizer. Only text needs one."""
        return self._tokenizer[0] is not None

    @property
    def has_chat_template(self) -> bool:
        """Whether its tokenizer has a chat template."""
        tokenizer = self._tokenizer[0]
        return tokenizer is not None and bool(tokenizer.chat_template)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer. Raises `BaseError` if there is none, or none that can be read."""
        tokenizer, why = self._tokenizer
        if tokenizer is None:
            raise BaseError(why)
        return tokenizer

    @lazy_property
    def _processor(self) -> tuple[ProcessorMixin | None, str]:
        """(processor, "") or (None, reason)."""
        none = f"{self.name} takes no images: its prompts are text."
        if not is_multimodal(self.anatomy.model):
            return None, none
        if (folder := self.source.tokenizer_folder(current())) is None:
            return None, none
        return load_processor(folder, self.name)

    @property
    def takes_images(self) -> bool:
        """Whether an image can be given with a prompt: it has a usable processor of images."""
        return self._processor[0] is not None

    @property
    def why_no_images(self) -> str:
        """Why a vision-language model takes no images here; empty if it does, and for others."""
        return self._processor[1] if is_multimodal(self.anatomy.model) else ""

    @property
    def processor(self) -> ProcessorMixin:
        """Its processor of images and text. Raises `BaseError` if it takes no images."""
        processor, why = self._processor
        if processor is None:
            raise BaseError(why)
        return processor

    @property
    def context(self) -> int | None:
        """The maximum number of tokens according to the config; None if there is no limit."""
        text = self.anatomy.config.get_text_config(decoder=True)
        length = getattr(text, "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    @property
    def known_tokens(self) -> int:
        """The number of rows of the embedding; the tokenizer may have fewer or more tokens."""
        return embedding_table(self.anatomy.model).shape[0]

    def check_tokens(self, ids: Iterable[int]) -> None:
        """Raise `SurgeryError` if the model has no embedding for one of these tokens."""
        rows = self.known_tokens
        unknown = next((i for i in ids if not 0 <= i < rows), None)
        if unknown is not None:
            text = self.tokenizer.decode([unknown]) if self.has_tokenizer else ""
            raise SurgeryError(
                f"“{text}” is token {unknown:,} of the tokenizer, but this model has embeddings "
                f"only for the first {rows:,}. Use a different text."
            )

    # ------------------------------------------------------------------ weights

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._model is not None

    @property
    def device(self) -> str:
        """The device that holds the weights, or will: the first one, if there will be several."""
        if self._model is not None:
            return str(self._model.device)
        gpus = accelerators()
        if self.kind == "config":  # random weights go to one
            gpus = gpus[:1]
        return next(iter(fitting(self.memory_bytes, gpus)), "cpu") if gpus else "cpu"

    def load(self, progress: Progress = silent) -> PreTrainedModel:
        """Return the model with its weights: loaded once per process, shared and read-only.
        Raises `BaseError` if the weights can't be loaded or don't fit into memory."""
        if self._model is not None:
            return self._model
        with self._loading.taken(progress) as report:
            if self._model is None:
                size = self.memory_bytes
                if self.kind == "config":
                    model = initialise(
                        self.source.config, self.torch_dtype, size, seed=0, progress=report
                    )
                else:
                    self.stored_bytes  # noqa: B018  a config that lies is found out here
                    folder = self.source.files_folder(report)
                    self.source.check()  # before anything is read where it was
                    self.check_tied(opener_of(folder))
                    buffers = old_buffers(self.anatomy, self.source.tensors)
                    fits = size <= main_memory().free * HEADROOM
                    model = load(
                        self.anatomy,
                        folder,
                        self.torch_dtype,
                        size,
                        self._copied_bytes if self._from_disk else size,
                        report,
                        buffers,
                        "" if self._from_disk or not self.mapped.tensors else _FROM_DISK,
                    )
                    self.source.check()
                    self.reads_from_disk = not fits and model.device.type == "cpu"
                self._model = share(model)
            return self._model

    def unload(self) -> None:
        """Forget the weights, which are loaded again when they are needed. Patients that there are
        keep them in memory."""
        with self._loading.taken(silent):
            self._model, self.reads_from_disk = None, False

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that its weights take once loaded."""
        if self.reads_from_disk:
            return self._copied_bytes
        return self.counts.total * self.torch_dtype.itemsize

    @property
    def _copied_bytes(self) -> int:
        """Bytes of its weights that can't be used as they lie in their files."""
        return (self.counts.total - self.mapped.values) * self.torch_dtype.itemsize

    @lazy_property
    def mapped(self) -> MappedWeights:
        """Its stored weights that can be used as they lie in their files."""
        return MappedWeights(self.anatomy, self.source.tensors, self.torch_dtype)

    @property
    def model(self) -> PreTrainedModel:
        """The loaded model; reports to the current thread's progress function."""
        return self.load(current())

    def stored(self, progress: Progress = silent) -> tuple[Path, Mapping[str, Tensor]]:
        """A local folder with the base's files, and the tensors in its safetensors.

        A GGUF is converted once; random weights are written to a temporary folder.
        """
        if self.kind == "config":
            model = self.load(progress)
            with self._loading.taken(progress) as report:
                if self._written is None:
                    report("Writing the random weights to a temporary folder", 0, 0)
                    place = Path(tempfile.gettempdir(), "layer-surgery")
                    with explained(place), ExitStack() as undo:
                        folder, remove = temporary("layer-surgery-")
                        undo.callback(remove)
                        PreTrainedModel.save_pretrained(model, folder)  # past the guard
                        undo.pop_all()
                    weakref.finalize(self, remove)
                    self._written = folder
            folder = self._written
        else:
            folder = self.source.files_folder(progress)
            self.source.check()
            self.check_tied(opener_of(folder))
        tensors = self.source.tensors or open_source(str(folder)).tensors
        return folder, tensors

    def open_stored(self, progress: Progress = silent) -> tuple[Path, Mapping[str, Tensor], Opener]:
        """A local folder with the files beside the weights, the stored tensors, and a function that
        opens parts of their files.

        Unlike `stored`, this writes no files for a base with an adapter: its tensors are merged as
        they are read.
        """
        if self.source.open_unwritten is None:
            folder, tensors = self.stored(progress)
            return folder, tensors, opener_of(folder)
        folder, opener = self.source.open_unwritten(progress)
        self.source.check()
        self.check_tied(opener)
        return folder, self.source.tensors, opener

    # ------------------------------------------------------------------ sizes

    @lazy_property
    def counts(self) -> Counts:
        """Parameters, cache and compute of each layer, from shapes alone."""
        return count(self.anatomy)

    @lazy_property
    def layouts(self) -> Layouts:
        """What each layer consists of: modules, shapes, parameters."""
        return layouts(self.anatomy)

    @lazy_property
    def stored_bytes(self) -> StoredBytes | None:
        """Bytes of the stored tensors by layer, from the headers; None if nothing is stored yet."""
        if not self.source.tensors:
            return None
        check_declared(self.anatomy, self.source.tensors)
        check_stored(self.anatomy, self.source.tensors)
        if self.kind == "folder" and self.source.home is not None:
            self.check_tied(opener_of(self.source.home))
        outside, layers = 0, [0] * self.depth
        passed_on: Counter[tuple[int, tuple[int, ...]]] = Counter()
        where = disk_layers(self.anatomy, self.source.tensors)
        tables = disk_tables(self.anatomy, self.source.tensors)
        translate = loader_names(self.anatomy)
        for name, tensor in self.source.tensors.items():
            place, size = where[name], tensor.end - tensor.start
            if name in tables:
                dim, block = tables[name]
                part = size // tensor.shape[dim] * block
                layers = [each + part for each in layers]
                outside += size - part * self.depth
            elif place is None:
                outside += size
            elif place[1] < self.depth:
                layers[place[1]] += size
                others = other_layers(self.anatomy, translate(name))
                if others and not any(f"{place[0]}{i}{place[2]}" in where for i in others):
                    passed_on[place[1], tuple(others)] += size
        return StoredBytes(
            outside, tuple(layers), tuple((size, *which) for which, size in passed_on.items())
        )

    def check_tied(self, opener: Opener, progress: Progress = silent) -> None:
        """Check that tensors which the config ties, and the files hold twice, are equal: otherwise
        transformers would load one more than the config, and every count, says. Raises `BaseError`.
        """
        for one, other in stored_twice(self.anatomy, self.source.tensors):
            if not _same(opener, self.source.tensors[one], self.source.tensors[other], progress):
                raise BaseError(
                    f"The checkpoint does not fit its config: {one} and {other} are tied by the "
                    "config and differ in the checkpoint. Set tie_word_embeddings to false in "
                    "config.json."
                )


def _same(opener: Opener, one: Tensor, other: Tensor, progress: Progress) -> bool:
    """Whether two stored tensors have the same dtype, shape and bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    size = one.end - one.start
    with (
        opener(one.file, one.start, one.end) as a,
        opener(other.file, other.start, other.end) as b,
    ):
        return equal(a, one.start, b, other.start, size, Meter(progress, _COMPARING, size))

"""Open a model on the Hugging Face Hub: headers by range requests, files into the Hub's own cache.

Cached files are used as they are, so a model that was fetched once opens without a network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status
from tqdm.auto import tqdm

from surgery.architecture.config.quantization import SIDE_FILES
from surgery.errors import BaseError
from surgery.progress import Progress

from .companions import LARGEST, choose, is_needed, too_large
from .folder import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    HEALING,
    INDEX,
    SINGLE,
    OtherWeights,
    check_adapter,
    check_weights,
    gather,
    no_safetensors,
    open_folder,
    read_config,
    read_index,
    with_adapter,
)
from .range_reader import RangeReader
from .safetensors_header import read_header
from .source import Source, Tensor

_FIRST = 100_000  # bytes: most headers are shorter, so one request is enough


def open_hub(spec: str, progress: Progress, timeout: float = 15) -> Source:
    """Open the model "org/name" or "org/name@revision". Raises `BaseError`."""
    repo, _, revision = spec.partition("@")
    if source := open_cached(repo, revision or None):
        return source
    with _explained(repo, revision):
        progress(f"Looking for {repo} on the Hub", 0, 0)
        info = HfApi().model_info(
            repo, revision=revision or None, timeout=timeout, files_metadata=True
        )
        commit = info.sha
        siblings = info.siblings or []
        names = [sibling.rfilename for sibling in siblings]
        if "config.json" not in names:
            if ADAPTER in names:
                raise BaseError(
                    f"{repo} is a LoRA adapter, not a model: write BASE+{repo}, with the base that "
                    "it was trained on."
                )
            raise BaseError(f"{repo} has no config.json: it is not a transformers model.")
        if ADAPTER in names:
            raise with_adapter(repo)
        # Chosen before anything is downloaded: files beside the weights could fill the disk.
        sizes = {file.rfilename: file.size or 0 for file in siblings}
        # The README has the licence; side files name quantized modules.
        described = ["config.json", "README.md", *SIDE_FILES]
        for name in described:
            if sizes.get(name, 0) > LARGEST:
                raise too_large(repo, name, sizes[name])
        beside = choose(sizes.items(), repo)
        # By the branch's name, so that the cache remembers what it stood for: then the next start
        # finds the model without asking.
        folder = Path(hf_hub_download(repo, "config.json", revision=revision or "main")).parent
        if folder.name != commit:
            raise BaseError(f"{repo} was changed on the Hub this very moment: open it again.")
        config = read_config(folder)
        check_weights(repo, config, names)
        if INDEX in names:
            hf_hub_download(repo, INDEX, revision=commit)
        tensors = _read_tensors(repo, commit, folder, names, progress)
    files = sorted({tensor.file for tensor in tensors.values()})
    needed = [*filter(is_needed, beside), "config.json"]
    index = [INDEX] if INDEX in names else []

    return Source(
        kind="hub",
        name=repo,
        config=config,
        identity=_identity(repo, commit),
        tensors=tensors,
        hub_id=repo,
        revision=commit,
        licence=getattr(info.card_data, "license", None),
        home=folder,
        open_range=lambda file, start, end: RangeReader(
            f"{repo}/{file}", partial(_stream, repo, commit, file), start, end
        ),
        get_files=lambda progress: _download(
            repo, commit, [*files, *index, *described, *beside], progress
        ),
        get_companions=lambda progress: _download(repo, commit, [*described, *beside], progress),
        get_tokenizer=lambda progress: _download(repo, commit, needed, progress),
    )


def get_adapter(spec: str, progress: Progress, timeout: float = 15) -> tuple[Path, str, str]:
    """Return (local folder, Hub id, commit) of the adapter "org/name" or "org/name@revision". May
    download its files. Raises `BaseError`."""
    repo, _, revision = spec.partition("@")
    with suppress(OSError, ValueError):  # not in the cache
        cached = partial(hf_hub_download, repo, revision=revision or "main", local_files_only=True)
        folder = Path(cached(ADAPTER)).parent
        if Path(cached(ADAPTER_WEIGHTS)).parent == folder:
            return folder, repo, folder.name
    with _explained(repo, revision):
        progress(f"Looking for {repo} on the Hub", 0, 0)
        info = HfApi().model_info(
            repo, revision=revision or None, timeout=timeout, files_metadata=True
        )
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        check_adapter(repo, sizes)
        if sizes[ADAPTER] > LARGEST:
            raise too_large(repo, ADAPTER, sizes[ADAPTER])
        # By the branch's name first, as for models.
        folder = Path(hf_hub_download(repo, ADAPTER, revision=revision or "main")).parent
        if folder.name != info.sha:
            raise BaseError(f"{repo} was changed on the Hub this very moment: open it again.")
        names = [ADAPTER, ADAPTER_WEIGHTS]
        if 0 < sizes.get(HEALING, 0) <= LARGEST:
            names.append(HEALING)
        folder = _download(repo, info.sha, names, progress)
    return folder, repo, info.sha


def open_cached(repo: str, revision: str | None) -> Source | None:
    """Open the model from the Hub's local cache if it is complete there; otherwise None. Uses no
    network."""
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError):  # not in the cache
        return None
    try:
        source = open_folder(folder, repo)
    except OtherWeights:
        raise
    except (OSError, ValueError):  # incomplete
        return None
    return replace(
        source,
        kind="hub",
        name=repo,
        identity=_identity(repo, folder.name),
        hub_id=repo,
        revision=folder.name,
    )


def _identity(repo: str, commit: str) -> str:
    return f"hub:{repo}@{commit}"


def _read_tensors(
    repo: str, commit: str, folder: Path, names: list[str], progress: Progress
) -> dict[str, Tensor]:
    """Read the tensors of a repository from the headers of its files alone."""
    if SINGLE in names:
        return _remote_header(repo, commit, SINGLE)
    if INDEX not in names:
        raise no_safetensors(repo, names)
    where = read_index(folder / INDEX)
    files = sorted(set(where.values()))
    if missing := set(files) - set(names):
        raise BaseError(f"{repo} is not complete on the Hub: it has no {min(missing)}.")
    headers: dict[str, dict[str, Tensor]] = {}
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda file: _remote_header(repo, commit, file), files)
        for done, (file, header) in enumerate(zip(files, read, strict=True), 1):
            headers[file] = header
            progress("Reading headers from the Hub", done, len(files))
    return gather(where, headers)


def _remote_header(repo: str, commit: str, file: str) -> dict[str, Tensor]:
    url = hf_hub_url(repo, file, revision=commit)
    first, size = _range(url, 0, _FIRST)

    def read(start: int, end: int) -> bytes:
        return first[start:end] if end <= len(first) else _range(url, start, end)[0]

    return read_header(read, size, file)


def _range(url: str, start: int, end: int) -> tuple[bytes, int]:
    """Return bytes [start, end) of the file at `url`, as far as there are that many, and its
    size."""
    parts = bytearray()
    with _response(url, start, end) as (response, size):
        for part in response.iter_bytes():
            parts += part
            if len(parts) >= end - start:  # whatever a server sends beyond is not wanted
                break
    return bytes(parts[: end - start]), size


@contextmanager
def _stream(repo: str, commit: str, file: str, start: int, end: int) -> Iterator[Iterator[bytes]]:
    """Yield bytes [start, end) of a repository's file as they arrive."""
    with (
        _explained(repo, commit),
        _response(hf_hub_url(repo, file, revision=commit), start, end) as (response, _),
    ):
        yield response.iter_bytes()


@contextmanager
def _response(url: str, start: int, end: int) -> Iterator[tuple]:
    """Request bytes [start, end) of the file at `url`; yields the response and the file's size."""
    headers = {**build_hf_headers(), "range": f"bytes={start}-{end - 1}"}
    with get_session().stream("GET", url, headers=headers, timeout=30) as response:
        hf_raise_for_status(response)
        place, _, size = response.headers.get("content-range", "").rpartition("/")
        begun = place.removeprefix("bytes").strip().partition("-")[0]
        if response.status_code != 206 or not size.isdecimal() or begun != str(start):
            raise BaseError("The Hub's server does not serve parts of files. Download the model.")
        yield response, int(size)


def _download(repo: str, commit: str, names: list[str], progress: Progress) -> Path:
    """Download files into the Hub's cache; those already there are reused."""
    patterns = [re.sub(r"([*?[])", r"[\1]", name) for name in names]
    try:
        with _explained(repo, commit):
            folder = snapshot_download(
                repo, revision=commit, allow_patterns=patterns, tqdm_class=_reporting(progress)
            )
            return Path(folder)
    except OSError as error:
        raise BaseError(f"{repo} could not be downloaded: {error.strerror or error}.") from error


def _reporting(progress: Progress) -> type[tqdm]:
    """A progress bar for the Hub's client that draws nothing and reports bytes."""

    class Bar(tqdm):
        def refresh(self, *args, **kwargs) -> None:
            # The client has three bars: files, bytes over the wire, bytes on the disk.
            if self.unit == "B" and not str(self.desc).startswith("Downloading"):
                progress("Downloading the model", self.n, self.total or 0)

        def display(self, *args, **kwargs) -> None: ...

    return Bar


@contextmanager
def _explained(repo: str, revision: str) -> Iterator[None]:
    """Turn errors of the Hub's client into `BaseError` that says what to do."""
    try:
        yield
    except GatedRepoError as error:
        raise BaseError(
            f"{repo} is gated: accept its terms on its page on the Hub, then log in with "
            "`hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise BaseError(f"{repo} has no revision “{revision[:80]}” on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise BaseError(
            f"There is no model “{repo}” on the Hub, or it is private: check the spelling, or log "
            "in with `hf auth login`."
        ) from error
    except HFValidationError as error:
        raise BaseError(f"“{repo}” can't be a Hub id: write it as org/name.") from error
    except OfflineModeIsEnabled as error:
        raise BaseError(
            f"{repo} is not in the local cache, and HF_HUB_OFFLINE forbids downloading it."
        ) from error
    except HfHubHTTPError as error:
        message = (str(error).splitlines() or ["no reason given"])[0][:200].rstrip(".")
        raise BaseError(f"The Hub refused {repo}: {message}. Try again later.") from error
    except json.JSONDecodeError as error:
        raise BaseError(
            f"Another server answers in place of the Hub, so {repo} can't be downloaded: check the "
            "network's login page, or HF_ENDPOINT."
        ) from error
    except BaseError:
        raise
    except Exception as error:
        if not _is_network(error):
            raise
        raise BaseError(
            f"The Hub can't be reached, and {repo} is not in the local cache. Check the network, "
            "or name a local folder."
        ) from error


def _is_network(error: Exception) -> bool:
    """Whether an error is one of the HTTP client's own: cut connections, timeouts, no name."""
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
    return isinstance(error, ConnectionError) or any(
        kind.startswith(("httpx", "httpcore")) or kind.endswith("LocalEntryNotFoundError")
        for kind in kinds
    )

"""Upload a saved checkpoint to the Hugging Face Hub, in one commit.

The token comes from the Hub's client (`hf auth login`, or HF_TOKEN) unless one is passed, and
appears in no message.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from huggingface_hub.utils import enable_progress_bars as enable_bars

from surgery.errors import SaveError, one_line
from surgery.io.atomic import restored
from surgery.progress import Progress, silent

_LOG_IN = "Log in with `hf auth login`, with a token that may write."
# Files of a model that change what is loaded, or say what it is, if another model lies over them.
_OF_A_MODEL = (
    "*.safetensors",
    "*.index.json",
    "adapter_*",
    "healing.json",
    "repair.json",
    "resized_embeddings.json",
    "recipe.yaml",
)


def push(
    folder: Path,
    repository: str,
    private: bool = True,
    overwrite: bool = False,
    progress: Progress = silent,
    token: str | None = None,
) -> str:
    """Upload `folder` to "org/name" and return its address. Raises `SaveError`.

    A repository that doesn't exist is created, private by default; one that has files is written to
    only with `overwrite`, which also deletes what is left of the model that was there: transformers
    could load its weights in place of the new ones. Other files stay. A broken upload can be run
    again: the Hub recognises files by their content, and takes none twice. `token` is a token of
    the Hub, by default that of `hf auth login` or HF_TOKEN.
    """
    folder = Path(folder)
    restored(folder)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise SaveError(f"{folder} holds no saved model: save one first.")
    if repository.count("/") != 1:
        raise SaveError(f"“{repository[:80]}” is not a repository name: write it as org/name.")
    token = token or get_token()
    if not token:
        raise SaveError(f"Nobody is logged in to the Hub. {_LOG_IN}")
    api = HfApi(token=token)
    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        progress(f"Looking for {repository}", 0, 0)
        api.create_repo(repository, private=private, exist_ok=True)
        there = set(api.list_repo_files(repository)) - {".gitattributes"}
        if there and not overwrite:
            raise SaveError(
                f"{repository} has files already, such as {min(there)}. Choose another name, or "
                "ask to overwrite."
            )
        progress(f"Uploading to {repository}", 0, 0)
        api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            commit_message="Upload from Layer Surgery",
            delete_patterns=[glob.escape(name) for name in _stale(there, folder)] or None,
        )
    except SaveError:
        raise
    except Exception as error:  # the client's, the network's, the disk's
        message = _message(error, repository).replace(token, "…")
        raise SaveError(message) from None  # what it was raised from may hold the token
    finally:
        if not hidden:
            enable_bars()
    return f"{api.endpoint}/{repository}"


def _stale(there: Iterable[str], folder: Path) -> list[str]:
    """Which files of a repository belong to the model that `folder` replaces, and to it alone."""
    # Imported here: they import transformers, which would delay the page by seconds.
    from surgery.architecture.config.quantization import SIDE_FILES
    from surgery.sources.companions import is_needed
    from surgery.sources.folder import PICKLES

    patterns = (*_OF_A_MODEL, *SIDE_FILES, *(f"*{ending}" for ending in PICKLES))
    return [
        name
        for name in sorted(there)
        if is_needed(name) or ("/" not in name and any(fnmatchcase(name, one) for one in patterns))
        if not (folder / name).is_file()
    ]


def _message(error: Exception, repository: str) -> str:
    if isinstance(error, HFValidationError):
        return f"“{repository[:80]}” is not a repository name: write it as org/name."
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so the Hub can't be reached."
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        if status == 401:
            return f"The Hub does not accept the token. {_LOG_IN}"
        if status == 403:
            return f"You may not write to {repository}. Choose a namespace of yours."
        message = (str(error).splitlines() or [""])[0][:200]
        return f"The Hub refused the upload: {message.rstrip('.')}. Run it again later."
    message = one_line(error, 200)
    return (
        f"The upload broke off ({type(error).__name__}: {message}). Run it again: what has "
        "arrived is not sent twice."
    )

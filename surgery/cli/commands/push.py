"""`push`: upload a saved model to the Hub."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ..common import SavedArgument, out, progress_bar


def push(
    folder: SavedArgument,
    repository: Annotated[
        str,
        typer.Argument(metavar="ORG/NAME", help="A repository on the Hub; created if missing."),
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Create the repository as a public one.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Upload to a repository that already has files, and delete what is left of the "
            "model there.",
        ),
    ] = False,
) -> None:
    """Upload a saved model to the Hub. The repository is private unless --public is given. The
    new files appear together; after an interrupted upload, run the command again: files that have
    arrived are not sent twice."""
    from surgery.checkpoint.push import push as push_folder

    with progress_bar() as progress:
        url = push_folder(folder, repository, not public, overwrite, progress)
    out.print(escape(url))

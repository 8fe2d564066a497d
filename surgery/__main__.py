"""Entry point of `python -m surgery` and of the installed command `layer-surgery`."""

import sys

from .cli import interrupts
from .cli.main import main


def run() -> None:
    """Run the command line and exit with its status."""
    interrupts.handle()  # SIGTERM, too, so that partial output is removed
    sys.exit(main())


if __name__ == "__main__":
    run()

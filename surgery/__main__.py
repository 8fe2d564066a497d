"""Entry point of `python -m surgery` and of the installed command `layer-surgery`."""

import signal
import sys

from .cli.main import main


def run() -> None:
    """Run the command line and exit with its status."""
    # SIGTERM is handled like Ctrl-C, so that partial output is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())


if __name__ == "__main__":
    run()

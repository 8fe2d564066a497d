"""`python -m surgery`, and `layer-surgery` once it is installed."""

import signal
import sys

from .cli import main


def run() -> None:
    """Run the command line and exit with its status."""
    # A polite kill ends like Ctrl-C: what is half written is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())


if __name__ == "__main__":
    run()

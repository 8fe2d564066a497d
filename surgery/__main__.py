"""`python -m surgery`."""

import signal
import sys

from .cli import main

# A polite kill ends like Ctrl-C: what is half written is removed.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main())

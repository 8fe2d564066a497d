"""`python -m benchmarks NAME`."""

import sys
from importlib import import_module
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))

if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
    sys.exit(f"Usage: python -m benchmarks NAME, where NAME is one of: {', '.join(NAMES)}")
name = sys.argv.pop(1)
import_module(f"benchmarks.{name}").main()

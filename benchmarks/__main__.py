"""`python -m benchmarks NAME`."""

import sys
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
NAMES = sorted(
    place.stem
    for place in (*HERE.glob("*.py"), *(init.parent for init in HERE.glob("*/__init__.py")))
    if not place.stem.startswith("_")
)

if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
    sys.exit(f"Usage: python -m benchmarks NAME, where NAME is one of: {', '.join(NAMES)}")
name = sys.argv.pop(1)
import_module(f"benchmarks.{name}").main()

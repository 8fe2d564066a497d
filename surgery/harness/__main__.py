"""lm-eval's own command line, with the model `layer-surgery` beside lm-eval's models."""

import sys

from surgery.errors import SurgeryError, one_line

from .download_counts import disable_download_counts
from .registration import register


def main() -> None:
    """Run `lm_eval` with this process's arguments. What surgery refuses is one line on stderr."""
    try:
        register()
        disable_download_counts()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except SurgeryError as error:
        sys.exit(f"Error: {one_line(error)}")


if __name__ == "__main__":
    main()

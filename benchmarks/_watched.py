"""The app, with somebody counting inside: `python -m benchmarks._watched FILE OPTIONS`.

Once a second a line of JSON is added to FILE: how many sessions there are, how many of them hold
more than their plan, and how many patients live. Upon SIGUSR1 garbage is collected first.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Start the app as `app.py` does, and count."""
    out = Path(sys.argv.pop(1))
    collecting = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: collecting.set())
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import app
    from components.gradio_compat import skip_stubs

    skip_stubs.skip()
    import gradio as gr

    launch = gr.Blocks.launch

    def watched(demo, *args, **options):
        threading.Thread(target=count, args=(demo, out, collecting), daemon=True).start()
        return launch(demo, *args, **options)

    gr.Blocks.launch = watched
    app.main()


def count(demo, out: Path, collecting: threading.Event) -> None:
    """Add a line every second, for ever."""
    while True:
        collected = collecting.is_set()
        if collected:
            collecting.clear()
            gc.collect()
        sessions = list(demo.state_holder.session_data.values())
        line = {
            "time": time.time(),
            "collected": collected,
            "sessions": len(sessions),
            "full": sum(bool(one.config_values) for one in sessions),
        }
        if collected:
            names = [type(thing).__name__ for thing in gc.get_objects()]
            line["patients"] = names.count("Patient")
            line["streams"] = names.count("Stream")
            line["plans"] = names.count("Plan")
        with open(out, "a", encoding="utf-8") as file:
            print(json.dumps(line), file=file)
        time.sleep(1)


if __name__ == "__main__":
    main()

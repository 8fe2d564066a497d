"""Launch the app."""

from __future__ import annotations

import argparse
import gc
import os
from dataclasses import replace

from surgery.compute.choice import CHOICES, set_compute_dtype

# Before Gradio is imported: the page asks nothing of the outside world.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Layer Surgery: the app, in your browser.")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, help="the first free one from 7860 unless given")
    parser.add_argument("--base", default="bundled", help="the model to open first")
    parser.add_argument("--share", action="store_true", help="a public link through Gradio")
    parser.add_argument("--no-browser", action="store_true", help="don't open a browser")
    parser.add_argument(
        "--public",
        action="store_true",
        help="for strangers: models from the Hub only, nothing of this machine's files",
    )
    parser.add_argument(
        "--allow-healing", action="store_true", help="let strangers train on this machine too"
    )
    parser.add_argument(
        "--people-per-address",
        type=_people,
        default=40,
        metavar="N",
        help="limits per network address, as a multiple of one visitor's (40)",
    )
    parser.add_argument(
        "--compute-dtype",
        choices=CHOICES,
        help="how prompts, scores and training are computed: auto is float32 where that is clearly "
        "faster than the stored dtype",
    )
    parser.add_argument(
        "--measure-when-asked",
        action="store_true",
        help="don't measure what a plan costs after each edit, only when asked: for slow machines",
    )
    parser.add_argument(
        "--from-disk",
        action="store_true",
        help="read weights that are larger than memory from disk whenever they are used: slow",
    )
    return parser.parse_args()


def _people(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 1000):
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 1000")
    return int(text)


def main() -> None:
    """Serve until interrupted. On a Hugging Face Space and over a share link it is public."""
    options = arguments()
    set_compute_dtype(options.compute_dtype)
    gc.disable()  # what is imported stays; `heavy_imports` enables it again
    on_space = "SPACE_ID" in os.environ
    public = options.public or options.share or on_space
    storage = None
    if public:
        from components.services import public_storage

        storage = public_storage.prepare()  # before libraries that write files are imported
    from components.gradio_compat import ended_streams, queue_pace, skip_stubs

    skip_stubs.skip()  # before Gradio is imported
    from components.page import build, launch_options
    from components.services import heavy_imports
    from components.services.deployment import Deployment
    from components.services.services import Services

    allowed = replace(
        Deployment.of(public, options.allow_healing, people=options.people_per_address),
        from_disk=options.from_disk,
        measures_unasked=not options.measure_when_asked,
    )
    try:
        allowed.check_spec(options.base)
    except ValueError as error:
        raise SystemExit(f"--base {options.base}: {error}") from error
    services = Services.of(allowed, storage)
    demo = build(options.base, services)
    demo.queue(max_size=128)  # more than the limit of one address
    queue_pace.slow_down(demo)
    ended_streams.keep_out_of_the_log()
    demo.launch(
        server_name="0.0.0.0" if on_space else options.host,
        server_port=options.port,
        share=options.share,
        inbrowser=not (options.no_browser or on_space),
        prevent_thread_lock=True,
        **launch_options(services),
    )
    heavy_imports.begin(then=lambda: services.bases.prepare(options.base))
    demo.block_thread()


if __name__ == "__main__":
    main()

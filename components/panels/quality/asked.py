"""What one session asks of the Quality tile."""

from __future__ import annotations

from surgery import texts


class Asked:
    """What a session wants measured and repaired."""

    def __init__(self) -> None:
        self.latest: object = None  # the latest request; earlier ones end
        self.text = texts.DEFAULT
        self.repair: object = None  # the repair under way

    def __deepcopy__(self, memo: dict) -> Asked:
        return Asked()  # Gradio copies a state's first value for every page that is opened

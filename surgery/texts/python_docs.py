"""Python's own documentation of its language, as text: the topics that `help()` prints."""

from __future__ import annotations

from surgery.errors import SurgeryError

_SHORTEST, _LONGEST = 1500, 2500  # characters of a document


def documents() -> tuple[str, ...]:
    """The topics that are long enough, in the order of their names: the beginning of each. Raises
    `SurgeryError` in a Python that comes without them."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise SurgeryError(
            "This Python comes without its documentation: choose another text, such as prose."
        ) from error
    texts = (text.strip() for _, text in sorted(topics.items()))
    return tuple(text[:_LONGEST] for text in texts if len(text) >= _SHORTEST)

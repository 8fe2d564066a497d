"""An image of the visitor's own, made small in the browser so that no upload is needed for it."""

from __future__ import annotations

import base64
import binascii

from components.widgets.html_component import LiveHTML
from surgery import SurgeryError

_JPEG = "data:image/jpeg;base64,"


class ImageFile(LiveHTML):
    """The value is {id, name, data} once an image was chosen: `data` is a JPEG as a data URL, and
    each choice has an `id` of its own. `chosen_image` has its bytes."""

    stem = "image_file"


def chosen_image(value: object) -> bytes | None:
    """The JPEG in a component's value; None if no image was chosen. Raises `SurgeryError`."""
    data = value.get("data") if isinstance(value, dict) else None
    if not data:
        return None
    if not isinstance(data, str) or not data.startswith(_JPEG):
        raise SurgeryError("The image is not a JPEG: choose it on the page.")
    try:
        return base64.b64decode(data.removeprefix(_JPEG), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SurgeryError("The image is damaged: choose it again.") from error


def image_id(value: object) -> str:
    """Tells one choice from another; empty without an image."""
    return str(value.get("id") or "") if isinstance(value, dict) else ""

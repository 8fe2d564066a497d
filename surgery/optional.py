"""Import optional packages, with a clear error if one is missing."""

from importlib import import_module
from types import ModuleType

from .errors import SurgeryError


def require(package: str, purpose: str) -> ModuleType:
    """Import `package`. Raises `SurgeryError` that says how to install it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise SurgeryError(
            f"{purpose} needs the package {package}: pip install {package}."
        ) from error

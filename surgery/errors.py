"""Errors that people read: each message says what is wrong and what to do.

Anything else that escapes is a bug. All are `ValueError`s, so callers can catch them
without knowing this library.
"""


class SurgeryError(ValueError):
    """Something the user asked for cannot be done as asked."""


class PlanError(SurgeryError):
    """A plan's text or an edit of it makes no sense for this base."""


class BaseError(SurgeryError):
    """A base cannot be found, read or loaded."""


class Refused(SurgeryError):
    """The operation cannot be promised right, so it is not done at all."""


class SaveError(SurgeryError):
    """A checkpoint could not be written; whatever was there before is untouched."""


def one_line(error: BaseException, length: int = 300) -> str:
    """Another library's error message on one line of at most `length` characters."""
    return " ".join(str(error).split())[:length]

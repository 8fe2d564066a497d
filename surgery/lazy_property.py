"""Properties that are computed on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class lazy_property(Generic[T]):
    """A property that is computed once for each object and kept.

    `functools.cached_property` of Python 3.11 has one lock for all objects of a class, so that a
    tokenizer that downloads for one visitor would make all others wait for theirs. This one has
    none: threads that are the first at the same time all compute, and all get the same result.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # What is in the object's own dict is found before this is asked again.
        return vars(instance).setdefault(self._compute.__name__, self._compute(instance))

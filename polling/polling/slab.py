"""A store that chooses its keys itself: what a program names its connections by."""

from __future__ import annotations

from collections.abc import Mapping

from polling._typing import TYPE_CHECKING, T
from polling.errors import SlabFullError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final

__all__ = ["Slab"]


class _Vacant:
    """What stands where there is no value: the class itself, of which copies and pickles have no second one."""


_VACANT: Final[Any] = _Vacant


class Slab(Mapping[int, T]):
    """Values under small integers, which it chooses itself and uses again once they are free.

    It is a mapping, read by ``slab[key]``, ``get``, ``len``, ``in`` and iteration, which goes in the order of the keys.
    ``insert``, ``insert_with`` and ``pop`` change it, also during an iteration, which meets no value that was taken out
    before its turn. All but iteration take the same time however much there is.

    Args:
        capacity: How many values at most, 0 or more; ``None``: any number.

    Raises:
        ValueError: *capacity* is negative.
        TypeError: It is no int.

    Threads: One at a time.
    """

    __slots__ = ("_capacity", "_entries", "_free", "_size")

    def __init__(self, capacity: int | None = None) -> None:
        if capacity is not None:
            if not isinstance(capacity, int):
                raise TypeError(f"capacity must be an int or None, not {capacity!r}")
            if capacity < 0:
                raise ValueError(f"capacity must be at least 0, not {capacity}")
        self._capacity = capacity
        self._entries: list[T] = []  # by key; _VACANT where there is none
        self._free: list[int] = []  # keys that were used and are not now; the last one is given out next
        self._size = 0

    def insert(self, value: T) -> int:
        """Store *value*, and give the key it is under.

        Raises:
            SlabFullError: There are as many as may be. Nothing has changed.
        """
        return self.insert_with(lambda _key: value)

    def insert_with(self, make: Callable[[int], T]) -> int:
        """Store what ``make(key)`` returns, and give the key: for values that must know it.

        While *make* runs there is nothing under the key, and nobody else gets it. If it raises, nothing has changed.

        Raises:
            SlabFullError: There are as many as may be. *make* was not called, and nothing has changed.
        """
        if not self._free:
            key = len(self._entries)
            if key == self._capacity:
                raise SlabFullError(f"the slab holds {self._capacity} values, and may hold no more")
            self._entries += [_VACANT]
        else:
            key = self._free[-1]
            del self._free[-1]
        try:
            self._entries[key] = make(key)
            self._size += 1
        except BaseException:
            self._free += [key]
            raise
        return key

    def pop(self, key: int) -> T:
        """Take the value under *key* out, and give it. The key may come back with the next insertion.

        Raises:
            KeyError: There is none.
        """
        value = self[key]
        self._entries[key] = _VACANT
        self._size -= 1
        self._free += [key]
        return value

    def __getitem__(self, key: int) -> T:
        if isinstance(key, int) and 0 <= key < len(self._entries):
            value = self._entries[key]
            if value is not _VACANT:
                return value
        raise KeyError(key)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return (key for key, value in enumerate(self._entries) if value is not _VACANT)

    def __getstate__(self) -> object:
        state: Any = super().__getstate__()
        attributes, slots = state  # the former of subclasses
        return attributes, slots | {"_entries": self._entries[:], "_free": self._free[:]}  # no copy shares them

    def __repr__(self) -> str:
        return f"Slab({dict(self)!r})"

"""What all have in common that can be closed."""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn, Self

__all__ = ["Closing"]


class Closing:
    """A context manager that gives itself, and is closed at the end of the block."""

    __slots__ = ()

    def close(self) -> None:
        raise NotImplementedError

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object")  # two would close the same

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

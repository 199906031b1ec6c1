"""The little of ``typing`` that is needed at run time, without its import, which takes as long as all the rest.

Type checkers take the constant's name for what it is in ``typing``, and so see the real things everywhere.
"""

from __future__ import annotations

from types import GenericAlias

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any, Generic

    from typing_extensions import TypeVar  # mypy and pyright carry it

    T = TypeVar("T", default=Any)
else:
    T = "T"

    class Generic:
        """Makes a class accept type arguments, and make nothing of them."""

        __slots__ = ()

        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["TYPE_CHECKING", "Generic", "T"]

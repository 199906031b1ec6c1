"""The slab: keys, re-use, and what a failure leaves behind. No backend has to do with it, and so no rule."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Mapping

import pytest

from polling import Slab, SlabFullError


def test_keys_are_small_and_used_again() -> None:
    slab = Slab[str]()
    keys = [slab.insert(letter) for letter in "abcd"]
    assert keys == [0, 1, 2, 3]
    assert slab.pop(1) == "b"
    assert slab.pop(2) == "c"
    assert {slab.insert("e"), slab.insert("f")} == {1, 2}
    assert slab.insert("g") == 4
    assert len(slab) == 5


def test_it_is_a_mapping_in_the_order_of_the_keys() -> None:
    slab = Slab[str]()
    assert isinstance(slab, Mapping)
    for letter in "abcd":
        slab.insert(letter)
    slab.pop(0)
    slab.pop(2)
    slab.insert("e")
    assert list(slab.items()) == [(1, "b"), (2, "e"), (3, "d")]
    assert list(slab) == [1, 2, 3]
    assert (slab[3], slab.get(3), slab.get(0), slab.get(9, "none")) == ("d", "d", None, "none")
    assert [key in slab for key in (1, 0, -1)] == [True, False, False]
    assert repr(slab) == "Slab({1: 'b', 2: 'e', 3: 'd'})"


@pytest.mark.parametrize("key", [-1, 0, 1, 10**30, "a", None])
def test_where_nothing_is_there_is_a_key_error(key: int) -> None:
    slab = Slab[str]()
    slab.pop(slab.insert("gone"))
    for call in (slab.pop, slab.__getitem__):
        with pytest.raises(KeyError):
            call(key)
    assert slab.insert("next") == 0


def test_none_is_a_value() -> None:
    slab = Slab[None]()
    key = slab.insert(None)
    assert key in slab
    assert list(slab.values()) == [None]
    assert slab.pop(key) is None
    assert not slab


@pytest.mark.parametrize("capacity", [0, 1, 3])
def test_a_full_slab_refuses_and_stays_as_it_is(capacity: int) -> None:
    slab = Slab[int](capacity)
    for value in range(capacity):
        slab.insert(value)
    before = dict(slab)
    called: list[int] = []
    for _ in range(3):
        with pytest.raises(SlabFullError, match=f"holds {capacity} values"):
            slab.insert(9)
        with pytest.raises(SlabFullError):
            slab.insert_with(lambda key: called.append(key) or 9)  # type: ignore[func-returns-value]  # it is None
    assert (dict(slab), called) == (before, [])
    if capacity:
        slab.pop(0)
        assert slab.insert(9) == 0


def test_the_key_is_known_while_the_value_is_made() -> None:
    slab = Slab[tuple[int, bool, int]](2)
    inner: list[int] = []

    def make(key: int) -> tuple[int, bool, int]:
        if key == 0:
            inner.append(slab.insert_with(make))
        return key, key in slab, len(slab)

    assert slab.insert_with(make) == 0
    assert inner == [1]
    assert dict(slab) == {0: (0, False, 1), 1: (1, False, 0)}


def test_the_slab_may_change_while_a_value_is_made() -> None:
    slab = Slab[str](3)
    keys = [slab.insert(letter) for letter in "ab"]

    def make(key: int) -> str:
        with pytest.raises(KeyError):
            slab.pop(key)
        assert slab.pop(keys[0]) == "a"
        assert slab.insert("c") == keys[0]
        with pytest.raises(SlabFullError):
            slab.insert("d")
        return "e"

    assert slab.insert_with(make) == 2
    assert dict(slab) == {0: "c", 1: "b", 2: "e"}

    def fail(key: int) -> str:
        slab.insert(str(key))
        raise ZeroDivisionError

    slab.pop(0)
    slab.pop(2)
    with pytest.raises(ZeroDivisionError):
        slab.insert_with(fail)
    assert (dict(slab), len(slab)) == ({0: "2", 1: "b"}, 2)
    assert slab.insert("f") == 2


def test_the_slab_may_change_during_an_iteration() -> None:
    slab = Slab[int]()
    for value in range(6):
        slab.insert(value)
    met = []
    for key, value in slab.items():
        met.append(value)
        slab.pop(key)
        if key == 1:
            slab.pop(2)
            slab.pop(5)
            assert slab.insert(50) == 5
    assert met == [0, 1, 3, 4, 50]
    assert not slab


def test_a_value_that_cannot_be_made_changes_nothing() -> None:
    slab = Slab[str](1)
    for error in ZeroDivisionError, KeyboardInterrupt:

        def fail(key: int, error: type[BaseException] = error) -> str:
            assert key == 0
            raise error

        with pytest.raises(error):
            slab.insert_with(fail)
        assert (len(slab), list(slab)) == (0, [])
    assert slab.insert("it") == 0


@pytest.mark.parametrize(("capacity", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_capacity_that_is_none_is_refused(capacity: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="capacity must be"):
        Slab[int](capacity)


def test_it_agrees_with_a_dictionary() -> None:
    chance = random.Random(1)
    slab, model = Slab[int](50), dict[int, int]()
    for value in range(5000):
        if model and chance.random() < 0.5:
            key = chance.choice(list(model))
            assert slab.pop(key) == model.pop(key)
        elif len(model) < 50:
            key = slab.insert(value)
            assert key not in model
            assert key < 50
            model[key] = value
        assert len(slab) == len(model)
    assert list(slab.items()) == sorted(model.items())


class Subclass(Slab[str]):
    """One with something of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(3)
        self.name = name


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda slab: pickle.loads(pickle.dumps(slab))])
def test_a_copy_is_a_slab_of_its_own(copied: Callable[[Subclass], Subclass]) -> None:
    slab = Subclass("name")
    first, second = slab.insert("first"), slab.insert("second")
    slab.pop(first)
    other = copied(slab)
    assert (other.name, dict(other)) == ("name", {second: "second"})
    assert other.insert("third") == slab.insert("another")
    assert sorted(other.values()) == ["second", "third"]
    assert sorted(slab.values()) == ["another", "second"]
    other.insert("last")
    with pytest.raises(SlabFullError):
        other.insert("too much")

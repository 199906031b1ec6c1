"""Which backend a Poll gets: by name, class, instance, environment variable and default, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import polling
from polling import Backend, Capability, Interest, Mode, Poll, Readiness, UnknownBackendError, UnsupportedError, _loader
from polling.backend import Wait

Install: TypeAlias = Callable[..., None]


class Stranger(Backend):
    """A backend of somebody else's, which has nothing to report."""

    name = "stranger"
    capabilities = Capability(0)

    @property
    def internal(self) -> Collection[int]:
        return ()

    def register(self, fd: int, interest: Interest, mode: Mode) -> None: ...
    def reregister(self, fd: int, interest: Interest, mode: Mode) -> None: ...
    def deregister(self, fd: int) -> None: ...
    def rearm(self, fd: int, interest: Interest) -> None: ...
    def waiter(self) -> Wait:
        return lambda timeout, max_events: []

    def decode(self, bits: int, interest: Interest) -> Readiness:
        return Readiness()

    def wake(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Absent(Stranger):
    """One that cannot run here."""

    name = "absent"

    @classmethod
    def unavailable_reason(cls) -> str | None:
        return "the moon is not full"

    def __init__(self) -> None:
        raise AssertionError("made although it cannot run")


class Broken(Stranger):
    """One whose constructor fails."""

    name = "broken"

    def __init__(self) -> None:
        raise OSError("out of descriptors")


def not_a_backend() -> None: ...


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(_loader.VARIABLE, raising=False)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have packages installed that offer backends: names, and addresses in this module."""
    monkeypatch.setitem(sys.modules, "strangers", sys.modules[__name__])

    def install(**addresses: str) -> None:
        def entry_points(*, group: str) -> EntryPoints:
            assert group == "polling.backends"
            return EntryPoints(EntryPoint(name, address, group) for name, address in addresses.items())

        monkeypatch.setattr("importlib.metadata.entry_points", entry_points)

    return install


@pytest.fixture(params=list(polling.available_backends()))
def ours(request: pytest.FixtureRequest) -> type[Backend]:
    return polling.available_backends()[request.param]


# -- name, class, instance, variable, default ----------------------------------------------------------------


def test_a_backend_is_chosen_by_name_class_or_instance(ours: type[Backend]) -> None:
    for wanted in ours.name, ours, ours():
        with Poll(wanted) as poll:
            assert type(poll.backend) is ours
            assert isinstance(wanted, (str, type)) or poll.backend is wanted


def test_the_default_is_the_first_that_runs_here() -> None:
    with Poll() as poll:
        assert type(poll.backend) is next(iter(polling.available_backends().values()))


def test_the_variable_replaces_the_default(ours: type[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_BACKEND", ours.name)
    with Poll() as poll:
        assert type(poll.backend) is ours


def test_the_variable_does_not_replace_what_was_asked_for(ours: type[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_BACKEND", "no such backend")
    with Poll(ours.name) as by_name, Poll(ours) as by_class:
        assert type(by_name.backend) is type(by_class.backend) is ours


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_BACKEND", "")
    with Poll() as poll:
        assert type(poll.backend) is _loader.default_backend()


def test_each_poll_has_a_backend_of_its_own(ours: type[Backend]) -> None:
    with Poll(ours) as one, Poll(ours) as other:
        assert one.backend is not other.backend


# -- what is refused ------------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_those_that_are_known(install: Install) -> None:
    install(stranger="strangers:Stranger")
    with pytest.raises(UnknownBackendError) as caught:
        Poll("epol")
    assert isinstance(caught.value, LookupError)
    assert "'epol'" in str(caught.value)
    for name in (*_loader.BUILT_IN, "stranger"):
        assert name in str(caught.value).split("there are: ")[1].split(", ")


def test_an_unknown_name_in_the_variable_is_blamed_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLLING_BACKEND", "epol")
    with pytest.raises(UnknownBackendError, match=r"POLLING_BACKEND: .*'epol'.*; there are: epoll, kqueue, poll"):
        Poll()


def test_a_backend_that_cannot_run_here_says_why(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(absent="strangers:Absent")
    for wanted in "absent", Absent:
        with pytest.raises(UnsupportedError, match=r"absent backend cannot run here: the moon is not full"):
            Poll(wanted)
    monkeypatch.setenv("POLLING_BACKEND", "absent")
    with pytest.raises(UnsupportedError, match=r"POLLING_BACKEND: .*the moon is not full"):
        Poll()


def test_no_backend_at_all_lists_each_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _loader.BUILT_IN:
        backend = _loader.load_backend(name)
        monkeypatch.setattr(backend, "unavailable_reason", classmethod(lambda cls: f"{cls.name} is on strike"))
    with pytest.raises(UnsupportedError) as caught:
        Poll()
    for name in _loader.BUILT_IN:
        assert f"{name}: {name} is on strike" in str(caught.value)
    assert polling.available_backends() == {}


@pytest.mark.parametrize(
    "wanted", [1, object(), b"epoll", ["epoll"], int, object], ids=lambda wanted: type(wanted).__name__
)
def test_what_is_no_backend_is_a_type_error(wanted: Any) -> None:
    with pytest.raises(TypeError, match="a name, a Backend class or an instance"):
        Poll(wanted)


def test_an_abstract_class_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Poll(Backend)


def test_an_instance_serves_one_poll_only(ours: type[Backend]) -> None:
    instance = ours()
    with Poll(instance) as poll:
        with pytest.raises(ValueError, match="already serves a poll"):
            Poll(instance)
        assert poll.poll(0) == []
    with pytest.raises(ValueError, match="already serves a poll"):
        Poll(instance)  # closed by now, and still spent


def test_the_backend_of_a_poll_serves_no_other(ours: type[Backend]) -> None:
    with Poll(ours.name) as poll:
        with pytest.raises(ValueError, match="already serves a poll"):
            Poll(poll.backend)
        assert poll.poll(0) == []


def test_an_error_of_the_constructor_is_passed_on() -> None:
    with pytest.raises(OSError, match="out of descriptors"):
        Poll(Broken)


# -- strangers ---------------------------------------------------------------------------------------------------


def test_a_stranger_is_chosen_by_the_name_of_its_entry_point(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(theirs="strangers:Stranger")
    with Poll("theirs") as poll:
        assert type(poll.backend) is Stranger
    monkeypatch.setenv("POLLING_BACKEND", "theirs")
    with Poll() as poll:
        assert type(poll.backend) is Stranger


def test_a_stranger_takes_no_built_in_name_and_is_never_the_default(install: Install) -> None:
    first = next(iter(polling.available_backends()))
    install(**dict.fromkeys(_loader.BUILT_IN, "strangers:Stranger"), aaa="strangers:Stranger")
    assert polling.backend_names() == (*_loader.BUILT_IN, "aaa")
    assert next(iter(polling.available_backends())) == first
    with Poll(first) as by_name, Poll() as by_default:
        for poll in by_name, by_default:
            assert poll.backend.name == first
            assert not isinstance(poll.backend, Stranger)


def test_a_stranger_is_not_the_default_even_if_it_alone_can_run(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(stranger="strangers:Stranger")
    for name in _loader.BUILT_IN:
        monkeypatch.setattr(_loader.load_backend(name), "unavailable_reason", classmethod(lambda cls: "no"))
    with pytest.raises(UnsupportedError):
        Poll()
    with Poll("stranger") as poll:
        assert type(poll.backend) is Stranger


def test_built_in_names_are_found_without_looking_for_strangers(
    ours: type[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry_points(**_: object) -> EntryPoints:
        raise AssertionError("looked for strangers")

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    for wanted in ours.name, None:
        with Poll(wanted):
            pass


def test_names_are_given_without_importing_anything(install: Install) -> None:
    install(missing="no_such_module:Backend", stranger="strangers:Stranger")
    assert polling.backend_names() == (*_loader.BUILT_IN, "missing", "stranger")


def test_a_stranger_that_does_not_import_is_left_out_with_a_warning(install: Install) -> None:
    install(missing="no_such_module:Backend", absent="strangers:Absent", stranger="strangers:Stranger")
    with pytest.warns(RuntimeWarning, match=r"'missing' is left out: ModuleNotFoundError"):
        available = polling.available_backends()
    assert "stranger" in available
    assert not {"missing", "absent"} & available.keys()
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        Poll("missing")


def test_an_entry_point_to_something_else_is_a_type_error(install: Install) -> None:
    install(wrong="strangers:not_a_backend")
    with pytest.raises(TypeError, match=r"'wrong' is strangers:not_a_backend, which is no subclass"):
        Poll("wrong")


def test_an_entry_point_to_a_module_is_a_type_error(install: Install) -> None:
    install(wrong="strangers")
    with pytest.raises(TypeError, match=r"'wrong' is strangers:?, which is no subclass"):
        Poll("wrong")


def test_a_stranger_s_real_entry_point_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a stand-in: a package's metadata in a folder on the path."""
    (tmp_path / "someone.py").write_text("from polling_backends.poll import PollBackend as Theirs\n")
    metadata = tmp_path / "someone-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: someone\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[polling.backends]\nsomeone = someone:Theirs\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert polling.backend_names() == (*_loader.BUILT_IN, "someone")
    if "poll" in polling.available_backends():
        with Poll("someone") as poll:
            assert poll.backend.name == "poll"

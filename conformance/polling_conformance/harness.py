"""What every rule test stands on: polls that are closed, sources that are closed, failures that explain themselves.

``Harness`` is the base of all families in ``suite``. Four decisions shape it.

Nothing is configured outside the class: no mark, no option, no conftest. An author's project may run
with any settings, so all there is are fixtures on the class, and pytest makes one instance for each test.

An event that nobody expected is no failure yet: a backend may report a spurious one now and then (SPU-01). So
``expect_*`` have the whole test run afresh then, and it fails if it ends like that each time, of three.

Nothing sleeps to order things. A test that needs another thread inside a wait asks for it by
``Running.blocked``, and one that waits for something waits for the thing itself, at most ``SIGNAL_WAIT``.
That nothing happens can only be watched for some time: ``SILENCE``.

A failure suffices without the test's source: it names the rule, what was expected, what was observed,
and the backend. ``explain`` writes it. Whatever a test raises went through it, also an error that came out of the
backend where the test expected none.
"""

from __future__ import annotations

import _thread
import functools
import gc
import hashlib
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final, NoReturn, TypeVar

import pytest

from polling import (
    Backend,
    Capability,
    Channel,
    Event,
    EventLoop,
    Poll,
    PollClosedError,
    Signals,
    Timer,
    UnsupportedError,
    net,
)
from polling._loader import load_backend
from polling_conformance.durations import SIGNAL_WAIT, SILENCE
from polling_conformance.ends import CHUNK, Descriptor, End, Ends, open_descriptors, ready
from polling_conformance.failure import RuleFailure, UnexpectedPass, blame, explain, rule_of
from polling_conformance.running import Rest, Running

__all__ = ["Harness", "problem_of"]

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_LETTERS: Final = {"r": "readable", "w": "writable", "p": "priority"}
_PROMISES: Final = frozenset(_LETTERS.values())


# -- what a test may leave behind: nothing -------------------------------------------------------------


@contextmanager
def _leaving_nothing_behind(failure: Callable[[str, str], RuleFailure]) -> Iterator[None]:
    """Fail if descriptors or threads differ afterwards from what they were before."""
    gc.collect()  # what an earlier test left to the collector is not this one's
    gc.freeze()  # so that the collection after the test looks at its objects only, and not at all of pytest's
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    yield
    gc.collect()
    left: list[str] = []
    now = open_descriptors()
    for fd in sorted(descriptors.keys() | now.keys()):
        before, after = descriptors.get(fd), now.get(fd)
        if before is None:
            left.append(f"descriptor {fd} is open: {after}")
        elif before != after:
            left.append(f"descriptor {fd} is not the test's, and was {before}, is {after or 'closed'}")
    for thread in set(threading.enumerate()) - threads:
        thread.join(SIGNAL_WAIT)
        if thread.is_alive():
            left.append(f"thread {thread.name} is running")
    if left:
        raise failure("no descriptor and no thread is left once poll and sources are closed", "\n".join(left))


# What rings, and how: on POSIX the system's alarm clock, on Windows, which has none, a thread. Its signal is handled
# as soon as the main thread runs Python again, in the midst of a wait, too (SIG-06), but not of a lock's.
if sys.platform == "win32":
    _ALARM: Final = signal.SIGBREAK
    _alarm_clock: threading.Timer | None = None

    def _set_alarm(seconds: float) -> None:
        """Ring once in so many seconds from now, and not when it was said before; 0: not at all."""
        global _alarm_clock
        if _alarm_clock is not None:
            _alarm_clock.cancel()
            _alarm_clock.join()
        _alarm_clock = threading.Timer(seconds, _thread.interrupt_main, [_ALARM]) if seconds else None
        if _alarm_clock is not None:
            _alarm_clock.start()

else:
    _ALARM: Final = signal.SIGALRM

    def _set_alarm(seconds: float) -> None:
        """Ring once in so many seconds from now, and not when it was said before; 0: not at all."""
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def _within_limit(failure: Callable[[str, str], RuleFailure]) -> Iterator[None]:
    """Fail a test that hangs, where a signal handler can run: in the main thread.

    An alarm that somebody else has set, such as a time-out plug-in's, stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(_ALARM) is not signal.SIG_DFL:
        yield
        return
    limit = 3 * SIGNAL_WAIT

    def ring(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise failure("the test ends", f"it hangs: stopped after {limit:g} s")

    signal.signal(_ALARM, ring)
    _set_alarm(limit)
    try:
        yield
    finally:
        _set_alarm(0)
        signal.signal(_ALARM, signal.SIG_DFL)


# -- which tests are run, of which class ----------------------------------------------------------------


class _LeftOut:
    """A plug-in that notes which tests are left out: by ``-k``, ``-m``, ``--deselect`` or whatever does so."""

    NAME: Final = "polling_conformance.left_out"

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self.items += items


def _is_of(item: pytest.Item, rule: str, test: str) -> bool:
    """Tell whether *item* tests *rule*, in the class of the test with the id *test*."""
    return rule_of(item.name) == rule and item.nodeid.startswith(test.partition("[")[0].rpartition("::")[0] + "::")


def problem_of(suite: type[Harness]) -> str | None:
    """Say why a class cannot be tested, if it cannot: what its author has forgotten or confused."""
    name = suite.__qualname__
    backend = getattr(suite, "backend", None)
    if backend is None:
        return f"{name} does not say what to test: set `backend` to a subclass of polling.Backend, or its name"
    if isinstance(backend, str):
        try:
            backend = load_backend(backend)
        except Exception:  # a poll on it raises the same, and says more
            return None
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        return f"{name}.backend must be a subclass of polling.Backend, or its registered name, and is {backend!r}"
    for attribute, kind in ("name", str), ("capabilities", Capability):
        value = getattr(backend, attribute, None)
        if not isinstance(value, kind):
            return f"{backend.__qualname__}.{attribute} must be of type {kind.__name__}, and is {value!r}"
    return None


# -- the base class ------------------------------------------------------------------------------------

_KINDS: Final = {
    "tcp": "tcp_pair",
    "net-tcp": "net_tcp_pair",
    **({"unix": "unix_pair", "net-unix": "net_unix_pair"} if hasattr(socket, "AF_UNIX") else {}),
    "pipe": "pipe",
    "net-pipe": "net_pipe",
}
"""The kinds of connected streams, and who makes them. ``net-`` kinds carry the library's edge hooks."""

_DUPLEX: Final = [kind for kind in _KINDS if "pipe" not in kind]


class Harness:
    """What a rule test can ask for. Families derive from it; an author subclasses ``BackendConformance``.

    Tests are named ``test_REG_01_<sentence>``. They take their sources from the makers below, or from these
    fixtures, over which pytest repeats a test, once for each kind of stream:

    ``pair``: ``reader, writer``, all kinds: TCP, Unix sockets and pipes, plain and from ``polling.net``.
    ``duplex``: ``near, far``, the kinds that carry both ways: all but pipes.
    ``edge_pair``, ``edge_duplex``: the same for rules that use ``Mode.EDGE``: plain ones only where the backend
        has ``Capability.NATIVE_EDGE``, since elsewhere they are refused (REG-26).
    """

    backend: ClassVar[str | type[Backend]]
    """The backend under test: its class, or the name that it is registered under."""

    known_failures: ClassVar[Mapping[str, str]] = {}
    """Rule id to reason. Tests of such a rule may fail, and one of them must: when none does, that is a failure."""

    _sources: ExitStack
    _polls: ExitStack
    _threads: list[Running[object]]
    _test_name: str
    _failed: bool
    _makers: dict[str, Callable[[], object]]

    @pytest.fixture(autouse=True)
    def _frame(self, request: pytest.FixtureRequest) -> Generator[None, None, None]:
        self._test_name = request.node.name
        request.node.obj = self._explaining(request.node.obj)
        self._threads = []
        self._makers = {}
        with (
            self._known_or_not(request),
            _leaving_nothing_behind(self.failure),
            _within_limit(self.failure),
            ExitStack() as self._sources,
            ExitStack() as threads,
            ExitStack() as self._polls,  # closed first: that ends the waits of threads that a failed test left
        ):
            threads.callback(self._collect_threads)
            yield

    @contextmanager
    def _known_or_not(self, request: pytest.FixtureRequest) -> Iterator[None]:
        """Expect the test to fail if its rule is known to; the last test of the rule sees to it that one did.

        They may run in several processes, of pytest-xdist. So each leaves a file, where all of them can look.
        """
        __tracebackhide__ = True
        rule = rule_of(self._test_name)
        reason = self.known_failures.get(rule or "")
        if rule is None or reason is None:
            yield
            return
        # Not strict: one test of a rule may pass. That one of them fails is seen to below.
        request.applymarker(pytest.mark.xfail(reason=reason, raises=RuleFailure, strict=False))
        place: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            place = place.parent
        own = request.node.nodeid
        tests = [item for item in request.session.items if _is_of(item, rule, own)]
        files = {item.nodeid: place / f"known-{hashlib.sha256(item.nodeid.encode()).hexdigest()}" for item in tests}
        are_all = self._are_all(request.config, rule, own, {getattr(item, "originalname", "") for item in tests})
        self._failed = False
        try:
            yield
        except RuleFailure:  # for what the test left behind
            self._failed = True
            raise
        finally:
            files[own].write_text("failed" if self._failed else "did not fail")
            if are_all and all(file.exists() and file.read_text() == "did not fail" for file in files.values()):
                raise UnexpectedPass(f"{rule} is listed as a known failure ({reason}), and none of its tests fails")

    def _are_all(self, config: pytest.Config, rule: str, own: str, chosen: Collection[str]) -> bool:
        """Tell whether all tests of a rule are run, and not only *chosen* ones, which may be those that do not fail."""
        left_out = config.pluginmanager.get_plugin(_LeftOut.NAME)
        return (
            chosen == {name for name in dir(self) if rule_of(name) == rule}
            and not any("::" in argument for argument in config.args)
            and not (left_out and any(_is_of(item, rule, own) for item in left_out.items))
        )

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Before the tests of a class are made, see that it can be tested, and watch which of them are left out."""
        problem = problem_of(type(self))
        if problem is not None:
            raise pytest.UsageError(problem)
        plugins = metafunc.config.pluginmanager
        if self.known_failures and not plugins.has_plugin(_LeftOut.NAME):
            plugins.register(_LeftOut(), _LeftOut.NAME)

    def _explaining(self, test: Callable[..., None]) -> Callable[..., None]:
        """Have *test* fail with a ``RuleFailure``, whatever it raises, and for an unasked event only the third time."""

        @functools.wraps(test)
        def explained(*args: object, **kwargs: object) -> None:
            tries = 3
            while True:
                try:
                    return test(*args, **kwargs)
                except RuleFailure as failure:
                    tries -= 1
                    if not (failure.unasked and tries):
                        self._failed = True
                        raise
                except (Exception, pytest.fail.Exception) as error:
                    self._failed = True
                    raise self.failure(*blame(pytest.ExceptionInfo.from_exception(error))) from error
                self._polls.close()
                self._collect_threads()
                self._sources.close()
                if isinstance(patch := kwargs.get("monkeypatch"), pytest.MonkeyPatch):
                    patch.undo()
                if isinstance(folder := kwargs.get("tmp_path"), Path):
                    kwargs["tmp_path"] = folder / "again"
                    (folder / "again").mkdir()
                kwargs |= {name: make() for name, make in self._makers.items() if name in kwargs}

        return explained

    def _made(self, name: str, make: Callable[[], T]) -> T:
        """Make what a fixture gives, and remember how, for another run of the test."""
        self._makers[name] = make
        return make()

    def _collect_threads(self) -> None:
        """Wait for the threads' ends, and raise what one raised and the test never asked for."""
        for running in self._threads:
            # A poll that was closed under a waiter is let go of by the waiter, so look for leaks only after it.
            running.thread.join(SIGNAL_WAIT)
            if not running.asked:
                try:
                    running.result()
                except PollClosedError:
                    pass  # by the end of the test
                except RuleFailure:
                    raise
                except Exception as error:
                    raise self.failure(*blame(pytest.ExceptionInfo.from_exception(error))) from error
        self._threads.clear()

    # -- polls ---------------------------------------------------------------------------------

    @pytest.fixture
    def poll(self) -> Poll[object]:
        """A poll on the backend under test, closed after the test."""
        return self._made("poll", self.make_poll)

    def make_poll(self) -> Poll[object]:
        """Make a poll on the backend under test that is closed after the test."""
        poll = self.new_poll()
        self._polls.callback(poll.close)
        return poll

    def new_poll(self) -> Poll[object]:
        """Make a poll that is the test's own to close, or to drop. All polls of the suite are made here."""
        return Poll(self.backend)

    # -- what stands on user space -------------------------------------------------------------

    channel: ClassVar[type[Channel[Any]]] = Channel
    timer: ClassVar[type[Timer[Any]]] = Timer
    signals: ClassVar[type[Signals]] = Signals
    event_loop: ClassVar[type[EventLoop[Any, Any, Any]]] = EventLoop
    """What makes them for the suite: as ``new_poll``, the one place where others can be tried."""

    # -- capabilities --------------------------------------------------------------------------

    def has(self, capability: Capability) -> bool:
        """Say whether the backend declares *capability*: for rules that say something in both cases."""
        return capability in self._capabilities()

    def needs(self, capability: Capability, *, refused: Callable[[], object] | None = None) -> None:
        """End a rule that means nothing without *capability*, by a skip that names it.

        Args:
            capability: What the rule is about.
            refused: The call that the backend must refuse with ``UnsupportedError`` if it does not declare
                *capability*. It is checked before the skip, so that hiding a capability is found, too.
        """
        __tracebackhide__ = True
        if self.has(capability):
            return
        if refused is not None:
            self.expect_error(UnsupportedError, refused)
        pytest.skip(f"{self.backend_name} does not declare {capability.name}" + (", and refuses it" if refused else ""))

    def _capabilities(self) -> Capability:
        if isinstance(self.backend, str):
            with self.new_poll() as poll:
                return poll.backend.capabilities
        return self.backend.capabilities

    @property
    def backend_name(self) -> str:
        """What messages call the backend."""
        return self.backend if isinstance(self.backend, str) else self.backend.name

    # -- expectations --------------------------------------------------------------------------

    def failure(
        self, expectation: str, observation: str, *, seed: str | None = None, script: str | None = None
    ) -> RuleFailure:
        """Make the failure of the running test. For *seed* and *script* see ``RuleFailure``."""
        return explain(self._test_name, self.backend_name, expectation, observation, seed=seed, script=script)

    def _unasked(self, expectation: str, observation: str) -> RuleFailure:
        failure = self.failure(expectation, observation)
        failure.unasked = True
        return failure

    def check(self, holds: bool, expectation: str, observation: object, *, unasked: bool = False) -> None:
        """Fail unless *holds*, with both said in words. See ``RuleFailure`` for *unasked*."""
        __tracebackhide__ = True
        if not holds:
            raise (self._unasked if unasked else self.failure)(expectation, str(observation))

    def expect_events(
        self,
        poll: Poll[object],
        expected: Mapping[Hashable, Collection[str]],
        *,
        also: Mapping[Hashable, Collection[str]] | None = None,
        max_events: int = 1024,
    ) -> list[Event[object]]:
        """Wait until every token of *expected* has reported all its bits, over as many waits as it takes.

        Bits are letters (``"rw"``: readable, writable, priority) or the names of an event's fields (``{"readable"}``).
        Tokens or promised bits that were not asked for are a failure; hints never are, since their rules look at
        the returned events.

        Args:
            poll: The poll.
            expected: What must come, by token.
            also: What may come besides, by token: a rule with several allowed outcomes names them here.
            max_events: Passed on to each wait.

        Returns:
            The events of all waits in their order.
        """
        __tracebackhide__ = True
        missing = {token: _names(bits) for token, bits in expected.items()}
        allowed = {token: set(bits) for token, bits in missing.items()}
        for token, bits in (also or {}).items():
            allowed.setdefault(token, set()).update(_names(bits))
        expectation = "events " + _spell(missing) + (f", perhaps {_spell(allowed)}" if also else "")
        batches: list[str] = []
        events: list[Event[object]] = []
        start = time.monotonic()
        while any(missing.values()):
            left = start + SIGNAL_WAIT - time.monotonic()
            if left <= 0:
                raise self.failure(
                    f"{expectation} within {SIGNAL_WAIT:g} s", f"missing {_spell(missing)}; {_tell(batches)}"
                )
            batch = poll.poll(left, max_events)
            batches.append(f"after {time.monotonic() - start:.3f} s {batch}")
            for event in batch:
                said = _said(event)
                if event.token not in allowed or said & _PROMISES - allowed[event.token]:
                    raise self._unasked(f"{expectation}, and nothing else", _tell(batches))
                missing.get(event.token, set()).difference_update(said)
            events += batch
        return events

    def expect_silence(self, poll: Poll[object], *, but: Collection[Hashable] = ()) -> None:
        """Watch for ``SILENCE`` seconds that nothing is reported, and that the wait rests meanwhile.

        Args:
            poll: The poll.
            but: Tokens that may be reported, such as that of a source which is always ready.
        """
        __tracebackhide__ = True
        expectation = f"no event for {SILENCE:g} s" + (f" but of {sorted(map(repr, but))}" if but else "")
        for seconds in SILENCE, *4 * [10 * SILENCE]:  # a busy machine may keep it from resting, but not each time
            rested = self._watch_silence(poll, seconds, but, expectation)
            if but or rested:
                return
        raise self.failure(f"{expectation}, at rest", f"no event, but {rested}: the wait spins")

    def _watch_silence(self, poll: Poll[object], seconds: float, but: Collection[Hashable], expectation: str) -> Rest:
        """Watch that nothing is reported; tell whether this thread rested meanwhile."""
        __tracebackhide__ = True
        start, rest, left = time.monotonic(), Rest(seconds), seconds
        while left > 0:  # at least once, however late this thread gets to run
            batch = poll.poll(left)
            if any(event.token not in but for event in batch):
                raise self._unasked(expectation, f"after {time.monotonic() - start:.3f} s {batch}")
            left = start + seconds - time.monotonic()
        return rest.over()

    def expect_error(self, kind: type[E], call: Callable[..., object], /, *args: object, **kwargs: object) -> E:
        """Call, and give the error of *kind* that it raises; any other outcome is a failure."""
        __tracebackhide__ = True
        spelled = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        expectation = f"{kind.__name__} from {getattr(call, '__qualname__', call)}({spelled})"
        try:
            returned = call(*args, **kwargs)
        except kind as error:
            return error
        except Exception as error:
            raise self.failure(expectation, f"{error!r}") from error
        raise self.failure(expectation, f"it returned {returned!r}")

    # -- threads, processes, signals -----------------------------------------------------------

    def in_thread(self, call: Callable[..., T], /, *args: object, **kwargs: object) -> Running[T]:
        """Run a call in a thread. Ask for its ``result()``: an error that nobody asked for fails the test."""
        running = Running(lambda: call(*args, **kwargs), f"the thread in {call.__qualname__}", self.failure)
        self._threads.append(running)
        return running

    def in_child(self, call: Callable[[], T]) -> T:
        """Run *call* in a forked child and give what it returned, which must be picklable.

        The child ends right after it: no fixture, finaliser or exit handler of the parent runs there. What
        it raises fails the test with the child's traceback.
        """
        __tracebackhide__ = True
        if sys.platform == "win32":
            pytest.skip("this platform has no fork")
        verdict, report = os.pipe()
        with warnings.catch_warnings():
            # 3.12 warns of forks while threads run, as they do under xdist. The child execs nothing and ends at once.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _report_and_exit(call, report)
        os.close(report)
        os.set_blocking(verdict, False)
        pieces = b""
        end = Descriptor(verdict)
        try:
            while ready(end, selectors.EVENT_READ, SIGNAL_WAIT):
                piece = end.read(CHUNK)
                pieces += piece
                if not piece:
                    break
            else:
                os.kill(child, signal.SIGKILL)
                raise self.failure("the forked child ends", f"it is still running after {SIGNAL_WAIT:g} s")
        finally:
            end.close()
            _, status = os.waitpid(child, 0)
        if not pieces:
            raise self.failure("the forked child reports", f"it died with status {os.waitstatus_to_exitcode(status)}")
        returned: T
        error, returned = pickle.loads(pieces)  # written by our own child
        if error is not None:
            raise self.failure("the forked child raises nothing", error)
        return returned

    def run_script(self, script: str, *args: str) -> str:
        """Run *script* in an interpreter of its own, warnings being errors, and give what it printed.

        The script finds the backend under test as ``backend``, its arguments in ``sys.argv[1:]``, and everything
        importable that is importable here. It has ``3 * SIGNAL_WAIT`` to end with status 0.
        """
        __tracebackhide__ = True
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)}
        command = [sys.executable, "-W", "error", "-c", f"{self._import_line()}\n{script}", *args]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=3 * SIGNAL_WAIT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise self.failure("the script ends", f"it is still running after {error.timeout:g} s") from None
        if done.returncode != 0:
            raise self.failure("the script ends with status 0", f"{done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _import_line(self) -> str:
        if isinstance(self.backend, str):
            return f"backend = {self.backend!r}"
        module, name = self.backend.__module__, self.backend.__qualname__
        assert "<locals>" not in name, f"scripts import the backend: {module}.{name} must not be inside a function"
        return f"from {module} import {name.partition('.')[0]}\nbackend = {name}"

    @contextmanager
    def on_signal(self, signum: signal.Signals, handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
        """Handle a signal meanwhile. Not ``SIGALRM``, by which a test that hangs is ended."""
        before = signal.signal(signum, handler)
        try:
            yield
        finally:
            signal.signal(signum, before)

    # -- sources: non-blocking, closed after the test --------------------------------------------

    def _keep(self, *ends: End) -> None:
        for end in ends:
            self._sources.callback(end.close)

    def listener(self) -> socket.socket:
        """A plain TCP listener on a port of 127.0.0.1 that the system chose."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        self._keep(listener)
        return listener

    def net_listener(self) -> net.TcpListener:
        """A ``polling.net`` listener on a port of 127.0.0.1 that the system chose."""
        listener = net.TcpListener.open(("127.0.0.1", 0))
        self._keep(listener)
        return listener

    def tcp_pair(self) -> tuple[socket.socket, socket.socket]:
        """Two plain connected TCP sockets, with small buffers."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname(), timeout=SIGNAL_WAIT)
            far, _ = listener.accept()
        for end in near, far:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
        self._keep(near, far)
        return near, far

    def net_tcp_pair(self) -> tuple[net.TcpStream, net.TcpStream]:
        """Two connected TCP streams of ``polling.net``."""
        near, far = map(net.TcpStream.adopt, self.tcp_pair())
        self._keep(near, far)
        return near, far

    def udp_pair(self) -> tuple[socket.socket, socket.socket]:
        """Two plain UDP sockets connected to each other."""
        near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._keep(near, far)
        for end in near, far:
            end.bind(("127.0.0.1", 0))
            end.setblocking(False)
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        return near, far

    def net_udp_pair(self) -> tuple[net.UdpSocket, net.UdpSocket]:
        """Two UDP sockets of ``polling.net`` connected to each other."""
        near, far = map(net.UdpSocket.adopt, self.udp_pair())
        self._keep(near, far)
        return near, far

    def socketpair(self) -> tuple[socket.socket, socket.socket]:
        """What ``socket.socketpair`` gives here: Unix sockets, or a TCP pair on Windows."""
        near, far = socket.socketpair()
        for end in near, far:
            end.setblocking(False)
        self._keep(near, far)
        return near, far

    def unix_pair(self) -> tuple[socket.socket, socket.socket]:
        """Two plain connected Unix stream sockets."""
        if sys.platform == "win32":
            pytest.skip("this platform has no pairs of Unix sockets")
        return self.socketpair()

    def net_unix_pair(self) -> tuple[net.UnixStream, net.UnixStream]:
        """Two connected Unix streams of ``polling.net``."""
        if sys.platform == "win32":
            pytest.skip("this platform has no pairs of Unix sockets")
        near, far = net.UnixStream.pair()
        self._keep(near, far)
        return near, far

    def pipe(self) -> tuple[Descriptor, Descriptor]:
        """A bare pipe: the end to read and the end to write. Needs ``Capability.PIPES``."""
        self.needs(Capability.PIPES)
        reader, writer = map(Descriptor, os.pipe())
        self._keep(reader, writer)
        return reader, writer

    def net_pipe(self) -> tuple[net.PipeReader, net.PipeWriter]:
        """A pipe of ``polling.net``. Needs ``Capability.PIPES``, but on Windows, where it is a pair of sockets."""
        if sys.platform != "win32":
            self.needs(Capability.PIPES)
        reader, writer = net.pipe()
        self._keep(reader, writer)
        return reader, writer

    def pty(self) -> tuple[Descriptor, Descriptor]:
        """A pseudo-terminal in raw mode: master and slave. Needs ``Capability.TTY``."""
        self.needs(Capability.TTY)
        if sys.platform == "win32":
            pytest.skip("this platform has no pseudo-terminals")
        import tty  # POSIX only

        numbers = os.openpty()
        tty.setraw(numbers[1])
        master, slave = map(Descriptor, numbers)
        self._keep(master, slave)
        return master, slave

    def _ends(self, kind: str) -> Ends:
        ends: Ends = getattr(self, _KINDS[kind])()
        return ends

    def _edge_ends(self, kind: str) -> Ends:
        if not kind.startswith("net-"):
            self.needs(Capability.NATIVE_EDGE)
        return self._ends(kind)

    @pytest.fixture(params=_KINDS)
    def pair(self, request: pytest.FixtureRequest) -> Ends:
        """``reader, writer`` of each kind of stream."""
        return self._made("pair", lambda: self._ends(request.param))

    @pytest.fixture(params=_DUPLEX)
    def duplex(self, request: pytest.FixtureRequest) -> tuple[socket.socket, socket.socket]:
        """``near, far`` of each kind of stream that carries both ways."""
        return self._made("duplex", lambda: _both_sockets(self._ends(request.param)))

    @pytest.fixture(params=_KINDS)
    def edge_pair(self, request: pytest.FixtureRequest) -> Ends:
        """``reader, writer`` of each kind of stream that the backend can watch in ``Mode.EDGE``."""
        return self._made("edge_pair", lambda: self._edge_ends(request.param))

    @pytest.fixture(params=_DUPLEX)
    def edge_duplex(self, request: pytest.FixtureRequest) -> tuple[socket.socket, socket.socket]:
        """``near, far`` of each kind that carries both ways and that the backend can watch in ``Mode.EDGE``."""
        return self._made("edge_duplex", lambda: _both_sockets(self._edge_ends(request.param)))


def _both_sockets(ends: Ends) -> tuple[socket.socket, socket.socket]:
    near, far = ends
    assert isinstance(near, socket.socket)
    assert isinstance(far, socket.socket)
    return near, far


def _report_and_exit(call: Callable[[], object], report: int) -> NoReturn:
    """Run a forked child's part: send ``(error, result)`` home, and end at once."""
    try:
        try:
            verdict = pickle.dumps((None, call()))
        except BaseException:  # the parent raises it
            verdict = pickle.dumps((traceback.format_exc(), None))
        while verdict:
            verdict = verdict[os.write(report, verdict) :]
    finally:
        os._exit(0)


def _names(bits: Collection[str]) -> set[str]:
    """Give field names for letters and names; a misspelt one is an error of the test."""
    names = {_LETTERS.get(bit, bit) for bit in bits}
    unknown = names - _LETTERS_AND_HINTS
    if unknown or not names:
        raise ValueError(f"not bits of an event: {bits!r}")
    return names


_LETTERS_AND_HINTS: Final = _PROMISES | {"error", "read_closed", "write_closed"}


def _said(event: Event[object]) -> set[str]:
    return {name for name in _LETTERS_AND_HINTS if getattr(event, name)}


def _spell(bits: Mapping[Hashable, Collection[str]]) -> str:
    return ", ".join(f"{token!r}: {' '.join(sorted(names))}" for token, names in bits.items() if names)


def _tell(batches: Sequence[str]) -> str:
    return f"{len(batches)} waits:\n  " + "\n  ".join([*batches[:10], *(["..."] if len(batches) > 10 else [])])

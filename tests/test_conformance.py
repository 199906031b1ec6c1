"""The conformance suite on every backend of ours that can run here: ``TestEpollBackend``, ``TestPollBackend``, ..."""

from __future__ import annotations

from polling import available_backends
from polling_conformance import BackendConformance

_ours = [backend for backend in available_backends().values() if backend.__module__.startswith("polling_backends.")]
if not _ours:
    raise RuntimeError("no backend of ours can run here, so nothing would be tested")

for _backend in _ours:
    _name = f"Test{_backend.__name__}"
    globals()[_name] = type(_name, (BackendConformance,), {"__module__": __name__, "backend": _backend})

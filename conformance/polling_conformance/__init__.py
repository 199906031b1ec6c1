"""The conformance kit: proof that a readiness backend keeps the contract of ``polling``.

A backend's author writes, in a module that pytest collects::

    from polling_conformance import BackendConformance
    from my_package import MyBackend

    class TestMyBackend(BackendConformance):
        backend = MyBackend

and runs pytest. Nothing else is needed: no plug-in, no mark, no ``conftest.py``. Or, without writing anything::

    polling-conformance my_package:MyBackend
"""

try:
    import hypothesis  # noqa: F401  (a part of the suite needs it; better missed here than there)
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"polling_conformance needs {error.name}: pip install 'polling-io[conformance]'", name=error.name
    ) from error

# pytest rewrites the asserts of test modules only. Without this line, which must come before the
# suite is imported, an assert that fails in a rule would say nothing but "AssertionError".
pytest.register_assert_rewrite("polling_conformance.ends", "polling_conformance.harness", "polling_conformance.suite")

from polling_conformance.suite import BackendConformance  # noqa: E402  (see above)

__all__ = ["BackendConformance"]

"""Settings that must hold before JAX is imported, for the tests and for the processes they start.

Four CPU devices, so that one device can be compared with four; runs use one unless a test says
otherwise. Programs run for milliseconds here and compile for seconds: the compiler is told to take
it easy, and what it made is kept for the session.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# One for all processes of the session; who has made it removes it.
_OWN = "" if "FEEDSEG_TESTS_CACHE" in os.environ else tempfile.mkdtemp(prefix="feedseg-tests-jax-")
_CACHE = os.environ.setdefault("FEEDSEG_TESTS_CACHE", _OWN)

os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
    )
).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a test's numbers must not depend on the machine
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_unconfigure() -> None:
    if _OWN:
        shutil.rmtree(_OWN, ignore_errors=True)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with the published data sets; a test that needs one is skipped without it."""
    folder = os.environ.get("FEEDSEG_DATA", "")
    if not folder:
        pytest.skip("FEEDSEG_DATA is not set: no published data set to read")
    return Path(folder)

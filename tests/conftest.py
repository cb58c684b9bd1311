"""For all tests: a slow machine is no failure of a property, and what a test logs can be told by another process."""

import sys
import tempfile
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def nothing_imported_stays() -> Iterator[None]:
    """Files of executors that a test wrote are gone from the path and the modules after it: names come again."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(tempfile.gettempdir()):
            del sys.modules[name]


def encodable(text: str) -> str:
    """The text with escapes for what is not valid Unicode: a worker's report is sent as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.sections = [(name, encodable(text)) for name, text in report.sections]
    if report.longrepr is not None and (told := str(report.longrepr)) != encodable(told):
        report.longrepr = encodable(told)
    return report

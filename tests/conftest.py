"""For all tests: a slow machine is no failure of a property, and what a test logs can be told by another process."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

from tests.postgres_cluster import ABSENT, Cluster, programs

OURS = str(Path(__file__).parent.parent)  # with its environments, also where the checkout lies below /tmp

# Whoever runs the tests with `nohup` ignores it, and a process inherits that: a server that is tested would, too.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

LONGEST_ID = 100  # characters of a parameter in a test's id


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long text, such as a token with a new key, is no name: each process that runs tests would have its own."""
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def nothing_imported_stays() -> Iterator[None]:
    """Files of executors that a test wrote are gone from the path and the modules after it: names come again."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(tempfile.gettempdir()) and not file.startswith(OURS):
            del sys.modules[name]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server of PostgreSQL, one for each process that runs tests."""
    cluster = Cluster()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def postgres_template(postgres: Cluster) -> str:
    """The name of a database with our schema, which others are made from."""
    name = postgres.database()
    storage = import_module("core.storage.postgres.storage").PostgresStorage(postgres.url(name))

    async def make() -> None:
        await storage.open()
        await storage.close()

    asyncio.run(make())
    return name


@pytest.fixture(scope="session")
def postgres_database(postgres: Cluster, postgres_template: str) -> str:
    """The name of a database with our schema, which tests use one after the other: a new one takes a second."""
    return postgres.database(postgres_template)


@pytest.fixture
def postgres_url(postgres: Cluster, postgres_database: str) -> Iterator[str]:
    """A database with our schema and no rows. A test that changes the schema makes one of its own."""
    yield postgres.url(postgres_database)
    postgres.empty(postgres_database)


def needs_postgres(item: pytest.Item) -> bool:
    """By its fixtures, or because it is the same test on PostgreSQL."""
    names = getattr(item, "fixturenames", ())
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(name.startswith("postgres") for name in names) or "postgres" in [
        each for each in given if type(each) is str
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where the machine has no programs of PostgreSQL, what needs them is left out, which the end tells in one line."""
    if programs() is None and (left_out := [item for item in items if needs_postgres(item)]):
        items[:] = [item for item in items if not needs_postgres(item)]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if programs() is None:
        terminalreporter.write_line(ABSENT)


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

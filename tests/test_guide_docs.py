"""The programs of docs/guide are run, and print what the guide says."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import default_registry

PAGES = {
    page.name: page.read_text("utf-8") for page in sorted((Path(__file__).parent.parent / "docs/guide").glob("*.md"))
}
MAX_PAGE_LINES = 200
# What each page is there to show: the smallest number of programs that it runs.
SHOWN = {
    "executors": 3,
    "trees": 3,
    "shaping": 4,
    "failing": 3,
    "questions": 1,
    "streaming": 2,
    "testing": 2,
    "service": 0,
}
# Each program with the page it stands on and the output below it.
PROGRAMS = [
    pytest.param(match["code"], match["output"], id=f"{name} line {text.count(chr(10), 0, match.start()) + 1}")
    for name, text in PAGES.items()
    for match in re.finditer(
        r"^```python\n(?P<code>.*?)^```\n\n```text\n(?P<output>.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
]


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    """Each program finds the registry as a new process would."""
    known = set(default_registry.ids())
    yield
    default_registry.hooks.clear()
    for executor_id in set(default_registry.ids()) - known:
        default_registry.unregister(executor_id)


@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_program_prints_what_the_guide_says(
    code: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(compile(code, "guide.md", "exec"), {"__name__": "__main__"})

    assert printed.getvalue() == output


def test_every_program_may_be_loaded_without_running() -> None:
    """`isolation="process"` loads the file again; a reader may add that to any of them."""
    guarded = 'if __name__ == "__main__":\n    asyncio.run(main())'

    assert sum(text.count(guarded) for text in PAGES.values()) == len(PROGRAMS)


def test_every_program_is_run() -> None:
    """A program without the block of its output would be shown and never run."""
    assert len(PROGRAMS) == sum(text.count("```python") for text in PAGES.values())


def test_every_page_shows_what_it_is_for() -> None:
    assert {name.removesuffix(".md"): text.count("```python") for name, text in PAGES.items()}.keys() == SHOWN.keys()
    assert {name: least for name, least in SHOWN.items() if PAGES[f"{name}.md"].count("```python") < least} == {}


@pytest.mark.parametrize("page", PAGES)
def test_page_is_short(page: str) -> None:
    assert len(PAGES[page].splitlines()) < MAX_PAGE_LINES


def test_every_function_that_the_test_page_writes_is_called() -> None:
    """Its `main` stands for pytest: a test that it forgets would be shown and never run."""
    text = PAGES["testing.md"]

    written = re.findall(r"async def (test_\w+)\(", text)

    assert len(written) >= 6
    assert [name for name in written if f"await {name}()" not in text] == []

"""The programs of docs/guide.md are run, and print what the guide says."""

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import default_registry

GUIDE = (Path(__file__).parent.parent / "docs" / "guide.md").read_text("utf-8")
# Each program with the section it stands in and the output below it.
PROGRAMS = [
    pytest.param(match["code"], match["output"], id=f"line {GUIDE.count(chr(10), 0, match.start()) + 1}")
    for match in re.finditer(
        r"^```python\n(?P<code>.*?)^```\n\n```text\n(?P<output>.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL
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
    assert GUIDE.count('if __name__ == "__main__":\n    asyncio.run(main())') == len(PROGRAMS)


def test_every_program_is_run() -> None:
    assert len(PROGRAMS) == GUIDE.count("```python") >= 12


def test_links_within_the_guide_lead_to_its_sections() -> None:
    sections = {
        re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^###? (.+)$", GUIDE, re.M)
    }

    assert set(re.findall(r"\]\(#([a-z-]+)\)", GUIDE)) <= sections

"""Writes docs/settings.md from the settings' classes: each with its default and the comment beside it."""

import ast
import inspect
import io
import sys
import tokenize
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from a2a_server.auth.settings import AuthSettings  # noqa: E402
from a2a_server.cli.serve import serve  # noqa: E402
from a2a_server.config import OPTIONS, PREFIX, Config  # noqa: E402
from a2a_server.push.settings import PushSettings  # noqa: E402

DOCUMENT = ROOT / "docs" / "settings.md"
GROUPS: dict[str, type] = {"The server": Config, "Who may call": AuthSettings, "Push notifications": PushSettings}
OF_THE_MACHINE = {"max_processes": "4 for each processor"}

HEAD = f"""# Settings

Every setting of `a2a-server serve`. Set it in `a2a-server.toml` (`port = 9000`), as an environment variable with the
prefix `{PREFIX}` (`{PREFIX}PORT=9000`; lists are separated by commas), or, where there is one, by the
option in the second column. Options win over variables, and variables over the file. `a2a-server config` prints the
values in force. Times are in seconds.
`scripts/settings_page.py` makes this page.
"""


def document() -> str:
    """The page."""
    lines = [HEAD]
    options = inspect.signature(serve).parameters
    defaults = msgspec.structs.asdict(Config())
    for title, kind in GROUPS.items():
        lines += [f"## {title}", "", "| setting | option | default | means |", "|---|---|---|---|"]
        for name, comment in comments_of(kind).items():
            option = _option(name) if name in options else ""
            default = OF_THE_MACHINE.get(name) or _written(defaults[name])
            lines.append(f"| `{name}` | {option} | {default} | {comment.replace('|', chr(92) + '|')} |")
        lines.append("")
    return "\n".join(lines)


def _option(name: str) -> str:
    """The option of `a2a-server serve` for a setting. Executors have none: they are the command's arguments."""
    return "FILES" if name == "executors" else f"`{OPTIONS.get(name) or '--' + name.replace('_', '-')}`"


def comments_of(kind: type) -> dict[str, str]:
    """Each setting that the class itself has, with the comment on its lines, else the one above it.

    Raises ValueError for a setting without a comment.
    """
    text = inspect.getsource(kind)
    source = text.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    (found,) = ast.parse(text).body
    assert isinstance(found, ast.ClassDef)
    told: dict[str, str] = {}
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            own = [comments[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in comments]
            told[node.target.id] = " ".join(own or _above(node.lineno - 1, source, comments))
            if not told[node.target.id]:
                raise ValueError(f"the setting {node.target.id} has no comment that says what it means")
    return told


def _above(line: int, source: list[str], comments: dict[int, str]) -> list[str]:
    """The comment lines above this line, and above settings between that have no comment of their own."""
    while source[line - 1].strip() and line not in comments:
        line -= 1
    above: list[str] = []
    while source[line - 1].lstrip().startswith("#"):
        above.insert(0, comments[line])
        line -= 1
    return above


def _written(value: Any) -> str:
    return "none" if value in (None, (), {}, "") else f"`{msgspec.json.encode(value).decode().strip(chr(34))}`"


def main() -> int:
    """Write the page; with `--check` say whether it is current."""
    if "--check" in sys.argv[1:]:
        if DOCUMENT.exists() and DOCUMENT.read_text("utf-8") == document():
            return 0
        print(f"{DOCUMENT} is not what the settings' classes say: run scripts/settings_page.py", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

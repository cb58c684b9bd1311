"""Rules for prose and citations that a machine can hold, for `tests/test_prose.py` and `scripts/house`."""

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAX_LINE = 120  # characters of a line of prose
OWN = frozenset({"tests/prose.py", "tests/test_prose.py"})  # they name what is forbidden

CITING = ("core/", "a2a_server/", "docs/", "scripts/", "examples/", "tests/", "benchmarks/")
_MAN = re.compile(r"(?<![^\W_])(?:he|his|him|himself)(?![^\W_])", re.IGNORECASE)  # in names of functions too
_LINK_ALONE = re.compile(r"^\s*(?:[-*] )?(?:<?https?://\S+|!?\[[^]]*\]\([^)]*\))[.,:;]?$")
# The house's old words -> the field's.
OLD_WORDS = {
    re.compile(r"turnstile", re.IGNORECASE): "load shedder",
    re.compile(r"witness", re.IGNORECASE): "commit marker",
    re.compile(r"vault", re.IGNORECASE): "secret box",
    re.compile(r"\bPatience\b"): "RetryPolicy",
    re.compile(r"\bStanding\b(?=[\w(\]|,)])"): "DeliveryState",
    re.compile(r"\bSTANDING\b"): "DELIVERY_STATE",
    re.compile(r"\bTeller\b"): "Payloads",
    re.compile(r"turn(?:s|ed|ing)?[ _]?away", re.IGNORECASE): "reject, refuse or RetryLater",
    re.compile(r"(?<![^\W_])doors?(?![^\W_])", re.IGNORECASE): "endpoint or binding",
    re.compile(r"(?<!GRINNING )(?<![^\W_])faces?(?![^\W_])", re.IGNORECASE): "endpoint, binding or API",
}
# Phrases that readers stumble over -> what to write: in pages and in what the program itself says or explains.
WORDY = {
    re.compile(r"\b(?:is|are|was|be) told of\b"): "gets, reads, hears",
    re.compile(r"\bby now\b"): "now, already",
    re.compile(r"\bin hand\b"): "in flight, waiting",
    re.compile(r"\bto be had\b"): "available",
    re.compile(r"\bsave (?:for|to|where|when|that|in)\b"): "except",
    re.compile(r"\b(?:[Aa]nd|[Oo]r|[,;:.]|^)\s*[Ww]ho (?:asks|names|is|has|comes|calls|waits)\b"): "a caller that",
}
# In pages these as well. Links are left out: their words are names of tests.
PAGES_ONLY = {
    re.compile(r"\bnobody\b", re.IGNORECASE): "no caller, no reader, no one",
    re.compile(r"\bso (?:many|much|long) (?!as\b)"): "the number, or this many",
}
_LINK = re.compile(r"\[[^]]*\]\([^)]*\)")
# Resuming is no taking up; the page of a decision may still say what takes up room or time.
TAKE_UP = re.compile(r"\b(?:take|takes|taken|took|taking)\b(?: (?:it|them|this|these|\w+ stream))? up\b(?! to\b)", re.I)
_SECTION = r"§(\d+)"
_SEMANTICS = re.compile(r"\bsemantics(?:\.md)?`?,?\s+(?:#\s+)?(§\d+(?:(?:,? and |, )§\d+)*)")
_NO_SECTION = re.compile(r"\bsemantics(?:\.md)?`?,\s+(?:#\s+)?[\"“\d]")
_NUMBERED = re.compile(r"\b[GRT]\d{1,2}\b")
_ELSEWHERE = re.compile(
    r"\b(?:(?:design|style|faults|peers|engine|durable|scale-out)\.md\b|issues? #?\d+|guide(?:\.md)?`?,? \")"
)


@cache
def tracked() -> tuple[str, ...]:
    """Paths of the repository's text files, as git knows them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for path in listed.splitlines() if (ROOT / path).is_file() and is_text(path))


def is_text(path: str) -> bool:
    return Path(path).suffix in {"", ".json", ".md", ".py", ".sh", ".toml", ".yaml", ".yml"}


def is_page(path: str) -> bool:
    return path.endswith(".md")


def numbered(text: str) -> Iterator[tuple[int, str]]:
    return enumerate(text.splitlines(), 1)


def callers_are_no_men(path: str, text: str) -> Iterator[str]:
    if path.startswith(CITING) or is_page(path):
        for number, line in numbered(text):
            yield from (f"{number}: {found[0]!r} for a caller" for found in _MAN.finditer(line))


def lines_are_short(path: str, text: str) -> Iterator[str]:
    """Tables, code in fences, and lines that are one link may be longer."""
    is_code = False
    for number, line in numbered(text) if is_page(path) else ():
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        elif len(line) > MAX_LINE and not (is_code or line.lstrip().startswith("|") or _LINK_ALONE.match(line)):
            yield f"{number}: a line of {len(line)} characters"


def old_words_are_gone(path: str, text: str) -> Iterator[str]:
    for number, line in numbered(text) if path.startswith(CITING) or is_page(path) else ():
        for pattern, word in OLD_WORDS.items():
            yield from (f"{number}: {found[0]!r} is now {word}" for found in pattern.finditer(line))
        if is_page(path) or path.startswith("tests/"):
            words = line.replace("_", " ") if "def test_" in line else line
            yield from (f"{number}: {found[0]!r}: say resume" for found in TAKE_UP.finditer(words))


def prose_is_plain(path: str, text: str) -> Iterator[str]:
    phrases = WORDY | PAGES_ONLY if is_page(path) else WORDY
    for number, line in numbered(text) if is_page(path) or path.startswith(("core/", "a2a_server/")) else ():
        plain = _LINK.sub("", line) if is_page(path) else line
        for pattern, words in phrases.items():
            yield from (f"{number}: {found[0]!r}: say {words}" for found in pattern.finditer(plain))


@cache
def sections() -> frozenset[str]:
    """Numbers of the headings of docs/semantics.md."""
    text = (ROOT / "docs" / "semantics.md").read_text("utf-8")
    return frozenset(re.findall(r"^## (\d+)\. ", text, re.MULTILINE))


@cache
def reliability_ids() -> frozenset[str]:
    """Ids that docs/reliability.md explains: rows of the tables above the one with the figures."""
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    return frozenset(re.findall(r"^\| ([GRT]\d+) \|", text.partition("## What was measured")[0], re.MULTILINE))


def citations_lead_somewhere(path: str, text: str) -> Iterator[str]:
    if not (path.startswith(CITING) or is_page(path)):
        return

    def at(found: re.Match[str]) -> int:
        return text.count("\n", 0, found.start()) + 1

    for found in _SEMANTICS.finditer(text):
        yield from (
            f"{at(found)}: semantics §{number} does not exist"
            for number in re.findall(_SECTION, found[1])
            if number not in sections()
        )
    if path == "docs/semantics.md":
        for found in re.finditer(_SECTION, text):
            if found[1] not in sections():
                yield f"{at(found)}: §{found[1]} does not exist"
    yield from (f"{at(found)}: semantics is cited by section, as §n" for found in _NO_SECTION.finditer(text))
    for found in _NUMBERED.finditer(text) if path.endswith((".md", ".py")) or path.startswith("scripts/") else ():
        if found[0] not in reliability_ids():
            yield f"{at(found)}: {found[0]} is not in docs/reliability.md"
    for found in _ELSEWHERE.finditer(text):
        yield f"{at(found)}: {found[0]!r} is not in this repository"


Rule = Callable[[str, str], Iterator[str]]
RULES: tuple[Rule, ...] = (callers_are_no_men, lines_are_short, old_words_are_gone, prose_is_plain)


def _broken(*rules: Rule) -> Iterator[str]:
    for path in tracked():
        if path not in OWN:
            text = (ROOT / path).read_text("utf-8")
            yield from (f"{path}:{what}" for rule in rules for what in rule(path, text))


def broken_rules() -> Iterator[str]:
    """Breaches of the rules for prose, each as `path:line: what`."""
    yield from _broken(*RULES)


def dangling_citations() -> Iterator[str]:
    """Citations of what is not in this repository, each as `path:line: what`."""
    yield from _broken(citations_lead_somewhere)

"""The rules for prose hold in every tracked file, and each of them is shown to be able to fail."""

import pytest

from tests.prose import (
    MAX_LINE,
    RULES,
    Rule,
    broken_rules,
    callers_are_no_men,
    citations_lead_somewhere,
    dangling_citations,
    lines_are_short,
    old_words_are_gone,
    prose_is_plain,
    reliability_ids,
    sections,
)

LONG = "word " * (MAX_LINE // 5) + "words"


def test_rules_hold_in_every_file() -> None:
    assert not (broken := list(broken_rules())), "\n".join(broken)


def test_every_citation_leads_somewhere() -> None:
    assert not (dangling := list(dangling_citations())), "\n".join(dangling)


BAD: tuple[tuple[Rule, str, str], ...] = (
    (callers_are_no_men, "core/model/task.py", '"""What he sees."""'),
    (callers_are_no_men, "docs/callers.md", "A caller and\nhis tasks."),
    (callers_are_no_men, "SECURITY.md", "Tell Him."),
    (callers_are_no_men, "examples/demo.py", "# he wrote it himself"),
    (callers_are_no_men, "tests/a.py", "def test_who_comes_gets_his_answer() -> None:"),
    (lines_are_short, "docs/callers.md", LONG),
    (lines_are_short, "docs/callers.md", f"```\ncode\n```\n{LONG}"),
    (lines_are_short, "README.md", f"- {LONG}"),
    (old_words_are_gone, "core/a.py", "class Turnstile: ..."),
    (old_words_are_gone, "core/a.py", "witness_path(file)"),
    (old_words_are_gone, "tests/a.py", "a vault = 1"),
    (old_words_are_gone, "a2a_server/a.py", "Patience(initial=1)"),
    (old_words_are_gone, "tests/a.py", "type=Standing)"),
    (old_words_are_gone, "docs/a.md", "The Teller tells."),
    (old_words_are_gone, "a2a_server/a.py", "DocumentQuery(kind=STANDING)"),
    (old_words_are_gone, "a2a_server/a.py", "class TurnedAway(A2AError): ..."),
    (old_words_are_gone, "tests/a.py", "load.turn_away(object())"),
    (old_words_are_gone, "docs/a.md", "The rest is turned away."),
    (old_words_are_gone, "docs/a.md", "The next process takes it up."),
    (old_words_are_gone, "tests/a.py", "async def test_a_broken_stream_is_taken_up() -> None:"),
    (old_words_are_gone, "tests/a.py", "await door_of(call).handle(body)"),
    (old_words_are_gone, "core/a.py", '"""What a face asks of it."""'),
    (prose_is_plain, "docs/a.md", "Nobody else gets it."),
    (prose_is_plain, "docs/a.md", "A webhook is told of a cancel."),
    (prose_is_plain, "SECURITY.md", "It may be gone by now."),
    (prose_is_plain, "core/a.py", "# its number may belong to another by now"),
    (prose_is_plain, "a2a_server/a.py", 'raise Bad("missed events are still to be had")'),
    (prose_is_plain, "docs/a.md", "While 512 calls are in hand"),
    (prose_is_plain, "docs/a.md", "Missed events are still to be had."),
    (prose_is_plain, "docs/a.md", "Every request, save for the card"),
    (prose_is_plain, "docs/a.md", "when so many calls want something"),
    (prose_is_plain, "CHANGELOG.md", "In a flood, who asks again gets what others leave"),
    (citations_lead_somewhere, "core/a.py", "# (semantics §99)"),
    (citations_lead_somewhere, "core/a.py", "# (semantics §1, §98)"),
    (citations_lead_somewhere, "core/a.py", "# (semantics\n    # §98)"),
    (citations_lead_somewhere, "core/a.py", '# (semantics, "on")'),
    (citations_lead_somewhere, "core/a.py", "# docs/semantics.md, 1"),
    (citations_lead_somewhere, "docs/semantics.md", "as §98 says"),
    (citations_lead_somewhere, "tests/a.py", "# promise G13"),
    (citations_lead_somewhere, "docs/a.md", "the test R28"),
    (citations_lead_somewhere, "tests/a.py", "# threat T99"),
    (citations_lead_somewhere, "tests/a.py", '"""(issue 2)."""'),
    (citations_lead_somewhere, "tests/a.py", "# see design.md"),
    (citations_lead_somewhere, "core/a.py", "# style.md 17"),
    (citations_lead_somewhere, "core/a.py", "# faults.md"),
    (citations_lead_somewhere, "core/a.py", '# (guide, "Key Components")'),
)


@pytest.mark.parametrize(("rule", "path", "text"), BAD)
def test_rule_can_fail(rule: Rule, path: str, text: str) -> None:
    assert list(rule(path, text))


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _, _ in BAD} == {*RULES, citations_lead_somewhere}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/a.md", f"| {LONG} |"),
        ("docs/a.md", f"```\n{LONG}\n```"),
        ("docs/a.md", f"https://example.org/{'a' * MAX_LINE}"),
        ("docs/a.md", f"- [some words](https://example.org/{'a' * MAX_LINE})"),
        ("docs/a.md", "The whole history of this; semantics §1 and §10, RFC 9110 §15.5.6, G1, R27, T26."),
        ("docs/a.md", "It takes up to 5 ms."),
        ("docs/a.md", "A task is told; a document, so long as it is kept; one who asks."),
        ("docs/limits.md", "| [only so many are told and nobody waits](../tests/a.py) |"),
        ("core/a.py", "nobody; the surface; an indoor interface; here"),
        ("tests/a.py", "# HTTP semantics, and what the machine said"),
    ],
)
def test_what_is_allowed_passes(path: str, text: str) -> None:
    assert [what for rule in (*RULES, citations_lead_somewhere) for what in rule(path, text)] == []


def test_promises_and_fault_tests_have_no_holes() -> None:
    assert {f"G{n}" for n in range(1, 13)} | {f"R{n}" for n in range(1, 28)} <= reliability_ids()
    assert sections() == {str(n) for n in range(1, len(sections()) + 1)}

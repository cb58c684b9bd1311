"""What the scripts and CI install is fixed to the byte, and fits what pyproject.toml allows."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
JS_LOCKS = sorted((ROOT / "locks").glob("js-*/package-lock.json"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def locked(text: str) -> dict[str, tuple[str, int]]:
    """Name -> its version and how many hashes it has; versions beside the first are under the name and their condition.

    Raises AssertionError for a line that is neither a version nor a hash.
    """
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in text.splitlines():
        if pin := re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[a-z,0-9-]+\])?==([^ ;]+)( ; [^\\]+?)?(?: \\)?", line):
            name = canonicalize_name(pin[1])
            if name in found and pin[3]:
                name += pin[3]
            assert name not in found, f"{name} stands twice"
            found[name] = (pin[2], 0)
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
            found[name] = (found[name][0], found[name][1] + 1)
    return found


def misfits(requirements: list[str], lock: dict[str, tuple[str, int]]) -> list[str]:
    """The requirements that the lock does not fulfil."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(each)
        for each in wanted
        if (pin := lock.get(canonicalize_name(each.name))) is None or Version(pin[0]) not in each.specifier
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_locked_package_has_hashes(path: Path) -> None:
    lock = locked(path.read_text("utf-8"))
    assert lock and [name for name, (_, hashes) in lock.items() if not hashes] == []


@pytest.mark.parametrize("path", JS_LOCKS, ids=lambda path: path.parent.name)
def test_every_package_of_a_javascript_client_has_its_hash_and_no_address(path: Path) -> None:
    packages = json.loads(path.read_text("utf-8"))["packages"]
    assert [name for name, package in packages.items() if name and not package.get("integrity")] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []


@pytest.mark.parametrize("kind", ["run", "dev"])
def test_the_lock_fulfils_pyproject(kind: str) -> None:
    """A floor that was raised without `scripts/lock` fails here, not on the next new machine."""
    requirements = PROJECT["dependencies"] + (PROJECT["optional-dependencies"]["dev"] if kind == "dev" else [])
    assert misfits(requirements, locked((ROOT / "locks" / f"{kind}.txt").read_text("utf-8"))) == []


def test_a_requirement_that_is_not_locked_is_found() -> None:
    lock = {"a": ("1.5", 1)}
    assert misfits(["a>=1", "A>=2", "b"], lock) == ["A>=2", "b"]


def test_a_server_runs_with_what_the_tests_ran_with() -> None:
    run, dev = (locked((ROOT / "locks" / f"{kind}.txt").read_text("utf-8")) for kind in ("run", "dev"))
    assert {name: pin for name, pin in run.items() if dev.get(name) != pin} == {}


@pytest.mark.parametrize(
    "text", ["a>=1 \\\n    --hash=sha256:" + "0" * 64, "a==1 \\\n    --hash=md5:0", "-e .", "--index-url https://x"]
)
def test_what_is_no_pin_with_a_hash_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        locked(text)

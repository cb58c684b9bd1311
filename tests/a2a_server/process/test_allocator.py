"""Large pieces of memory are given back when they are free."""

import subprocess
import sys
from pathlib import Path

import pytest

from a2a_server.process.allocator import LARGE, give_large_back

PROGRAM = f"""
import sys
from a2a_server.process.allocator import give_large_back

def taken():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "given":
    give_large_back()
bytearray(30 * {LARGE})[0]  # glibc's own threshold rises with the pieces that are freed
before = taken()
held = []
for _ in range(20):
    large = bytearray(2 * {LARGE})
    held.append(bytearray(100_000))  # lies behind it in the heap, so that the heap cannot shrink
del large
print(taken() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux says of a process")
def test_large_pieces_are_given_back() -> None:
    taken = [
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True).stdout)
        for how in ("given", "kept")
    ]
    assert taken[0] < 3 * LARGE
    assert taken[0] <= taken[1]


def test_system_without_such_a_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    give_large_back()

"""The second step of `scripts/mutation`: what was not killed is tried once more, in a process of its own; this counts.

mutmut changes a program that has been imported and has run the tests once: what is done at an import, or kept, is not
done again. So what was not killed, or took so long that a test may have waited in vain, runs once more, with the slow
tests and four times the time.
"""

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import partial

from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

KILLED, OUT_OF_TIME = 1, 36


def again(name: str, command: list[str]) -> int:
    """The exit code of the tests with this mutant, as mutmut counts them; of none, where the name is empty."""
    environment = {**os.environ, "MUTANT_UNDER_TEST": name}
    run = subprocess.run(
        command, cwd="mutants", env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return 0 if run.returncode == 0 else OUT_OF_TIME if "Timeout (" in run.stderr else KILLED


def left(data: SourceFileMutationData, names: list[str], seconds: float) -> list[str]:
    """The mutants of one module that are to be tried once more, of those that were asked for."""
    return [
        name
        for name, code in data.exit_code_by_key.items()
        if (not names or any(fnmatchcase(name, asked) for asked in names))
        and code is not None
        and (status_by_exit_code[code] != "killed" or data.durations_by_key.get(name, 0) >= seconds)
    ]


def main() -> None:
    wait_seconds, tests, options, *arguments = sys.argv[1:]
    patience = f"faulthandler_timeout={4 * int(wait_seconds)}"
    command = [sys.executable, "-m", "pytest", "-x", "-q", *options.split(), "-o", patience, *tests.split()]
    if again("", command) != 0:
        sys.exit("the tests fail without a mutant, so they tell nothing")
    total: Counter[str] = Counter()
    rows = []
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        names = left(data, [each for each in arguments if "." in each], float(wait_seconds))
        with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
            for name, code in zip(names, pool.map(partial(again, command=command), names), strict=True):
                data.exit_code_by_key[name] = code
                data.durations_by_key[name] = 0
                data.save()
        count = Counter(status_by_exit_code[code] for code in data.exit_code_by_key.values() if code is not None)
        total += count
        rows.append((str(path), count))
    for title, count in [*rows, ("all", total)]:
        if count:
            told = (f"{number} {status}" for status, number in count.most_common())
            print(f"{title}: {count.total()} mutants", *told, sep=", ")


if __name__ == "__main__":
    main()

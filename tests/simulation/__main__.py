"""`scripts/simulate`: many seeds, or one again."""

import argparse
import sys
import time

from tests.simulation.run import silence, simulate
from tests.simulation.soak import soak, told
from tests.simulation.world import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds to play")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--hours", type=float, default=0.05, help="virtual hours of callers and faults in each")
    parser.add_argument("--soak", action="store_true", help="one long life of many trees, and nothing left in the end")
    parser.add_argument("--rate", type=float, default=1.0, help="trees a virtual second of a soak")
    options = parser.parse_args()
    silence()
    if options.soak:
        return _soak(options.first, options.seeds, options.hours, options.rate)
    started = time.perf_counter()
    events = lives = trees = calls = dropped = compacted = 0
    for seed in range(options.first, options.first + options.seeds):
        try:
            world = simulate(seed, hours=options.hours)
        except Violation as violation:
            print(f"seed={seed} hours={options.hours:g} FAILED: {violation}")
            return 1
        lives += world.life
        trees += len(world.storage.trees_stored()) + world.deleted
        events += world.events
        calls += world.ledger.sent
        dropped += world.dropped
        compacted += world.compacted
        if options.seeds == 1:
            print(f"trace {world.trace.hexdigest()}")
    seconds = time.perf_counter() - started
    print(
        f"{options.seeds} seeds from {options.first}, {options.hours:g} virtual hours each: no violation. "
        f"{trees} trees ({dropped} removed by retention), {events} events, {compacted} parts of logs compacted, "
        f"{calls} calls of webhooks, {lives} lives of a server, in {seconds:.1f} s"
    )
    return 0


def _soak(first: int, seeds: int, hours: float, rate: float) -> int:
    for seed in range(first, first + seeds):
        started = time.perf_counter()
        try:
            world, probe = soak(seed, hours=hours, rate=rate)
        except Violation as violation:
            print(f"seed={seed} hours={hours:g} FAILED: {violation}")
            return 1
        seconds = time.perf_counter() - started
        print(f"seed {seed}, {hours:g} virtual hours in {seconds:.0f} s: {told(world, probe)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

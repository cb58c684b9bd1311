"""A clock that tests set."""


class SetClock:
    """Stands still until it is moved. `ahead`: seconds by which the machine's clock differs from the process's time."""

    def __init__(self, now: float = 1_800_000_000.0, ahead: float = 0.0) -> None:
        self.time = now
        self.ahead = ahead
        self._ids = 0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time + self.ahead

    def new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids:04d}"

    def chance(self) -> float:
        return 0.0

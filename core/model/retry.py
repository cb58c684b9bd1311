"""When a failed attempt is tried again. Pure: the randomness comes in as a number.

Deliveries to webhooks have a policy of their own, with full jitter: `a2a_server.push.deliveries.DeliveryRetry`.
"""

from typing import Annotated

from msgspec import Meta, Struct

PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400 * 365)]


class RetryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Exponential backoff with jitter between the attempts of one task. All times are seconds.

    `jitter` is the share of each delay that is random: 0 waits the full delay, 1 waits anything
    between nothing and the full delay.
    """

    initial: PositiveSeconds = 1.0
    factor: Annotated[float, Meta(ge=1, le=100)] = 2.0
    maximum: PositiveSeconds = 300.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.5

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after the `failures`-th failed attempt; `chance` is uniform in [0, 1)."""
        try:
            full = min(self.maximum, self.initial * float(self.factor) ** (failures - 1))
        except OverflowError:
            full = self.maximum
        return full * (1 - self.jitter * chance)

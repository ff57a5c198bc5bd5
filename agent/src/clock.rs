//! CLOCK_BOOTTIME: the clock of leases. It goes on while the machine sleeps, and nobody sets it.

use crate::decide::Ms;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> Ms {
    let time = clock_gettime(ClockId::Boottime);
    // Both are never negative on this clock.
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

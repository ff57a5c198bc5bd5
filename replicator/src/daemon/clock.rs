//! The node's clock. It goes on while the machine sleeps: a Primary that was suspended must notice
//! when it wakes (ROLE-5), and the usual monotonic clock would not tell.

use crate::node::Time;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(super) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    Time(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

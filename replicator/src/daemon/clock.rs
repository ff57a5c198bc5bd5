//! The node's clock. It goes on while the machine sleeps: a Primary that was suspended must notice
//! when it wakes (ROLE-5), and the usual monotonic clock would not tell.

use crate::node::Time;

/// Now.
pub(super) fn now() -> Time {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes for the duration of the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert_eq!(result, 0, "CLOCK_BOOTTIME is in every Linux since 2.6.39");
    Time(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

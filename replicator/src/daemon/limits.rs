//! Every bound of the daemon in one place. The node's own are in `config::Limits`, those of engines,
//! links and front ends beside their code.

use std::time::Duration;

/// Requests that wait for their turn because the node holds `config::Limits::requests` already.
/// Front ends stop reading from their clients long before.
pub const QUEUED_REQUESTS: usize = 16_384;

/// Handlers that run at a time, of those whose exit code nobody waits for.
pub const HANDLERS: usize = 16;

/// Operators' orders that wait for the owner; further callers wait.
pub const QUEUED_ORDERS: usize = 64;

/// Events handled in one turn of the loop before others on the thread (the front ends) get theirs.
pub const EVENTS_PER_TURN: usize = 512;

/// Connections to the control socket; more wait in the kernel's queue.
pub const CONTROL_CONNECTIONS: usize = 64;

/// Bytes of a command on the control socket.
pub const CONTROL_BODY: usize = 16 << 10;

/// How often a wait on the control socket looks again.
pub const WAIT_STEP: Duration = Duration::from_millis(20);

/// How long an attach waits for a disk that no other daemon has to become free.
pub const DISK_FREE: Duration = Duration::from_secs(2);

/// Unused payload memory that is kept for the next requests, in bytes.
pub const IDLE_MEMORY: usize = 64 << 20;

/// How long the owner looks for more before it sleeps: what a small write takes on its way through
/// both nodes when nobody is awake. Shorter, it would rarely see the answer.
pub const SPIN: Duration = Duration::from_micros(100);

/// The same while something is made stable, here or at a peer: what a fast disk takes. What takes longer is rarely waited for so.
pub const SPIN_STABLE: Duration = Duration::from_micros(500);

/// Spins in a row without use after which they become no rarer: then one in 64 sleeps is preceded
/// by one.
pub const SPIN_FAILURES: u32 = 6;

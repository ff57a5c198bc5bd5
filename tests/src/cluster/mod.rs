//! Several hosts simulated on this machine, for cluster managers of other people: what the tests in `tests/cluster_*.rs` are told with.
//!
//! Reading order: [`lab`] (the hosts' common surroundings: switch, cables, power), [`host`] (one host: what runs there, its files,
//! its power), [`processes`] (all processes of a host: killed, stopped), [`power`] (a power switch that fencing programs inside of a host
//! can reach), [`product`] (Pollux installed in a host, and what it says there), [`records`] (a small server that makes records durable, and
//! its client: nothing acknowledged may be lost), [`pair`] (two nodes, a client, a power switch), [`stage`] (a pair under any cluster manager:
//! faults, and what must be so after each), [`stack`] (a whole page of the cookbook under Heartbeat).
//!
//! A host is a set of namespaces (pid, net, mount, uts, ipc). What it writes below /etc, /usr, /var and /mnt/disk survives a power
//! cycle, all else does not. Nothing is registered anywhere: when pid 1 of each host and the switch are dead, everything is gone, mounts
//! and interfaces too; they die with the test, however it ends. One cluster at a time (`Cluster::new` waits).

pub mod host;
pub mod lab;
pub mod pair;
pub mod power;
pub mod processes;
pub mod product;
pub mod records;
pub mod remote;
pub mod stack;
pub mod stage;

pub use host::{Answer, Host};
pub use lab::{Cable, Cluster, NEEDS};
pub use pair::Pair;
pub use stack::Stack;
pub use stage::{Manager, Stage};

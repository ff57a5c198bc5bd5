//! `pollux-agent` as it is started and asked by people, over a real etcd; the daemons are played (`stage`). Who of two nodes may be
//! Primary is decided in tests/decide, with real daemons and faults of machines in tests/tests/cluster_agent.rs.

mod cli;
mod etcd;
mod fence;
mod lock;
mod services;
mod several;
mod stage;

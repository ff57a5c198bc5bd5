//! A whole stack under Heartbeat: what its cookbook page puts on a pair of nodes, and how the loss of one goes.

use super::{Host, Pair};
use crate::cookbook::Recipe;
use crate::real::seconds;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// How long nothing may be heard of a host before it is dead, for Heartbeat, in seconds.
pub const DEADTIME: u64 = 2;

/// The address of the service, as on the pages.
pub const ADDRESS: &str = "10.99.0.100";

/// Heartbeat itself.
pub const HEARTBEAT: &str = "/usr/libexec/heartbeat/heartbeat";

const HA_CF: &str = "logfile /var/log/ha-log
debugfile /var/log/ha-debug
logfacility none
udpport 694
ucast eth0 10.99.0.1
ucast eth0 10.99.0.2
keepalive 200ms
warntime 1
deadtime DEADTIME
initdead 5
auto_failback off
realtime off
node alpha beta
stonith_host * external/pollux alpha,beta
";

/// Starts Heartbeat on a host, after a line for the shell.
///
/// # Panics
/// If it cannot be started.
pub fn start_heartbeat(host: &Host, before: &str) {
    let owner = ["install", "-d", "-m750", "-ohacluster", "-ghaclient"];
    let folders = ["", "/ccm", "/crm", "/dopd"].map(|folder| format!("/run/heartbeat{folder}"));
    host.must(&[&owner[..], &folders.each_ref().map(String::as_str)].concat());
    host.spawn("heartbeat", &["sh", "-c", &format!("{before}; exec {HEARTBEAT} -f")]);
}

/// The pair, alpha with the service first.
pub struct Stack(Pair);

impl Deref for Stack {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.0
    }
}

impl Stack {
    /// Hosts with Pollux, and disks of so many mebibytes; nothing is configured but how to shoot.
    ///
    /// # Panics
    /// If they do not come up.
    pub fn new(resource: &str, mebibytes: u64) -> Self {
        let nodes: [&[&str]; 2] = [&["10.99.0.1/24"], &["10.99.0.2/24"]];
        let pair = Pair::new(resource, mebibytes, nodes, ("client", "10.99.0.9/24"));
        let heartbeat = Recipe::read("heartbeat");
        for host in pair.nodes() {
            // What the tests need: a second way to the peer is not there, so a lost peer is shot.
            host.put(
                "/etc/default/pollux",
                0o644,
                "POLLUX_SHOOT='/mnt/lab/lab power off %p'\nPOLLUX_SHOOT_TIMEOUT=10\n",
            );
            host.put("/etc/ha.d/ha.cf", 0o644, HA_CF.replace("DEADTIME", &DEADTIME.to_string()));
            host.put("/etc/ha.d/authkeys", 0o600, "auth 1\n1 sha1 castor\n");
            heartbeat.later("shellfuncs", host);
        }
        Self(pair)
    }

    /// Sets up what the page says; the resource is in sync then, and Secondary on both.
    ///
    /// # Panics
    /// If something on the page does not work.
    pub fn set_up(&self, page: &Recipe) {
        page.play(&self.nodes());
        self.wait_until_in_sync();
    }

    /// Starts Heartbeat on these hosts.
    pub fn start_heartbeat(&self, hosts: &[&Host]) {
        hosts.iter().for_each(|host| start_heartbeat(host, "true"));
    }

    /// Waits until a host has the address, which is the last of the resources: how long that took.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait_for_service(&self, host: &Host, limit: Duration) -> Duration {
        host.wait("the service", limit, || {
            let said = host.run(&["ip", "-br", "address", "show", "dev", "eth0"]);
            said.out.contains(&format!("{ADDRESS}/"))
        })
    }

    /// The active host loses its power; the other has the service then. How long that took.
    ///
    /// # Panics
    /// If it does not take over.
    pub fn fail_over(&self, from: &Host, to: &Host) -> Duration {
        let begin = Instant::now();
        from.power_off();
        self.wait_for_service(to, seconds(60));
        assert!(to.is_primary(&self.resource));
        begin.elapsed()
    }

    /// The lost host boots, and is made good again without hands.
    ///
    /// # Panics
    /// If it is not in time.
    pub fn rejoin(&self, lost: &Host) {
        lost.power_on();
        lost.install();
        lost.adm_must(&["up", &self.resource]);
        self.wait_until_in_sync();
    }
}

//! Two nodes with a mirrored resource, a third host that uses it, a power switch. What decides who serves is in [`super::stage`] and
//! [`super::stack`].

use super::power::PowerSwitch;
use super::{Cable, Cluster, Host};
use crate::real::seconds;

/// The hosts.
pub struct Pair {
    /// A node.
    pub alpha: Host,
    /// The other.
    pub beta: Host,
    /// Who uses what they serve.
    pub client: Host,
    /// The resource.
    pub resource: String,
    /// What they shoot each other with.
    pub switch: PowerSwitch,
    /// What they are plugged into. The last: hosts lose their power when it goes.
    pub cluster: Cluster,
}

impl Pair {
    /// All of them have power; on the nodes Pollux is installed, and a disk of so many mebibytes is there. Nothing is configured.
    ///
    /// # Panics
    /// If they do not come up.
    pub fn new(resource: &str, mebibytes: u64, nodes: [&[&str]; 2], client: (&str, &str)) -> Self {
        let mut cluster = Cluster::new();
        let alpha = cluster.host("alpha", nodes[0]);
        let beta = cluster.host("beta", nodes[1]);
        let client = cluster.host(client.0, &[client.1]);
        let switch = PowerSwitch::new(&cluster);
        client.power_on();
        let pair = Self { alpha, beta, client, resource: resource.to_owned(), switch, cluster };
        for host in pair.nodes() {
            host.power_on();
            host.install();
            let size = format!("{mebibytes}M");
            host.must(&["truncate", "-s", &size, &format!("/mnt/disk/{resource}")]);
        }
        pair
    }

    /// The two that mirror.
    pub fn nodes(&self) -> [&Host; 2] {
        [&self.alpha, &self.beta]
    }

    /// The node that this one is not.
    pub fn other(&self, host: &Host) -> &Host {
        if host.name() == self.alpha.name() { &self.beta } else { &self.alpha }
    }

    /// The Primary, and the other.
    ///
    /// # Panics
    /// If there is not exactly one Primary.
    pub fn roles(&self) -> (&Host, &Host) {
        match self.nodes().map(|host| host.is_primary(&self.resource)) {
            [true, false] => (&self.alpha, &self.beta),
            [false, true] => (&self.beta, &self.alpha),
            both => panic!("Primary: alpha, beta: {both:?}"),
        }
    }

    /// Both copies are good.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_until_in_sync(&self) {
        self.nodes().iter().for_each(|host| host.wait_in_sync(&self.resource, seconds(90)));
    }

    /// What happens to all cables of a node.
    pub fn cut(&self, host: &Host, cable: Cable) {
        [0, 1].iter().for_each(|&n| self.cluster.cable(host, n, cable));
    }
}

//! A pair under a cluster manager, as the manager's page of the cookbook says, with a service that makes records durable and a client that
//! writes them: what a fault does to it, and what must be so when it is over. Only what differs between managers is theirs ([`Manager`]).

use super::power::Mood;
use super::records::{RECORDS, SCRIPT, SERVICE, Writer};
use super::{Cable, Host, NEEDS, Pair};
use crate::cookbook::Recipe;
use crate::real::{Need, lacks, seconds};
use std::cell::RefCell;
use std::ops::Deref;
use std::time::{Duration, Instant, SystemTime};

/// The resource of the pages.
pub const R0: &str = "r0";
/// Where they mount it.
pub const DIRECTORY: &str = "/srv/data";

const ADDRESSES: [&[&str]; 2] = [&["10.0.0.1/24", "10.0.1.1/24"], &["10.0.0.2/24", "10.0.1.2/24"]];

/// What differs between cluster managers.
pub trait Manager {
    /// As it is called in what tests print.
    const NAME: &'static str;
    /// Name and address of the third host, which is the client.
    const CLIENT: (&'static str, &'static str) = ("client", "10.0.0.254/24");
    /// Where it looks for the script of the service.
    const SCRIPT_AT: &'static str;
    /// What one takeover may take beside the manager's own part, on a machine that has other work too.
    const MOST: Duration = seconds(3);

    /// Beside what every cluster needs.
    fn needs(&self) -> Vec<Need>;
    /// Its page, with what only a test has.
    fn page(&self) -> Recipe;
    /// Before the page is played.
    fn prepare(&self, _pair: &Pair, _page: &Recipe) {}
    /// After it was: both copies are in sync, the daemons run, nobody is Primary. One node serves soon.
    fn begin(&self, pair: &Pair, page: &Recipe);
    /// What init does on a host that was just given power.
    fn boot(&self, host: &Host);
    /// Waits until it is not about to do anything.
    fn wait_settled(&self, pair: &Pair);
    /// Of a takeover: what the manager needed for itself, and what Pollux did.
    fn parts(&self, since: SystemTime, to: &Host, silence: Duration) -> (Duration, Duration);
    /// Ends it for good, on both nodes; nobody is Primary afterwards.
    fn end(&self, pair: &Pair);
}

/// The pair, its manager, and its client.
pub struct Stage<M: Manager> {
    /// What decides.
    pub manager: M,
    /// The client.
    pub writer: Writer,
    /// Its page.
    pub page: Recipe,
    /// Pollux' part of each takeover.
    shares: RefCell<Vec<Duration>>,
    pair: Pair,
}

impl<M: Manager> Deref for Stage<M> {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl<M: Manager> Stage<M> {
    /// One node serves, a client writes; `None`: not on this machine.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn new(manager: M) -> Option<Self> {
        if lacks(&[NEEDS, &manager.needs()].concat()) {
            return None;
        }
        let pair = Pair::new(R0, 128, ADDRESSES, M::CLIENT);
        let page = manager.page().with("/dev/vg/r0", "/mnt/disk/r0");
        for host in pair.nodes() {
            host.put(M::SCRIPT_AT, 0o755, SCRIPT);
        }
        manager.prepare(&pair, &page);
        page.play(&pair.nodes());
        pair.wait_until_in_sync();
        manager.begin(&pair, &page);
        let writer = Writer::start(&pair.client, SERVICE);
        let stage = Self { manager, writer, page, shares: RefCell::default(), pair };
        stage.wait_serves(&stage.nodes());
        stage.wait_settled();
        Some(stage)
    }

    /// Gives a host power if it has none, and does what its init does.
    ///
    /// # Panics
    /// If that fails.
    pub fn boot(&self, host: &Host) {
        if !host.is_on() {
            host.power_on();
        }
        self.manager.boot(host);
    }

    /// Waits until one of these is Primary and the client is served.
    ///
    /// # Panics
    /// If it does not come to that in time.
    pub fn wait_serves(&self, hosts: &[&Host]) {
        let one = || hosts.iter().any(|host| host.is_primary(R0));
        hosts[0].wait("a Primary", seconds(90), one);
        self.writer.wait_for_more(3, seconds(60));
    }

    /// Waits until both copies are good, one node serves and the other has nothing of it (any more), and nothing is about to change.
    ///
    /// # Panics
    /// If it does not come to that in time.
    pub fn wait_settled(&self) {
        self.wait_until_in_sync();
        self.manager.wait_settled(self);
        let (_, passive) = self.roles();
        // One that was replaced while it was stopped may just be finding that out.
        passive.wait("nothing of the service", seconds(20), || {
            let mount = passive.run(&["/usr/lib/pollux/pollux-mount", "status", R0, DIRECTORY]);
            let address = passive.must(&["ip", "-o", "address", "show", "to", "10.0.0.100"]);
            (mount.code, mount.out.as_str(), address.as_str()) == (Some(3), "stopped\n", "")
        });
    }

    /// Something happens to the active node, and the other takes over: which was active, and which is.
    ///
    /// # Panics
    /// If it does not, or too late.
    pub fn takeover(&self, what: &str, fault: impl FnOnce(&Host)) -> (&Host, &Host) {
        let (active, other) = self.roles();
        let since = SystemTime::now();
        fault(active);
        self.wait_takeover(what, since, other);
        (active, other)
    }

    /// After what was done to the active node at `since` the other takes over; how that went.
    ///
    /// # Panics
    /// If it does not, or too late.
    pub fn wait_takeover(&self, what: &str, since: SystemTime, to: &Host) {
        self.wait_serves(&[to]);
        let silence = self.writer.longest_silence(since);
        self.report(what, since, silence, self.manager.parts(since, to, silence));
    }

    fn report(
        &self,
        what: &str,
        since: SystemTime,
        silence: Duration,
        parts: (Duration, Duration),
    ) {
        let (manager, ours) = parts;
        let shot = self.switch.shot().into_iter().map(|(at, _)| at).find(|at| *at > since);
        let shot = shot.and_then(|at| at.duration_since(since).ok());
        let shot = shot.map_or("nobody shot".into(), |after| format!("shot after {after:.2?}"));
        println!(
            "{what}: {} {manager:.2?} ({shot}), promoted and mounted {ours:.2?}; clients without the service for {silence:.2?}",
            M::NAME
        );
        // What else the machine does may make one takeover late, not all of a story: see `end`.
        assert!(ours < M::MOST, "{what}: Pollux took {ours:?} of the takeover");
        self.shares.borrow_mut().push(ours);
    }

    /// As [`Self::takeover`], by a fault after which the active node is to be shot; it boots, and is made good again without hands.
    ///
    /// # Panics
    /// If it does not go like that.
    pub fn shot(&self, what: &str, fault: impl FnOnce(&Host)) {
        let (lost, to) = self.takeover(what, fault);
        assert!(!lost.is_on() && to.is_on(), "{what}: {} was not shot, or not it", lost.name());
        self.boot(lost);
        self.wait_back(to);
    }

    /// A node cannot see the other, by all its cables: one of the two is shot, and the other serves. Then the shot one is made good again.
    ///
    /// # Panics
    /// If it does not go like that.
    pub fn one_is_shot(&self, what: &str, cut: &Host, cable: Cable) {
        let since = SystemTime::now();
        self.cut(cut, cable);
        let [alpha, beta] = self.nodes();
        alpha.wait("one to be shot", seconds(30), || !(alpha.is_on() && beta.is_on()));
        self.cut(cut, Cable::In);
        let left = if alpha.is_on() { alpha } else { beta };
        let shot = self.other(left);
        self.wait_serves(&[left]);
        assert!(left.is_on() && !shot.is_on(), "{what}: both were shot");
        println!(
            "{what}: {} was shot, {} serves; clients without the service for {:.2?}",
            shot.name(),
            left.name(),
            self.writer.longest_silence(since)
        );
        self.boot(shot);
        self.wait_back(left);
    }

    /// The active node loses its power while what shoots is broken: nobody takes over until it works again. `fails` waits until it has failed
    /// on the other, often enough.
    ///
    /// # Panics
    /// If it does not go like that.
    pub fn fencing_is_broken(&self, mood: Mood, fails: impl FnOnce(&Host)) {
        let (active, other) = self.roles();
        self.switch.set_mood(mood);
        let since = SystemTime::now();
        active.power_off();
        fails(other);
        assert!(!other.is_primary(R0), "{mood:?}: promoted although nobody was shot");
        self.switch.set_mood(Mood::Works);
        let works = SystemTime::now();
        self.wait_serves(&[other]);
        // How long it could not be is nobody's part.
        let parts = self.manager.parts(works, other, Duration::ZERO);
        let what = format!("since the power switch works, which was in the mood {mood:?}");
        self.report(&what, works, self.writer.longest_silence(since), parts);
        self.boot(active);
        self.wait_back(other);
    }

    /// All is well again, and the one that serves still does.
    ///
    /// # Panics
    /// If not.
    pub fn wait_back(&self, serving: &Host) {
        self.wait_settled();
        assert_eq!(self.roles().0.name(), serving.name(), "no failback");
    }

    /// Both nodes lose their power, and boot; one serves.
    ///
    /// # Panics
    /// If none does.
    pub fn cold_start(&self) {
        self.nodes().iter().for_each(|host| host.power_off());
        let since = Instant::now();
        self.nodes().iter().for_each(|host| self.boot(host));
        self.wait_serves(&self.nodes());
        println!("both cold: {} and all, records again after {:.2?}", M::NAME, since.elapsed());
        self.wait_settled();
    }

    /// The ends of every story: nothing is about to change, nothing lost, both copies and the file system are right.
    ///
    /// # Panics
    /// If something was lost, or differs.
    pub fn end(self) {
        self.wait_settled();
        let best = self.shares.borrow().iter().copied().min();
        assert!(best.is_none_or(|best| best < seconds(1)), "Pollux took {best:?} of each takeover");
        let (active, passive) = self.roles();
        self.manager.end(&self);
        for host in self.nodes() {
            host.adm_must(&["up", R0]);
        }
        self.wait_until_in_sync();
        active.adm_must(&["primary", R0]);
        active.must(&["/usr/lib/pollux/pollux-mount", "start", R0, DIRECTORY, "ext4"]);
        let records = active.must(&["cat", RECORDS]);
        active.must(&["/usr/lib/pollux/pollux-mount", "stop", R0, DIRECTORY]);
        active.adm_must(&["secondary", R0]);
        let count = self.writer.assert_all_in(&records);
        println!("{count} acknowledged records, all there");
        assert!(count > 50, "only {count} records");
        self.wait_until_in_sync();
        let mut sums = Vec::new();
        for host in [active, passive] {
            let size = host.status(R0).expect("it is up").size;
            host.adm_must(&["down", R0]);
            host.must(&["e2fsck", "-fn", "/mnt/disk/r0"]);
            let sum = format!("head -c {size} /mnt/disk/r0 | sha256sum");
            sums.push(host.must(&["sh", "-c", &sum]));
            let log = |name| std::fs::read_to_string(host.log(name)).unwrap_or_default();
            let said = host.text("/run/pollux/r0.log") + &log("polluxd") + &log("agent");
            assert!(!said.is_empty(), "{} has no log", host.name());
            for word in ["panicked", "assertion", "BUG", "split brain"] {
                assert!(!said.contains(word), "{} said {word}:\n{said}", host.name());
            }
        }
        assert_eq!(sums[0], sums[1], "CONV: the two copies differ");
    }
}

//! Two daemons started on what a cut has left, and what must be true of them: they connect, one is promoted without force, it serves what was
//! promised (DUR-1, DUR-2, DUR-3) and nothing that nobody wrote (DUR-5), and in the end both files are equal byte by byte: what differed was
//! copied (COV-2, CONV).

use super::history::{History, Promise, assert_same};
use super::image::{Kept, Toll, image};
use crate::real::blocks::encode;
use crate::real::fault_disk::{At, Record};
use crate::real::host::RESOURCE;
use crate::real::{Pair, Plan, Random, seconds};

/// Where the one who serves alone writes: no region of the history, in an extent of the log that has one.
const ALONE: u64 = 1 << 20;

/// A run that was recorded.
#[derive(Debug)]
pub struct Run {
    /// What both disks saw.
    pub record: Record,
    /// What the client of alpha saw.
    pub history: History,
    /// Of each node, its files in the record: number and bytes. Data, and metadata if that is in a file of its own.
    pub files: [Vec<(usize, u64)>; 2],
    /// When both copies were first in sync, and when the client had its last answer.
    pub span: (At, At),
}

/// One cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Right before this.
    pub at: At,
    /// What is left of each node.
    pub kept: [Kept; 2],
    /// Who is promoted.
    pub primary: usize,
    /// The other one returns only when that one has written alone; else before it is promoted.
    pub alone: bool,
    /// Of what is left.
    pub seed: u64,
}

impl Run {
    /// A cut of this run; cuts of neighbouring numbers differ in who is hit, and in who comes back.
    pub fn cut(&self, number: u64, seed: u64) -> Cut {
        let mut random = Random::new(seed ^ number << 32);
        let (from, to) = self.span;
        // Half of them right after something was promised: what is too late then is late for good.
        let promises: Vec<_> =
            self.history.promises().into_iter().filter(|at| (from..to).contains(at)).collect();
        let at = match random.below(2) {
            0 => promises[random.below(promises.len() as u64) as usize],
            _ => from + random.below((to - from) as u64) as At,
        };
        let mut lost = || Kept::LOST_POWER[random.below(4) as usize];
        let kept = match number % 3 {
            0 => [lost(), Kept::Completed],
            1 => [Kept::Completed, lost()],
            _ => [lost(), lost()],
        };
        // Mostly the one that was Secondary: it is the one whose promises are kept out of the client's sight.
        let stories = [(1, true), (0, true), (1, false), (1, true), (0, false)];
        let (primary, alone) = stories[(number / 3 % 5) as usize];
        Cut { at, kept, primary, alone, seed: random.below(u64::MAX) }
    }

    /// DUR-1, at every instant at which something was promised: what was flushed is stable on both disks, whoever would be asked for it. (Both
    /// were in sync all the time.) How many instants, and how many promises are broken.
    pub fn check_promises(&self) -> (usize, Vec<String>) {
        let promises = self.history.promises();
        let mut broken = Vec::new();
        for &at in &promises {
            for (node, files) in self.files.iter().enumerate() {
                let (file, size) = files[0];
                let random = &mut Random::new(0);
                let (stable, _) = image(&self.record, file, size, at, Kept::Nothing, random);
                let read = |offset, len| stable.read(offset, len);
                if let Err(why) = self.history.check(size, read, at, Promise::Flushed) {
                    broken.push(format!("on the disk of node {node}: {why}"));
                }
            }
        }
        (promises.len(), broken)
    }

    /// Cuts power as said, and looks what comes back.
    ///
    /// # Errors
    /// The invariant that does not hold, if the client sees that.
    ///
    /// # Panics
    /// If the nodes do not come back as they must, or the copies do not become equal.
    pub fn try_cut(&self, plan: &Plan, cut: Cut) -> Result<Toll, String> {
        let Cut { at, kept, primary, alone, seed } = cut;
        let mut pair = Pair::new(plan.clone());
        let mut random = Random::new(seed);
        let mut toll = Toll::default();
        for (node, host) in pair.hosts().into_iter().enumerate() {
            let paths = [Some(&host.backing), host.meta.as_ref()].into_iter().flatten();
            for (&(file, size), path) in self.files[node].iter().zip(paths) {
                let (found, part) = image(&self.record, file, size, at, kept[node], &mut random);
                found.save(path);
                toll.unflushed += part.unflushed;
                toll.gone += part.gone;
                toll.torn += part.torn;
            }
        }
        // The files belong to whom the daemons run as.
        pair.write_configuration();
        // Together they go by who was Primary.
        let source = if alone { primary } else { 0 };
        let promise = match kept[source] {
            Kept::Completed => Promise::Acknowledged,
            Kept::Nothing | Kept::All | Kept::Prefix | Kept::Some => Promise::Flushed,
        };
        let [first, second] = pair.hosts();
        let (first, second) = if primary == 0 { (first, second) } else { (second, first) };
        first.start();
        if !alone {
            second.start();
            first.wait_status("the connection", seconds(20), |status| status.is_connected());
        }
        let is_there = |disk: &str| !["Attaching", "Diskless"].contains(&disk);
        first.wait_status("its disk", seconds(20), |status| is_there(&status.disk));
        // DUR-2: without force.
        first.must(&["primary", RESOURCE]);
        let mut client = first.client();
        let size = client.size;
        let read = |offset, len| {
            let bytes = client.read(offset, len as u32);
            bytes.unwrap_or_else(|lost| panic!("read at {offset}: {lost}"))
        };
        let found = self.history.check(size, read, at, promise)?;
        let mut own = None;
        if alone {
            let bytes = encode(ALONE, u64::MAX);
            client.write(ALONE, &bytes).expect("written");
            client.flush().expect("flushed");
            own = Some((ALONE, bytes));
            second.start();
        }
        first.wait_in_sync(seconds(30));
        // Nothing that was there has gone, nor what was written since.
        assert_same(&mut client, &found.into_iter().chain(own).collect());
        drop(client);
        pair.end(None);
        Ok(toll)
    }
}

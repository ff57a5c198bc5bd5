//! Pollux beside kernel DRBD in the same two virtual machines, through the kernel's nbd, with fio on the device. The guests are those of the
//! tests (`tests::guest`): QEMU's interpreter, some ten times slower than metal, so that only ratios say anything.

use crate::fio::{self, Measured};
use crate::packages::need;
use crate::spread::Spread;
use crate::stop::Stop;
use crate::workload::Workload;
use crate::{Error, spread};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use tests::guest::{Guest, Lab};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the guests' disks lie.
    pub dir: PathBuf,
    /// MiB of each device.
    pub mebibytes: u64,
    /// Of each guest.
    pub processors: u32,
    /// How often each device gets each piece of work.
    pub rounds: u32,
    /// Seconds each takes.
    pub seconds: u64,
    /// What fio does.
    pub workloads: Vec<Workload>,
}

/// The devices of the first guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Device {
    /// Its own disk, mirrored nowhere.
    Disk,
    /// DRBD 8.4, protocol C.
    Drbd,
    /// Pollux, protocol C.
    Pollux,
}

impl Device {
    /// In the order of the table.
    pub const ALL: [Self; 3] = [Self::Disk, Self::Drbd, Self::Pollux];

    fn path(self) -> &'static str {
        match self {
            Self::Disk => "/dev/vdc",
            Self::Drbd => "/dev/drbd0",
            Self::Pollux => "/dev/nbd0",
        }
    }
}

/// One turn.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Whose.
    pub device: Device,
    /// At what.
    pub workload: &'static str,
    /// In which round.
    pub round: u32,
    /// What fio saw.
    #[serde(flatten)]
    pub client: Measured,
}

const DRBD: &str = "global { usage-count no; }
resource r0 {
  net { protocol C; }
  device /dev/drbd0; disk /dev/vda; meta-disk internal;
  on alpha { address 10.99.0.1:7789; }
  on beta { address 10.99.0.2:7789; }
}
";

const POLLUX: &str = "resource r0 {
  net { protocol C; }
  device minor 0; disk /dev/vdb; meta-disk internal;
  on alpha { node-id 0; address 10.99.0.1:7800; }
  on beta { node-id 1; address 10.99.0.2:7800; }
}
";

/// Both disks are new, and hold the same: zeros.
const UP: &str = "modprobe drbd
mkdir -p /var/lib/drbd /var/run/drbd /run/lock
drbdadm create-md --force r0
drbdadm up r0
polluxadm create-md --force r0
polluxadm up r0";

const PRIMARY: &str = "modprobe nbd
drbdadm new-current-uuid --clear-bitmap r0/0
drbdadm primary r0
polluxadm primary --force r0
polluxadm wait-sync r0
nbd-client -unix /run/pollux/r0.nbd /dev/nbd0 -N r0 -b 4096";

/// Makes sure that the programs are there.
pub fn prepare() -> Result<(), Error> {
    need(&["busybox", "depmod", "drbdadm", "fio", "nbd-client", "qemu-system-x86_64"])
}

/// Boots two guests and lets the devices take turns.
///
/// # Panics
/// If a guest does not boot, or does not do as it is told.
pub fn run(plan: &Plan, stop: &Stop) -> Result<Vec<Sample>, Error> {
    let lab = Lab::within(&plan.dir);
    let guest = |name| lab.guest(name, &[plan.mebibytes; 3]).with_processors(plan.processors);
    let [mut alpha, mut beta] = ["alpha", "beta"].map(guest);
    for guest in [&mut alpha, &mut beta] {
        guest.put("/etc/drbd.conf", 0o644, DRBD);
        guest.put("/etc/pollux/pollux.conf", 0o644, POLLUX);
        guest.power_on();
    }
    for guest in [&mut alpha, &mut beta] {
        guest.wait_until_up();
        guest.must(UP);
    }
    let limit = std::time::Duration::from_secs(60);
    alpha.wait("DRBD", limit, "drbdadm cstate r0 | grep -q '^Connected$'");
    alpha.must(PRIMARY);
    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        for work in &plan.workloads {
            let first = round as usize % Device::ALL.len();
            for &device in Device::ALL[first..].iter().chain(&Device::ALL[..first]) {
                if stop.wanted() {
                    return Ok(samples);
                }
                let client = turn(&mut alpha, device, work, plan.seconds)?;
                eprintln!("round {round} {:18} {device:?} {:8.0} IOPS", work.name, client.iops);
                samples.push(Sample { device, workload: work.name, round, client });
            }
        }
    }
    for state in ["drbdadm dstate r0", "polluxadm dstate r0"] {
        let said = alpha.must(state);
        if said.trim() != "UpToDate/UpToDate" {
            return Err(Error::Nonsense { what: state, said });
        }
    }
    Ok(samples)
}

fn turn(
    guest: &mut Guest<'_>,
    device: Device,
    work: &Workload,
    seconds: u64,
) -> Result<Measured, Error> {
    let words = fio::timed("libaio", &[format!("--filename={}", device.path())], work, seconds);
    let said = guest.must(&format!("cd /run && fio --direct=1 {}", words.join(" ")));
    fio::read(&said, work)
}

/// One row for each piece of work and device.
pub fn table(samples: &[Sample], workloads: &[Workload]) -> String {
    let mut text = String::from(
        "| workload | device | IOPS | p50 us | p99 us | x DRBD: median (min..max) |\n|---|---|--:|--:|--:|---|\n",
    );
    for work in workloads.iter().map(|work| work.name) {
        let of =
            |device| samples.iter().filter(move |it| it.workload == work && it.device == device);
        let rates = |device| of(device).map(|it| (it.round, it.client.iops)).collect::<Vec<_>>();
        for device in Device::ALL {
            let middle = |field: fn(&Measured) -> f64| {
                spread::median(of(device).map(|it| field(&it.client)))
            };
            let ratio = Spread::of_ratios(&rates(device), &rates(Device::Drbd));
            let _ = writeln!(
                text,
                "| {work} | {device:?} | {:.0} | {:.0} | {:.0} | {} |",
                middle(|it| it.iops),
                middle(|it| it.p50),
                middle(|it| it.p99),
                ratio.map_or_else(String::new, |ratio| ratio.to_string()),
            );
        }
    }
    text
}

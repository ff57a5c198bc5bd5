//! Hand-made histories that a checker must refuse, each beside its twin that it must accept.

use super::{Check, Cluster, Copies, Kind, Order, StableFacts, Token, View, same_content};
use replicator::node::{ConnectionState, DiskState, Protocol, ReplicationState, Role};

const SECTORS: u32 = 64;

/// Two disks written by hand.
struct Plain {
    visible: [Vec<Token>; 2],
    stable: [Vec<Token>; 2],
}

impl Copies for Plain {
    fn visible(&self, node: usize, sector: u32) -> Token {
        self.visible[node][sector as usize]
    }
    fn stable(&self, node: usize, sector: u32) -> Token {
        self.stable[node][sector as usize]
    }
    fn in_flight(&self, _: usize, _: u32) -> bool {
        false
    }
    fn sectors(&self) -> u32 {
        SECTORS
    }
}

fn no_facts(_: usize) -> Option<StableFacts> {
    None
}

/// A pair in which node 0 is Primary and all is well.
fn pair(protocol: Protocol) -> (Cluster, Plain) {
    let mut cluster = Cluster::new(SECTORS, protocol, true);
    cluster.history.accept_first_content(0);
    let first: Vec<Token> = (0..SECTORS).map(|s| Token::garbage(0, s)).collect();
    let disks = Plain { visible: [first.clone(), first.clone()], stable: [first.clone(), first] };
    for node in 0..2 {
        cluster
            .observe(node, good(node == 0), true, &disks, &mut no_facts)
            .expect("nothing is wrong with a good pair");
    }
    (cluster, disks)
}

fn good(primary: bool) -> View {
    let roles = [Role::Secondary, Role::Primary];
    View {
        role: roles[usize::from(primary)],
        disk: DiskState::UpToDate,
        connection: ConnectionState::Connected,
        replication: ReplicationState::Established,
        peer_role: roles[usize::from(!primary)],
        peer_disk: DiskState::UpToDate,
        current: 16,
        ..View::default()
    }
}

fn alone(primary: bool) -> View {
    View {
        connection: ConnectionState::Connecting,
        replication: ReplicationState::Off,
        peer_role: Role::Unknown,
        peer_disk: DiskState::DUnknown,
        ..good(primary)
    }
}

/// An acknowledged write of one sector that arrived where the caller says.
fn write(cluster: &mut Cluster, disks: &mut Plain, sector: u32, at: &[usize]) -> u32 {
    let id = cluster.invoke(0, Kind::Write, sector, 1, false);
    for &node in at {
        disks.visible[node][sector as usize] = Token::write(id, 0);
    }
    cluster.answered(id, true, disks, &mut no_facts).expect("a write is acknowledged");
    id
}

fn flush(cluster: &mut Cluster, disks: &Plain) -> Check {
    let id = cluster.invoke(0, Kind::Flush, 0, 0, false);
    cluster.answered(id, true, disks, &mut no_facts)
}

fn broken(check: Check) -> &'static str {
    check.expect_err("the checker must see it").invariant
}

#[test]
fn dur_1_a_flush_that_left_the_peer_out() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    write(&mut cluster, &mut disks, 3, &[0, 1]);
    disks.stable[0] = disks.visible[0].clone();
    assert_eq!(broken(flush(&mut cluster.clone(), &disks)), "DUR-1");
    disks.stable[1] = disks.visible[1].clone();
    flush(&mut cluster, &disks).expect("both are stable");
}

#[test]
fn dur_1_asks_nothing_of_the_peer_under_a() {
    let (mut cluster, mut disks) = pair(Protocol::A);
    write(&mut cluster, &mut disks, 3, &[0]);
    disks.stable[0] = disks.visible[0].clone();
    flush(&mut cluster, &disks).expect("under A the flush covers the Primary's disk");
}

#[test]
fn dur_2_a_survivor_that_lost_what_was_flushed() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    write(&mut cluster, &mut disks, 3, &[0, 1]);
    disks.stable = disks.visible.clone();
    flush(&mut cluster, &disks).expect("both are stable");
    cluster.killed(0);
    cluster.killed(1);
    cluster.power_cut(1);
    cluster.started(1);
    cluster.holds_promises(1, &disks).expect("it is there");
    disks.visible[1][3] = Token::garbage(0, 3);
    assert_eq!(broken(cluster.holds_promises(1, &disks)), "DUR-2");
}

#[test]
fn dur_3_an_acknowledged_write_that_only_the_dead_primary_had() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    write(&mut cluster, &mut disks, 3, &[0]);
    cluster.killed(0);
    assert_eq!(broken(cluster.holds_promises(1, &disks)), "DUR-3");
    // A power cut of the Secondary, too: it was not flushed, nothing was promised.
    cluster.killed(1);
    cluster.power_cut(1);
    cluster.holds_promises(1, &disks).expect("not promised");
}

#[test]
fn dur_5_reads_that_go_back() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    let w = write(&mut cluster, &mut disks, 3, &[0, 1]);
    let read = cluster.invoke(0, Kind::Read, 3, 1, false);
    let floors = cluster.read_floors(read);
    let stale = cluster.clone().read_returned(read, &floors, &[Token::garbage(0, 3)]);
    assert_eq!(broken(stale), "DUR-5");
    cluster.read_returned(read, &floors, &[Token::write(w, 0)]).expect("the value written");
}

#[test]
fn dur_5_an_unanswered_write_once_seen_stays_seen() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    let w = write(&mut cluster, &mut disks, 3, &[0, 1]);
    let open = cluster.invoke(0, Kind::Write, 3, 1, false);
    let mut read = |token| {
        let id = cluster.invoke(0, Kind::Read, 3, 1, false);
        let floors = cluster.read_floors(id);
        cluster.read_returned(id, &floors, &[token])?;
        cluster.answered(id, true, &disks, &mut no_facts)
    };
    read(Token::write(w, 0)).expect("the old value, while the new one is open");
    read(Token::write(open, 0)).expect("the new value");
    assert_eq!(broken(read(Token::write(w, 0))), "DUR-5");
}

#[test]
fn dur_4_newer_data_overwritten_by_a_returning_peer() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    cluster.observe(0, alone(true), false, &disks, &mut no_facts).expect("the link is lost");
    write(&mut cluster, &mut disks, 3, &[0]);
    disks.stable[0] = disks.visible[0].clone();
    flush(&mut cluster, &disks).expect("its own disk is stable");
    let target = View { disk: DiskState::Inconsistent, ..good(false) };
    let mut ordered = cluster.clone();
    let check = cluster.observe(0, target, true, &disks, &mut no_facts);
    assert_eq!(broken(check), "DUR-4");
    ordered.order(0, Order::Discard);
    ordered.observe(0, target, true, &disks, &mut no_facts).expect("the operator said so");
}

#[test]
fn ord_2_a_later_write_without_an_earlier_one() {
    let (mut cluster, mut disks) = pair(Protocol::A);
    let since = cluster.together_since().expect("together");
    write(&mut cluster, &mut disks, 3, &[0]);
    write(&mut cluster, &mut disks, 9, &[0, 1]);
    assert_eq!(broken(cluster.in_order(1, since, true, &disks)), "ORD-2");
    disks.visible[1][3] = disks.visible[0][3];
    cluster.in_order(1, since, true, &disks).expect("in order");
}

#[test]
fn ord_1_a_write_behind_a_flush_without_what_the_flush_covered() {
    let (mut cluster, mut disks) = pair(Protocol::A);
    let since = cluster.together_since().expect("together");
    write(&mut cluster, &mut disks, 3, &[0]);
    let before = write(&mut cluster, &mut disks, 5, &[0, 1]);
    disks.stable[0] = disks.visible[0].clone();
    cluster.in_order(1, since, false, &disks).expect("no flush yet: any order after a power cut");
    flush(&mut cluster, &disks).expect("stable here");
    write(&mut cluster, &mut disks, 9, &[0, 1]);
    assert_eq!(broken(cluster.in_order(1, since, false, &disks)), "ORD-1");
    disks.visible[1][3] = disks.visible[0][3];
    assert!(before > 0);
    cluster.in_order(1, since, false, &disks).expect("in order");
}

#[test]
fn role_1_role_3_role_5() {
    let (mut cluster, disks) = pair(Protocol::C);
    let id = cluster.invoke(0, Kind::Write, 1, 1, false);
    assert_eq!(broken(cluster.demoted(0)), "ROLE-3");
    let mut both = cluster.clone();
    assert_eq!(broken(both.observe(1, good(true), true, &disks, &mut no_facts)), "ROLE-1");
    cluster.observe(0, good(false), true, &disks, &mut no_facts).expect("demoted");
    assert_eq!(broken(cluster.answered(id, true, &disks, &mut no_facts)), "ROLE-5");
}

#[test]
fn role_2_primary_without_data() {
    let (mut cluster, disks) = pair(Protocol::C);
    let view = View { disk: DiskState::Inconsistent, ..alone(true) };
    cluster.started(1);
    assert_eq!(broken(cluster.observe(1, view, false, &disks, &mut no_facts)), "ROLE-2");
}

#[test]
fn sb_1_and_sb_4() {
    let (mut cluster, mut disks) = pair(Protocol::C);
    let roles = [Role::Secondary; 2];
    assert_eq!(broken(cluster.parted().split_brain_declared(roles)), "SB-4");
    cluster.observe(0, alone(true), false, &disks, &mut no_facts).expect("lost");
    cluster.observe(1, alone(false), false, &disks, &mut no_facts).expect("lost");
    write(&mut cluster, &mut disks, 3, &[0]);
    assert_eq!(broken(cluster.parted().split_brain_declared(roles)), "SB-4");
    cluster.observe(1, alone(true), false, &disks, &mut no_facts).expect("promoted");
    let id = cluster.invoke(1, Kind::Write, 7, 1, false);
    disks.visible[1][7] = Token::write(id, 0);
    cluster.answered(id, true, &disks, &mut no_facts).expect("alone, too");
    cluster.parted().split_brain_declared(roles).expect("there is one");
    cluster.observe(0, good(false), true, &disks, &mut no_facts).expect("one end says connected");
    let check = cluster.observe(1, good(true), true, &disks, &mut no_facts);
    assert_eq!(broken(check), "SB-1");
}

#[test]
fn conv_one_sector_differs() {
    let (_, mut disks) = pair(Protocol::C);
    same_content(&disks, "CONV").expect("the same");
    disks.visible[1][SECTORS as usize - 1] = Token::ZERO;
    assert_eq!(broken(same_content(&disks, "CONV")), "CONV");
}

#[test]
fn gi_3_a_generation_comes_back() {
    let (mut cluster, disks) = pair(Protocol::C);
    let with = |current| View { current, ..alone(true) };
    cluster.observe(0, with(32), false, &disks, &mut no_facts).expect("new");
    assert_eq!(broken(cluster.observe(0, with(16), false, &disks, &mut no_facts)), "GI-3");
}

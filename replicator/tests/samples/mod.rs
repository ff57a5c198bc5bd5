//! One or more examples of every message, shared by the tests of the codec, the link and the documentation.
#![allow(dead_code)]

use bitmap::{ByteRange, Generation, NodeId};
use replicator::digest::Digest;
use replicator::node::{BufferId, DiskState, Protocol, Role};
use replicator::wire::{
    Agreed, Content, Facts, Message, PeerWrite, RefuseReason, UNNAMED, VolumeFacts, VolumeVerdict,
};

/// A message with the bytes of its payload.
pub(crate) struct Sample {
    /// Unique.
    pub(crate) name: &'static str,
    /// Buffers in it are `UNNAMED`.
    pub(crate) message: Message,
    /// What travels behind it.
    pub(crate) payload: Option<Vec<u8>>,
}

/// A message without payload.
pub(crate) fn plain(name: &'static str, message: Message) -> Sample {
    Sample { name, message, payload: None }
}

fn with(name: &'static str, message: Message, payload: Vec<u8>) -> Sample {
    Sample { name, message, payload: Some(payload) }
}

/// `len` bytes that differ from their neighbours.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|i| ((i * 31 + i / 251 + seed * 7) % 256) as u8).collect()
}

/// A write of data, as a Primary sends it.
pub(crate) fn write(dagtag: u64, start: u64, len: u64) -> Message {
    Message::Write(PeerWrite {
        volume: 0,
        range: ByteRange::new(start, len),
        content: Content::Data(UNNAMED),
        fua: false,
        author: NodeId(0),
        dagtag,
        epoch: 1,
        want_received: false,
    })
}

/// Every message at least once; small enough to be read.
pub(crate) fn all() -> Vec<Sample> {
    let facts = Facts {
        node: NodeId(1),
        incarnation: 0x1122_3344_5566_7788,
        protocol: Protocol::C,
        role: Role::Primary,
        suspended: true,
        discard_my_data: true,
        volumes: vec![
            VolumeFacts {
                number: 0,
                disk: DiskState::UpToDate,
                size: 64 << 30,
                current: Generation(0xa1a2_a3a4_a5a6_a7a8),
                bitmap: Generation(0xb1b2),
                history: vec![Generation(3), Generation(u64::MAX)],
                bits: 300,
                crashed_primary: true,
                peer_incarnation: 9,
            },
            VolumeFacts {
                number: 5,
                disk: DiskState::Diskless,
                size: 0,
                current: Generation::NONE,
                bitmap: Generation::NONE,
                history: vec![],
                bits: 0,
                crashed_primary: false,
                peer_incarnation: 0,
            },
        ],
    };
    let zero = |unmap, fua| {
        Message::Write(PeerWrite {
            volume: 7,
            range: ByteRange::new(1 << 40, 1 << 30),
            content: Content::Zero { unmap },
            fua,
            author: NodeId(31),
            dagtag: u64::MAX,
            epoch: 1 << 33,
            want_received: true,
        })
    };
    let fua = Message::Write(PeerWrite {
        volume: 2,
        range: ByteRange::new(4096, 8),
        content: Content::Data(UNNAMED),
        fua: true,
        author: NodeId(3),
        dagtag: 0x0102_0304_0506_0708,
        epoch: 0x1112_1314_1516_1718,
        want_received: true,
    });
    let range = ByteRange::new(8192, 12288);
    let buffer = Some(BufferId(0));
    let runs = vec![(3, 1), (4, 2), (1000, 70_000), (1 << 40, 1)];
    let refuse = |reason| Message::Agreed(Agreed::Refuse(reason));
    let verdicts = vec![
        VolumeVerdict::Idle,
        VolumeVerdict::NoSync,
        VolumeVerdict::Source { full: false },
        VolumeVerdict::Source { full: true },
        VolumeVerdict::Target { full: false },
        VolumeVerdict::Target { full: true },
    ];
    let history = vec![Generation(1 << 20), Generation(2)];
    let digests = vec![Digest([0x5a; 16]), Digest([0xa5; 16])];
    let compare =
        Message::SyncCompare { id: 25, volume: 1, range, unit: 16, digests: digests.clone() };
    vec![
        with("write", write(1, 0, 16), pattern(16, 1)),
        with("write-fua", fua, pattern(8, 2)),
        plain("write-zero", zero(false, false)),
        plain("write-unmap-fua", zero(true, true)),
        plain("received", Message::Received(0x0102_0304_0506_0708)),
        plain("written", Message::Written(77)),
        plain("flush", Message::Flush { number: 5, barrier: false }),
        plain("flush-barrier", Message::Flush { number: 6, barrier: true }),
        plain("flushed", Message::Flushed(6)),
        plain("read", Message::Read { id: 21, volume: 1, range }),
        with("read-data", Message::ReadData { id: 21, buffer }, pattern(12, 3)),
        plain("read-data-unavailable", Message::ReadData { id: 22, buffer: None }),
        plain("sync-read", Message::SyncRead { id: 23, volume: 1, range }),
        with("sync-data", Message::SyncData { id: 23, serves: false, buffer }, pattern(12, 4)),
        with(
            "sync-data-serves",
            Message::SyncData { id: 26, serves: true, buffer },
            pattern(12, 4),
        ),
        plain("sync-data-zero", Message::SyncData { id: 24, serves: false, buffer: None }),
        plain("facts", Message::Facts(Box::new(facts))),
        plain("agreed-go", Message::Agreed(Agreed::Go(verdicts))),
        plain("agreed-you-step-down", Message::Agreed(Agreed::YouStepDown)),
        plain("agreed-i-step-down", Message::Agreed(Agreed::IStepDown)),
        plain("refuse-split-brain", refuse(RefuseReason::SplitBrain)),
        plain("refuse-unrelated", refuse(RefuseReason::Unrelated)),
        plain("refuse-two-primaries", refuse(RefuseReason::TwoPrimaries)),
        plain("refuse-stale", refuse(RefuseReason::Stale)),
        plain("refuse-incompatible", refuse(RefuseReason::Incompatible("size: 1 ≠ 2".into()))),
        plain("ready", Message::Ready { currents: vec![Generation(1), Generation(1 << 63)] }),
        plain("bits", Message::Bits { volume: 1, runs: runs.clone(), last: true }),
        plain("bits-none", Message::Bits { volume: 0, runs: vec![], last: false }),
        plain("sync-commit", Message::SyncCommit { id: 8, volume: 1, runs }),
        plain(
            "sync-commit-unordered",
            Message::SyncCommit { id: 9, volume: 0, runs: vec![(900, 10), (3, 4)] },
        ),
        plain("sync-compare", compare),
        plain("sync-differs", Message::SyncDiffers { id: 25, serves: true, units: 5, digests }),
        plain("sync-committed", Message::SyncCommitted { id: 8 }),
        plain("sync-finish", Message::SyncFinish { volume: 300 }),
        plain(
            "sync-grant",
            Message::SyncGrant { volume: 1, current: Generation(0xabcd_ef01), history },
        ),
        plain("in-sync", Message::InSync { volume: 1 }),
        plain("promote-request", Message::PromoteRequest),
        plain("promote-reply", Message::PromoteReply { granted: true }),
        plain("role-is", Message::RoleIs { role: Role::Secondary }),
        plain("invalidate", Message::Invalidate),
        plain("bye", Message::Bye { outdate: true, outdated: false }),
        plain("ping", Message::Ping),
        plain("pong", Message::Pong),
    ]
}

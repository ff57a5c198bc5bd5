//! The first bytes of a connection: who speaks, what it can do, and whether the two fit. Fixed size, so that nothing of
//! variable length is read from somebody unknown. Pure; sockets and secrets are the link layer's.
//!
//! These structures are for ever: a release that speaks another protocol must still be understood this far.

use super::features::{Features, Integrity, VERSION_MAX, VERSION_MIN};
use super::header::layout;
use super::limits::MAX_RESOURCE_NAME;
use alloc::string::String;
use bitmap::NodeId;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a hello.
pub const HELLO_LEN: usize = size_of::<HelloBytes>();
/// Bytes of an answer.
pub const ANSWER_LEN: usize = size_of::<AnswerBytes>();
/// Bytes of a nonce, and of a proof.
pub const PROOF_LEN: usize = 32;

const MAGIC: [u8; 8] = *b"POLLUX\r\n";
const ANSWER_MAGIC: [u8; 8] = *b"POLLUXA\n";

layout! {
    /// What each end sends first.
    HelloBytes {
        magic: [u8; 8],
        version_min: U16,
        version_max: U16,
        end: u8,
        from: u8,
        to: u8,
        authentication: u8,
        integrity: u8,
        resource_len: u8,
        reserved: [u8; 6],
        features: U64,
        required: U64,
        incarnation: U64,
        nonce: [u8; PROOF_LEN],
        resource: [u8; MAX_RESOURCE_NAME],
        reserved_2: [u8; 44],
        checksum: U32,
    }

    /// What follows: proofs, and the word to begin.
    AnswerBytes {
        magic: [u8; 8],
        kind: u8,
        reserved: [u8; 3],
        proof: [u8; PROOF_LEN],
        checksum: U32,
    }
}

const _: () = assert!(HELLO_LEN == 256 && ANSWER_LEN == 48);

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Opened it: the lower node-id.
    Dialer = 1,
    /// Listened: the higher node-id.
    Acceptor = 2,
}

/// Who one end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions it speaks, oldest and newest.
    pub versions: (u16, u16),
    /// Which end it is.
    pub end: End,
    /// Its node-id.
    pub from: NodeId,
    /// The node-id it wants to talk to.
    pub to: NodeId,
    /// Has it a shared secret?
    pub authentication: bool,
    /// Checksum over payloads it is configured to.
    pub integrity: Integrity,
    /// What it can do.
    pub features: Features,
    /// What it must have of the other.
    pub required: Features,
    /// Random number of its process.
    pub incarnation: u64,
    /// Random, for this connection only.
    pub nonce: [u8; PROOF_LEN],
    /// The resource; at most `MAX_RESOURCE_NAME` bytes.
    pub resource: String,
}

impl Hello {
    /// What this release says of itself; the rest is filled in by the caller.
    pub fn new(end: End, from: NodeId, to: NodeId, resource: String) -> Self {
        Self {
            versions: (VERSION_MIN, VERSION_MAX),
            end,
            from,
            to,
            authentication: false,
            integrity: Integrity::None,
            features: Features::SUPPORTED,
            required: Features::REQUIRED,
            incarnation: 0,
            nonce: [0; PROOF_LEN],
            resource,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let name = self.resource.as_bytes();
        assert!(name.len() <= MAX_RESOURCE_NAME, "resource name of {} bytes", name.len());
        let mut bytes = HelloBytes {
            magic: MAGIC,
            version_min: U16::new(self.versions.0),
            version_max: U16::new(self.versions.1),
            end: self.end as u8,
            from: self.from.0,
            to: self.to.0,
            authentication: u8::from(self.authentication),
            integrity: self.integrity as u8,
            resource_len: name.len() as u8,
            features: U64::new(self.features.0),
            required: U64::new(self.required.0),
            incarnation: U64::new(self.incarnation),
            nonce: self.nonce,
            ..HelloBytes::new_zeroed()
        };
        bytes.resource[..name.len()].copy_from_slice(name);
        sealed(zerocopy::transmute!(bytes))
    }

    /// What the bytes say. Reserved bytes are ignored: a later release may use them.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, HelloError> {
        check(bytes, MAGIC)?;
        let bytes: HelloBytes = zerocopy::transmute!(*bytes);
        let bad = HelloError::Damaged;
        let node = |id| (id <= NodeId::MAX.0).then_some(NodeId(id)).ok_or(bad("node-id"));
        let ends = [End::Dialer, End::Acceptor];
        let name = bytes.resource.get(..usize::from(bytes.resource_len));
        let name = name.and_then(|name| core::str::from_utf8(name).ok());
        Ok(Self {
            versions: (bytes.version_min.get(), bytes.version_max.get()),
            end: ends.into_iter().find(|&end| end as u8 == bytes.end).ok_or(bad("end"))?,
            from: node(bytes.from)?,
            to: node(bytes.to)?,
            authentication: match bytes.authentication {
                known @ 0..=1 => known == 1,
                _ => return Err(bad("authentication")),
            },
            integrity: Integrity::from_id(bytes.integrity).ok_or(bad("integrity"))?,
            features: Features(bytes.features.get()),
            required: Features(bytes.required.get()),
            incarnation: bytes.incarnation.get(),
            nonce: bytes.nonce,
            resource: name.ok_or(bad("resource name"))?.into(),
        })
    }
}

/// What comes after the hellos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Knowledge of the secret (zeros without one).
    Proof([u8; PROOF_LEN]),
    /// The acceptor does not believe the dialer's proof.
    WrongProof,
    /// The acceptor's node wants the link: frames follow.
    Begin,
}

impl Answer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; ANSWER_LEN] {
        let (kind, proof) = match *self {
            Self::Proof(proof) => (1, proof),
            Self::WrongProof => (2, [0; PROOF_LEN]),
            Self::Begin => (3, [0; PROOF_LEN]),
        };
        let bytes = AnswerBytes { magic: ANSWER_MAGIC, kind, proof, ..AnswerBytes::new_zeroed() };
        sealed(zerocopy::transmute!(bytes))
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8; ANSWER_LEN]) -> Result<Self, HelloError> {
        check(bytes, ANSWER_MAGIC)?;
        let bytes: AnswerBytes = zerocopy::transmute!(*bytes);
        match bytes.kind {
            1 => Ok(Self::Proof(bytes.proof)),
            2 => Ok(Self::WrongProof),
            3 => Ok(Self::Begin),
            _ => Err(HelloError::Damaged("answer")),
        }
    }
}

/// Both structures end with a checksum over everything before it.
fn sealed<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    let (all, checksum) = bytes.split_at_mut(N - 4);
    checksum.copy_from_slice(&crc32fast::hash(all).to_le_bytes());
    bytes
}

fn check<const N: usize>(bytes: &[u8; N], magic: [u8; 8]) -> Result<(), HelloError> {
    let (all, checksum) = bytes.split_at(N - 4);
    if !all.starts_with(&magic) {
        return Err(HelloError::NotPollux);
    }
    let is_whole = checksum == crc32fast::hash(all).to_le_bytes();
    is_whole.then_some(()).ok_or(HelloError::Damaged("checksum"))
}

/// Why first bytes are refused. A damaged connection is tried again; the operator need not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else speaks.
    #[error("it does not speak the Pollux protocol")]
    NotPollux,
    /// Altered on the way, or by a program that is broken.
    #[error("its hello is damaged: {0}")]
    Damaged(&'static str),
}

/// What two ends that fit have settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Protocol version spoken.
    pub version: u16,
    /// What both can do.
    pub features: Features,
    /// Checksum over payloads.
    pub integrity: Integrity,
    /// Random number of the peer's process.
    pub incarnation: u64,
}

/// Why two ends do not fit. The text says what to change (NET-3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Both are the same end, or we hear ourselves.
    #[error(
        "our own words came back: something mirrors the connection, or `address` names ourselves"
    )]
    Mirrored,
    /// Another resource's port.
    #[error(
        "it serves resource \"{theirs}\", we serve \"{ours}\": compare `address` and the resource names"
    )]
    Resource {
        /// Our name.
        ours: String,
        /// Its name.
        theirs: String,
    },
    /// Another node.
    #[error(
        "it is node-id {from} and looks for node-id {to}; we are {us} and look for {peer}: compare `node-id` and `address` on both nodes"
    )]
    Node {
        /// Its node-id.
        from: u8,
        /// The node-id it looks for.
        to: u8,
        /// Our node-id.
        us: u8,
        /// The node-id we look for.
        peer: u8,
    },
    /// No common protocol version.
    #[error("it speaks protocol versions {} to {}, we speak {} to {}: upgrade the older node", theirs.0, theirs.1, ours.0, ours.1)]
    Version {
        /// Ours.
        ours: (u16, u16),
        /// Its.
        theirs: (u16, u16),
    },
    /// Only we have a secret.
    #[error(
        "we have a shared-secret and it has none: configure the same `net {{ shared-secret \"...\"; }}` on both nodes"
    )]
    OnlyWeAuthenticate,
    /// Only the other has a secret.
    #[error(
        "it has a shared-secret and we have none: configure the same `net {{ shared-secret \"...\"; }}` on both nodes"
    )]
    OnlyTheyAuthenticate,
    /// The proofs do not match.
    #[error(
        "the shared secrets differ: configure the same `net {{ shared-secret \"...\"; }}` on both nodes"
    )]
    Secret,
    /// Other checksums.
    #[error("`net {{ data-integrity-alg }}` is {theirs} there and {ours} here: make them equal")]
    Integrity {
        /// Ours.
        ours: Integrity,
        /// Its.
        theirs: Integrity,
    },
    /// An ability is missing.
    #[error(
        "features {:#x} are needed by one node and unknown to the other: upgrade the older node",
        missing.0
    )]
    Features {
        /// The bits.
        missing: Features,
    },
}

/// Is the other end who we look for? (An acceptor looks for whichever of its peers the dialer says it is.)
pub fn identify(ours: &Hello, theirs: &Hello) -> Result<(), Mismatch> {
    if ours.end == theirs.end || ours.nonce == theirs.nonce || ours.from == theirs.from {
        return Err(Mismatch::Mirrored);
    }
    if ours.resource != theirs.resource {
        let (ours, theirs) = (ours.resource.clone(), theirs.resource.clone());
        return Err(Mismatch::Resource { ours, theirs });
    }
    if (ours.from, ours.to) != (theirs.to, theirs.from) {
        let (from, to) = (theirs.from.0, theirs.to.0);
        return Err(Mismatch::Node { from, to, us: ours.from.0, peer: ours.to.0 });
    }
    Ok(())
}

/// Can the two prove themselves to each other?
pub fn authenticable(ours: &Hello, theirs: &Hello) -> Result<(), Mismatch> {
    let newest = ours.versions.1.min(theirs.versions.1);
    if newest < ours.versions.0.max(theirs.versions.0) {
        return Err(Mismatch::Version { ours: ours.versions, theirs: theirs.versions });
    }
    match (ours.authentication, theirs.authentication) {
        (true, false) => Err(Mismatch::OnlyWeAuthenticate),
        (false, true) => Err(Mismatch::OnlyTheyAuthenticate),
        _ => Ok(()),
    }
}

/// What the two, now that each knows the other, will do. Mirrored: both ends come to the same.
pub fn settle(ours: &Hello, theirs: &Hello) -> Result<Session, Mismatch> {
    if ours.integrity != theirs.integrity {
        let (ours, theirs) = (ours.integrity, theirs.integrity);
        return Err(Mismatch::Integrity { ours, theirs });
    }
    let (mine, other) = (ours.features.0, theirs.features.0);
    let missing = Features(ours.required.0 & !other | theirs.required.0 & !mine);
    if missing != Features(0) {
        return Err(Mismatch::Features { missing });
    }
    Ok(Session {
        version: ours.versions.1.min(theirs.versions.1),
        features: Features(mine & other),
        integrity: ours.integrity,
        incarnation: theirs.incarnation,
    })
}

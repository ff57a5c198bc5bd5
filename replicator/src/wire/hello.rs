//! The first bytes of a connection: who speaks, what it can do, and whether the two fit. Fixed size, so that nothing of
//! variable length is read from somebody unknown. Pure; sockets and secrets are the link layer's.
//!
//! These blocks are for ever: a release that speaks another protocol must still be understood this far. A later one may
//! add fields behind those that are there.

use super::control::{AnswerShape, Sent, put, take};
use super::features::{FEATURES, Integrity, REQUIRED_FEATURES, VERSION_MAX, VERSION_MIN};
use super::limits::MAX_RESOURCE_NAME;
use alloc::format;
use alloc::string::String;
use bincode::{Decode, Encode};
use bitmap::NodeId;

/// Bytes of a hello.
pub const HELLO_LEN: usize = 256;
/// Bytes of an answer.
pub const ANSWER_LEN: usize = 48;
/// Bytes of a nonce, and of a proof.
pub const PROOF_LEN: usize = 32;

const MAGIC: &[u8; 8] = b"POLLUX\r\n";
const ANSWER_MAGIC: &[u8; 8] = b"POLLUXA\n";

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Opened it: the lower node-id.
    Dialer,
    /// Listened: the higher node-id.
    Acceptor,
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
    pub features: u64,
    /// What it must have of the other.
    pub required: u64,
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
            features: FEATURES,
            required: REQUIRED_FEATURES,
            incarnation: 0,
            nonce: [0; PROOF_LEN],
            resource,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let name = self.resource.len();
        assert!(name <= MAX_RESOURCE_NAME, "resource name of {name} bytes");
        block(MAGIC, &self.shape())
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, HelloError> {
        let hello = Self::read(open(MAGIC, bytes)?).map_err(HelloError::Damaged)?;
        let is_name = hello.resource.len() <= MAX_RESOURCE_NAME;
        is_name.then_some(hello).ok_or(HelloError::Damaged("resource name"))
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
        block(ANSWER_MAGIC, &AnswerShape { kind, proof })
    }

    /// What the bytes say.
    pub fn decode(bytes: &[u8; ANSWER_LEN]) -> Result<Self, HelloError> {
        let AnswerShape { kind, proof } = open(ANSWER_MAGIC, bytes)?;
        match kind {
            1 => Ok(Self::Proof(proof)),
            2 => Ok(Self::WrongProof),
            3 => Ok(Self::Begin),
            _ => Err(HelloError::Damaged("answer")),
        }
    }
}

/// Both are blocks of a fixed length: a magic, the fields, zeros, and a checksum over all of that.
fn block<const N: usize>(magic: &[u8; 8], shape: &impl Encode) -> [u8; N] {
    let mut bytes = magic.to_vec();
    put(&mut bytes, shape);
    assert!(bytes.len() <= N - 4, "{} bytes of fields", bytes.len());
    bytes.resize(N - 4, 0);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.try_into().expect("as long as the block")
}

fn open<const N: usize, T: Decode<()>>(magic: &[u8; 8], bytes: &[u8; N]) -> Result<T, HelloError> {
    let (all, checksum) = bytes.split_at(N - 4);
    let fields = all.strip_prefix(magic).ok_or(HelloError::NotPollux)?;
    if checksum != crc32fast::hash(all).to_le_bytes() {
        return Err(HelloError::Damaged("checksum"));
    }
    // What follows is zeros, or what a later release has added.
    take::<T, N>(fields).map(|(shape, _used)| shape).map_err(HelloError::Damaged)
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
    pub features: u64,
    /// Checksum over payloads.
    pub integrity: Integrity,
    /// Random number of the peer's process.
    pub incarnation: u64,
}

/// Why two ends do not fit: what the operator must change (NET-3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

impl Mismatch {
    /// A proof is not what it should be.
    pub fn of_secrets() -> Self {
        Self::of_secret("the shared secrets differ")
    }

    fn of_secret(what: &str) -> Self {
        let cure = "configure the same `net { shared-secret \"...\"; }` on both nodes";
        Self(format!("{what}: {cure}"))
    }
}

/// Is the other end who we look for? (An acceptor looks for whichever of its peers the dialer says it is.)
pub fn identify(ours: &Hello, theirs: &Hello) -> Result<(), Mismatch> {
    if ours.end == theirs.end || ours.nonce == theirs.nonce || ours.from == theirs.from {
        return Err(Mismatch(
            "our own words came back: something mirrors the connection, or `address` names ourselves"
                .into(),
        ));
    }
    if ours.resource != theirs.resource {
        return Err(Mismatch(format!(
            "it serves resource \"{}\", we serve \"{}\": compare `address` and the resource names",
            theirs.resource, ours.resource
        )));
    }
    if (ours.from, ours.to) != (theirs.to, theirs.from) {
        return Err(Mismatch(format!(
            "it is node-id {} and looks for node-id {}; we are {} and look for {}: \
             compare `node-id` and `address` on both nodes",
            theirs.from.0, theirs.to.0, ours.from.0, ours.to.0
        )));
    }
    Ok(())
}

/// Can the two prove themselves to each other?
pub fn authenticable(ours: &Hello, theirs: &Hello) -> Result<(), Mismatch> {
    let (our, their) = (ours.versions, theirs.versions);
    if our.1.min(their.1) < our.0.max(their.0) {
        return Err(Mismatch(format!(
            "it speaks protocol versions {} to {}, we speak {} to {}: upgrade the older node",
            their.0, their.1, our.0, our.1
        )));
    }
    match (ours.authentication, theirs.authentication) {
        (true, false) => Err(Mismatch::of_secret("we have a shared-secret and it has none")),
        (false, true) => Err(Mismatch::of_secret("it has a shared-secret and we have none")),
        _ => Ok(()),
    }
}

/// What the two, now that each knows the other, will do. Mirrored: both ends come to the same.
pub fn settle(ours: &Hello, theirs: &Hello) -> Result<Session, Mismatch> {
    if ours.integrity != theirs.integrity {
        return Err(Mismatch(format!(
            "`net {{ data-integrity-alg }}` is {} there and {} here: make them equal",
            theirs.integrity, ours.integrity
        )));
    }
    let missing = ours.required & !theirs.features | theirs.required & !ours.features;
    if missing != 0 {
        return Err(Mismatch(format!(
            "features {missing:#x} are needed by one node and unknown to the other: \
             upgrade the older node"
        )));
    }
    Ok(Session {
        version: ours.versions.1.min(theirs.versions.1),
        features: ours.features & theirs.features,
        integrity: ours.integrity,
        incarnation: theirs.incarnation,
    })
}

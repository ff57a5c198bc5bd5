//! The first bytes of a connection: what is read can be written and means the same, and both ends come to the same.

use crate::Seed;
use crate::input::Input;
use bitmap::NodeId;
use replicator::wire::{
    ANSWER_LEN, Answer, End, HELLO_LEN, Hello, Integrity, PROOF_LEN, authenticable, identify,
    settle,
};

/// Input: a byte, 1: the checksum is made right; then a hello, then an answer, filled up with zeros.
pub(super) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let seal = input.u8() & 1 != 0;
    if let Ok(theirs) = Hello::decode(&block::<HELLO_LEN>(&mut input, seal)) {
        assert_eq!(Hello::decode(&theirs.encode()).as_ref(), Ok(&theirs));
        for ours in [ours(End::Acceptor), ours(End::Dialer)] {
            assert_eq!(identify(&ours, &theirs).is_ok(), identify(&theirs, &ours).is_ok());
            assert_eq!(
                authenticable(&ours, &theirs).is_ok(),
                authenticable(&theirs, &ours).is_ok()
            );
            match (settle(&ours, &theirs), settle(&theirs, &ours)) {
                (Ok(here), Ok(there)) => {
                    assert_eq!((here.version, here.features), (there.version, there.features));
                    assert_eq!(here.incarnation, theirs.incarnation);
                }
                (here, there) => assert_eq!(here.is_ok(), there.is_ok()),
            }
        }
    }
    if let Ok(answer) = Answer::decode(&block::<ANSWER_LEN>(&mut input, seal)) {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

fn ours(end: End) -> Hello {
    Hello { nonce: [7; PROOF_LEN], ..Hello::new(end, NodeId(1), NodeId(0), "r0".into()) }
}

fn block<const N: usize>(input: &mut Input<'_>, seal: bool) -> [u8; N] {
    let mut block = [0; N];
    let given = input.bytes(if seal { N - 4 } else { N });
    block[..given.len()].copy_from_slice(given);
    if seal {
        let checksum = crc32fast::hash(&block[..N - 4]);
        block[N - 4..].copy_from_slice(&checksum.to_le_bytes());
    }
    block
}

/// Peers that fit, and one that does not.
pub(super) fn seeds() -> Vec<Seed> {
    let hello = Hello::new(End::Dialer, NodeId(0), NodeId(1), "r0".into());
    let secret = Hello { authentication: true, nonce: [9; PROOF_LEN], ..hello.clone() };
    let later =
        Hello { versions: (1, 9), features: 7, integrity: Integrity::Crc32, ..hello.clone() };
    let all = [
        ("plain", hello, Answer::Begin),
        ("secret", secret, Answer::Proof([3; PROOF_LEN])),
        ("later", later, Answer::WrongProof),
    ];
    let seed = |(name, hello, answer): (&str, Hello, Answer)| {
        let bytes = [&[0x80, 0][..], &hello.encode(), &answer.encode()].concat();
        (format!("hello-{name}"), bytes)
    };
    let mut seeds: Vec<_> = all.into_iter().map(seed).collect();
    let (name, mut sealed) = seeds[1].clone();
    sealed[1] = 1;
    sealed.drain(2 + HELLO_LEN - 4..2 + HELLO_LEN);
    seeds.push((format!("{name}-sealed"), sealed));
    seeds
}

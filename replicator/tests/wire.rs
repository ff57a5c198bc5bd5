//! The codec: every message there and back, golden bytes, and what it does with bytes that no peer of ours would send.
#![allow(clippy::unwrap_used)]

mod samples;

use bitmap::NodeId;
use proptest::prelude::*;
use replicator::node::{BufferId, DiskState, Protocol, Role};
use replicator::wire::{
    Answer, Decoded, Decoder, Encoder, End, Facts, FrameType, HEADER_LEN, HELLO_LEN, Hello,
    HelloError, Integrity, MAX_BODY, MAX_DIGESTS, MAX_PAYLOAD, MAX_RUNS, Message, OPTIONAL,
    Session, VolumeFacts, WireError, authenticable, identify, settle,
};
use samples::{Sample, pattern, write};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

type Received = (Message, Option<Vec<u8>>);

const BOTH: [Integrity; 2] = [Integrity::None, Integrity::Crc32];

fn append(encoder: &mut Encoder, sample: &Sample, out: &mut Vec<u8>) {
    encoder.encode(&sample.message, sample.payload.as_deref(), out);
    out.extend_from_slice(sample.payload.as_deref().unwrap_or_default());
}

fn frame(sample: &Sample, integrity: Integrity) -> Vec<u8> {
    let mut bytes = vec![];
    append(&mut Encoder::new(integrity), sample, &mut bytes);
    bytes
}

/// Decodes a stream of which `piece` more bytes arrive whenever the decoder wants more.
fn receive(decoder: &mut Decoder, stream: &[u8], piece: usize) -> Result<Vec<Received>, WireError> {
    let mut received = vec![];
    let (mut taken, mut arrived) = (0, 0);
    loop {
        let mut input = &stream[taken..arrived];
        let decoded = decoder.decode(&mut input)?;
        taken = arrived - input.len();
        match decoded {
            Decoded::Message(message, payload) => {
                received.push((message, payload.map(<[u8]>::to_vec)));
            }
            Decoded::Payload(len) => {
                if stream.len() < taken + len {
                    return Ok(received);
                }
                let payload = &stream[taken..taken + len];
                (taken, arrived) = (taken + len, arrived.max(taken + len));
                received.push((decoder.payload_received(payload)?, Some(payload.to_vec())));
            }
            Decoded::Need(bytes) => {
                assert!(bytes > arrived - taken, "asked for {bytes}, had {}", arrived - taken);
                assert!(bytes < MAX_BODY + MAX_PAYLOAD);
                if arrived == stream.len() {
                    return Ok(received);
                }
                arrived = stream.len().min(arrived + piece);
            }
        }
    }
}

fn decode(stream: &[u8], integrity: Integrity) -> Result<Vec<Received>, WireError> {
    receive(&mut Decoder::new(integrity), stream, stream.len().max(1))
}

/// A frame built here, independently of the encoder, around any body.
fn forge(kind: u16, flags: u16, sequence: u32, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"PLXF".to_vec();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(body);
    bytes.extend(payload);
    bytes
}

fn forged(kind: FrameType, body: &[u8], payload: &[u8]) -> Result<Vec<Received>, WireError> {
    decode(&forge(kind as u16, 0, 0, body, payload), Integrity::None)
}

#[test]
fn every_message_survives_the_round_trip() {
    for integrity in BOTH {
        for sample in samples::all() {
            let bytes = frame(&sample, integrity);
            let received = decode(&bytes, integrity).unwrap();
            assert_eq!(received, [(sample.message, sample.payload)], "{}", sample.name);
        }
    }
}

#[test]
fn every_state_has_a_number() {
    let all = samples::all();
    let facts = all.iter().find_map(|sample| match &sample.message {
        Message::Facts(facts) => Some(facts.clone()),
        _ => None,
    });
    let mut facts = facts.unwrap();
    let disks = [
        DiskState::Diskless,
        DiskState::Attaching,
        DiskState::Detaching,
        DiskState::Failed,
        DiskState::Inconsistent,
        DiskState::Outdated,
        DiskState::DUnknown,
        DiskState::Consistent,
        DiskState::UpToDate,
    ];
    let volume = facts.volumes[0].clone();
    let volumes =
        (0..).zip(disks).map(|(number, disk)| VolumeFacts { number, disk, ..volume.clone() });
    facts.volumes = volumes.collect();
    for protocol in [Protocol::A, Protocol::B, Protocol::C] {
        for role in [Role::Unknown, Role::Secondary, Role::Primary] {
            let message = Message::Facts(Box::new(Facts { protocol, role, ..(*facts).clone() }));
            let sample = Sample { name: "", message: message.clone(), payload: None };
            let received = decode(&frame(&sample, Integrity::None), Integrity::None);
            assert_eq!(received.unwrap(), [(message, None)]);
        }
    }
}

#[test]
fn the_samples_hold_every_type() {
    let mut found: Vec<u16> = samples::all()
        .iter()
        .map(|sample| u16::from_le_bytes([frame(sample, Integrity::None)[4], 0]))
        .collect();
    found.dedup();
    let all: Vec<u16> = FrameType::ALL.iter().map(|&kind| kind as u16).collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, all);
}

/// A released message never changes. `UPDATE_GOLDEN=1` adds lines for new samples; it does not touch old ones.
#[test]
fn golden_bytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire_golden.txt");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut golden: BTreeMap<&str, &str> =
        text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let mut missing = String::new();
    for sample in samples::all() {
        let bytes = frame(&sample, Integrity::Crc32);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match golden.remove(sample.name) {
            Some(expected) => {
                assert_eq!(hex, expected, "{}: a released message changed", sample.name);
            }
            None => writeln!(missing, "{} {hex}", sample.name).unwrap(),
        }
    }
    assert!(golden.is_empty(), "samples were removed: {golden:?}");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text + &missing).unwrap();
    } else {
        assert!(missing.is_empty(), "no golden bytes for:\n{missing}");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for sample in samples::all() {
        let bytes = frame(&sample, Integrity::Crc32);
        let payload = bytes.len() - sample.payload.as_ref().map_or(0, Vec::len);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // A header is refused as soon as it is there: a false length is never waited for.
            let visible = if bit / 8 < HEADER_LEN { HEADER_LEN } else { altered.len() };
            let error = decode(&altered[..visible], Integrity::Crc32).unwrap_err();
            match error {
                WireError::Magic(_) => assert!(bit < 32),
                WireError::HeaderChecksum => assert!(bit / 8 < HEADER_LEN),
                WireError::BodyChecksum(_) => assert!((HEADER_LEN..payload).contains(&(bit / 8))),
                WireError::PayloadChecksum(_) => assert!(bit / 8 >= payload),
                other => panic!("{} bit {bit}: {other}", sample.name),
            }
        }
    }
}

fn long_stream(integrity: Integrity) -> (Vec<u8>, Vec<Received>) {
    let mut encoder = Encoder::new(integrity);
    let (mut stream, mut expected) = (vec![], vec![]);
    let mut all = samples::all();
    for (i, len) in [4096, 16 << 10, (16 << 10) - 1, 100_000, 1].into_iter().enumerate() {
        let payload = Some(pattern(len, i as u64));
        all.push(Sample { name: "", message: write(i as u64, 4096, len as u64), payload });
        all.push(Sample { name: "", message: Message::Ping, payload: None });
    }
    for sample in all {
        append(&mut encoder, &sample, &mut stream);
        expected.push((sample.message, sample.payload));
    }
    (stream, expected)
}

#[test]
fn the_pieces_in_which_bytes_arrive_do_not_matter() {
    for integrity in BOTH {
        let (stream, expected) = long_stream(integrity);
        for piece in [1, 2, 31, 32, 33, 1000, 4096, stream.len() - 1, stream.len()] {
            let mut decoder = Decoder::new(integrity);
            assert_eq!(
                receive(&mut decoder, &stream, piece).unwrap(),
                expected,
                "pieces of {piece}"
            );
            assert!(decoder.at_boundary());
        }
    }
}

#[test]
fn a_cut_stream_is_not_at_a_boundary() {
    let sample =
        Sample { name: "", message: write(1, 0, 20_000), payload: Some(pattern(20_000, 0)) };
    let bytes = frame(&sample, Integrity::None);
    for end in [HEADER_LEN, HEADER_LEN + 1, bytes.len() - 1] {
        let mut decoder = Decoder::new(Integrity::None);
        assert_eq!(receive(&mut decoder, &bytes[..end], 1000).unwrap(), []);
        assert!(!decoder.at_boundary(), "cut after {end}");
    }
}

#[test]
fn lost_and_repeated_frames_are_noticed() {
    let mut encoder = Encoder::new(Integrity::None);
    let frames: Vec<Vec<u8>> = (0..3)
        .map(|_| {
            let mut bytes = vec![];
            encoder.encode(&Message::Ping, None, &mut bytes);
            bytes
        })
        .collect();
    let stream =
        |order: &[usize]| order.iter().flat_map(|&i| frames[i].clone()).collect::<Vec<_>>();
    assert_eq!(decode(&stream(&[0, 1, 2]), Integrity::None).unwrap().len(), 3);
    let error = |order: &[usize]| decode(&stream(order), Integrity::None).unwrap_err();
    assert_eq!(error(&[0, 2]), WireError::Sequence { expected: 1, found: 2 });
    assert_eq!(error(&[0, 0]), WireError::Sequence { expected: 1, found: 0 });
    assert_eq!(error(&[1]), WireError::Sequence { expected: 0, found: 1 });
}

#[test]
fn after_an_error_nothing_more_is_decoded() {
    let mut decoder = Decoder::new(Integrity::None);
    let good = frame(&samples::all()[0], Integrity::None);
    assert_eq!(decoder.decode(&mut &[0u8; HEADER_LEN][..]), Err(WireError::Magic(0)));
    assert_eq!(decoder.decode(&mut &good[..]), Err(WireError::Magic(0)));
}

#[test]
fn unknown_types_are_refused_unless_optional() {
    for id in [0, 0x40, 0x1234] {
        assert_eq!(FrameType::from_id(id), None);
        let bytes = forge(id, 0, 0, b"body", b"");
        assert_eq!(decode(&bytes, Integrity::None), Err(WireError::UnknownType(id)));
        let mut bytes = forge(id, OPTIONAL, 0, &[9; 1000], &[7; 70_000]);
        bytes.extend(forge(FrameType::Ping as u16, 0, 1, b"", b""));
        for piece in [1, 500, bytes.len()] {
            let received = receive(&mut Decoder::new(Integrity::None), &bytes, piece);
            assert_eq!(received.unwrap(), [(Message::Ping, None)], "skipped");
        }
    }
    let unknown_flag = forge(FrameType::Ping as u16, 2, 0, b"", b"");
    assert_eq!(decode(&unknown_flag, Integrity::None), Err(WireError::Flags(2)));
}

#[test]
fn lengths_beyond_the_limits_are_refused_in_the_header() {
    let claim = |kind: FrameType, at: usize, len: u32| {
        let mut bytes = forge(kind as u16, 0, 0, b"", b"")[..HEADER_LEN - 4].to_vec();
        bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        decode(&bytes, Integrity::None)
    };
    let refused = |result| assert!(matches!(result, Err(WireError::Length { .. })), "{result:?}");
    refused(claim(FrameType::Bits, 12, MAX_BODY as u32 + 1));
    assert_eq!(claim(FrameType::Bits, 12, MAX_BODY as u32), Ok(vec![]), "waits for it");
    refused(claim(FrameType::Write, 16, MAX_PAYLOAD as u32 + 1));
    refused(claim(FrameType::Write, 12, 1));
    refused(claim(FrameType::Ping, 16, 1));
    refused(claim(FrameType::Facts, 16, 1));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let write = frame(&samples::all()[0], Integrity::None)[HEADER_LEN..].to_vec();
    let (body, payload) = write.split_at(write.len() - 16);
    assert!(forged(FrameType::Write, body, payload).is_ok());
    assert!(forged(FrameType::Write, body, &payload[1..]).is_err(), "payload and range differ");
    assert!(forged(FrameType::Write, body, b"").is_err(), "data without payload");
    // Field by offset: value that must be refused.
    for (at, value, what) in [
        (18, 32, "author beyond the largest node-id"),
        (19, 0, "no acknowledgement"),
        (19, 6, "unknown acknowledgement"),
        (20, 2, "unknown flag"),
        (21, 1, "checksum that was not settled"),
        (22, 1, "zeros with payload"),
        (22, 3, "a write that is not available"),
        (39, 255, "length not that of the payload"),
    ] {
        let mut altered = body.to_vec();
        altered[at] = value;
        let result = forged(FrameType::Write, &altered, payload);
        assert!(matches!(result, Err(WireError::Value(..))), "{what}: {result:?}");
    }
    let mut beyond = body.to_vec();
    beyond[24..32].fill(255);
    assert!(forged(FrameType::Write, &beyond, payload).is_err(), "range beyond 2^64");

    let mut ask = [0u8; 32];
    assert!(forged(FrameType::SyncRead, &ask, b"").is_err(), "nothing asked for");
    ask[16..24].copy_from_slice(&(MAX_PAYLOAD as u64 + 1).to_le_bytes());
    assert!(forged(FrameType::Read, &ask, b"").is_err(), "more than an answer can carry");
    assert!(forged(FrameType::Ping, b"x", b"").is_err());
}

#[test]
fn control_messages_are_bounded_and_leave_nothing_over() {
    let standard = bincode::config::standard();
    let bits = |runs: Vec<(u64, u64)>| {
        let body = bincode::encode_to_vec((1u16, runs, true), standard).unwrap();
        forged(FrameType::Bits, &body, b"")
    };
    assert!(bits(vec![(0, 1); MAX_RUNS]).is_ok());
    assert!(bits(vec![(0, 1); MAX_RUNS + 1]).is_err(), "too many");
    assert!(bits(vec![(0, 0)]).is_err(), "an empty run");
    assert!(bits(vec![(9, u64::MAX)]).is_err(), "beyond 2^64");
    assert!(bits(vec![(9, 1), (u64::MAX - 5, 1)]).is_err(), "falling");

    let ready = |body: &[u8]| forged(FrameType::Ready, body, b"");
    assert!(ready(&[1, 7]).is_ok());
    assert!(ready(&[1, 7, 0]).is_err(), "bytes left over");
    assert!(ready(&[2, 7]).is_err(), "a generation is missing");
    assert!(ready(&[&[253][..], &[255; 8]].concat()).is_err(), "a length that lies");
    assert!(ready(&bincode::encode_to_vec(vec![1u64; 129], standard).unwrap()).is_err());
    assert!(forged(FrameType::RoleIs, &[3], b"").is_err(), "no such role");
    assert!(forged(FrameType::Bye, &[2], b"").is_err(), "neither yes nor no");
    let agreed = |shape: (u8, Vec<u8>, u8, &str)| {
        forged(FrameType::Agreed, &bincode::encode_to_vec(shape, standard).unwrap(), b"")
    };
    assert!(agreed((0, vec![0, 5], 0, "")).is_ok());
    assert!(agreed((0, vec![6], 0, "")).is_err(), "no such verdict");
    assert!(agreed((1, vec![0], 0, "")).is_err(), "verdicts where none belong");
    assert!(agreed((3, vec![], 6, "")).is_err(), "no such reason");
    assert!(agreed((3, vec![], 4, &"x".repeat(4097))).is_err(), "a text too long");
    let compare = |len: u64, digests: usize| {
        let shape = (1u64, 0u16, (0u64, len), 16u64, vec![[7u8; 16]; digests]);
        let body = bincode::encode_to_vec(shape, standard).unwrap();
        forged(FrameType::SyncCompare, &body, b"")
    };
    assert!(compare(MAX_PAYLOAD as u64, MAX_DIGESTS).is_ok());
    assert!(compare(MAX_PAYLOAD as u64 + 1, 1).is_err(), "more than is read at a time");
    assert!(compare(4096, MAX_DIGESTS + 1).is_err(), "too many digests");
}

#[test]
fn the_longest_messages_fit() {
    let run = |i: u64| (i << 48, (1 << 48) - 1);
    let runs: Vec<_> = (0..MAX_RUNS as u64).rev().map(run).collect();
    let commit = Message::SyncCommit { id: u64::MAX, volume: u16::MAX, runs };
    let sample = Sample { name: "", message: commit.clone(), payload: None };
    assert_eq!(
        decode(&frame(&sample, Integrity::None), Integrity::None).unwrap(),
        [(commit, None)]
    );
    let len = MAX_PAYLOAD as u64;
    let sample =
        Sample { name: "", message: write(1, 0, len), payload: Some(pattern(MAX_PAYLOAD, 1)) };
    let bytes = frame(&sample, Integrity::Crc32);
    let received = decode(&bytes, Integrity::Crc32).unwrap();
    assert!(received == [(sample.message, sample.payload)]);
}

#[test]
#[should_panic(expected = "payload of the write with dagtag 3")]
fn a_payload_of_another_length_is_a_bug() {
    let sample = Sample { name: "", message: write(3, 0, 512), payload: Some(vec![0; 511]) };
    frame(&sample, Integrity::None);
}

#[test]
#[should_panic(expected = "32769 runs")]
fn too_many_runs_are_a_bug() {
    let runs = vec![(0, 1); MAX_RUNS + 1];
    let message = Message::SyncCommit { id: 1, volume: 0, runs };
    frame(&Sample { name: "", message, payload: None }, Integrity::None);
}

#[test]
fn decoded_buffers_are_unnamed() {
    let sample = Sample {
        name: "",
        message: Message::ReadData { id: 1, buffer: Some(BufferId(77)) },
        payload: Some(vec![1]),
    };
    let received = decode(&frame(&sample, Integrity::None), Integrity::None).unwrap();
    assert_eq!(received[0].0, Message::ReadData { id: 1, buffer: Some(BufferId(0)) });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    // NET-2: any bytes lead at worst to an error.
    #[test]
    fn any_bytes_are_survived(stream: Vec<u8>, piece in 1usize..100, kind in 0usize..64) {
        let _ = receive(&mut Decoder::new(Integrity::None), &stream, piece);
        let mut hello = [0; HELLO_LEN];
        stream.iter().zip(&mut hello).for_each(|(from, to)| *to = *from);
        let _ = Hello::decode(&hello);
        // The same bytes as the body, and as body and payload, of frames that are otherwise right.
        let kind = FrameType::ALL[kind % FrameType::ALL.len()];
        let _ = forged(kind, &stream, b"");
        let half = stream.len() / 2;
        let _ = forged(kind, &stream[..half], &stream[half..]);
    }

    // NET-2: a changed body that is sealed again is a message within its bounds, or an error.
    #[test]
    fn altered_messages_are_survived(sample in 0usize..100, at: usize, with: u8, cut in 0usize..3) {
        let all = samples::all();
        let sample = &all[sample % all.len()];
        let bytes = frame(sample, Integrity::None);
        let payload = sample.payload.clone().unwrap_or_default();
        let kind = u16::from_le_bytes([bytes[4], bytes[5]]);
        let mut body = bytes[HEADER_LEN..bytes.len() - payload.len()].to_vec();
        if !body.is_empty() {
            let at = at % body.len();
            body[at] = with;
            body.truncate(body.len() - cut.min(body.len()));
        }
        if let Ok(received) = decode(&forge(kind, 0, 0, &body, &payload), Integrity::None) {
            prop_assert_eq!(received.len(), 1);
            // What was let in can be said again: it is within every bound of the encoder.
            let (message, payload) = received[0].clone();
            let again = frame(&Sample { name: "", message, payload }, Integrity::None);
            prop_assert_eq!(decode(&again, Integrity::None).unwrap(), received);
        }
    }

    #[test]
    fn any_runs_survive(runs in prop::collection::vec((0u64..1 << 60, 1u64..1 << 60), 0..50)) {
        let message = Message::SyncCommit { id: 1, volume: 2, runs };
        let sample = Sample { name: "", message: message.clone(), payload: None };
        let received = decode(&frame(&sample, Integrity::None), Integrity::None).unwrap();
        prop_assert_eq!(received, [(message, None)]);
    }
}

// ---- the beginning of a connection ----

fn hello() -> Hello {
    Hello {
        versions: (1, 0x0203),
        authentication: true,
        integrity: Integrity::Crc32,
        features: 0x0102_0304_0506_0708,
        required: 9,
        incarnation: 0x1122_3344_5566_7788,
        nonce: std::array::from_fn(|i| i as u8),
        ..Hello::new(End::Acceptor, NodeId(31), NodeId(0), "r0/\u{e9}".into())
    }
}

#[test]
fn hellos_and_answers_survive_the_round_trip_and_no_flipped_bit() {
    let bytes = hello().encode();
    assert_eq!(Hello::decode(&bytes), Ok(hello()));
    for bit in 0..HELLO_LEN * 8 {
        let mut altered = bytes;
        altered[bit / 8] ^= 1 << (bit % 8);
        let error = if bit < 64 { HelloError::NotPollux } else { HelloError::Damaged("checksum") };
        assert_eq!(Hello::decode(&altered), Err(error), "bit {bit}");
    }
    for answer in [Answer::Proof([0xa5; 32]), Answer::WrongProof, Answer::Begin] {
        let bytes = answer.encode();
        assert_eq!(Answer::decode(&bytes), Ok(answer));
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Answer::decode(&altered).is_err(), "bit {bit}");
        }
    }
}

/// A hello around any fields, sealed as it must be.
fn forged_hello(fields: &[u8]) -> Result<Hello, HelloError> {
    let mut bytes = [b"POLLUX\r\n", fields].concat();
    bytes.resize(HELLO_LEN - 4, 0);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    Hello::decode(&bytes.try_into().unwrap())
}

#[test]
fn a_hello_that_means_nothing_is_refused() {
    let fields = hello().encode()[8..HELLO_LEN - 4].to_vec();
    assert_eq!(forged_hello(&fields), Ok(hello()));
    // Field by offset: value that must be refused.
    for (at, value, what) in [
        (4, 2, "end"),
        (5, 32, "node-id"),
        (6, 32, "node-id"),
        (7, 2, "encoding"),
        (8, 2, "integrity"),
        (60, 255, "encoding"),
        (60, 250, "encoding"),
        (60, 172, "resource name"),
        (63, 0xff, "encoding"),
    ] {
        let mut altered = fields.clone();
        altered[at] = value;
        assert_eq!(forged_hello(&altered), Err(HelloError::Damaged(what)), "byte {at}: {value}");
    }
    let mut long = fields[..60].to_vec();
    long.push(129);
    long.extend([b'r'; 129]);
    assert_eq!(forged_hello(&long), Err(HelloError::Damaged("resource name")));
    // What a later release adds is passed over.
    let added = [&fields[..66], b"more"].concat();
    assert_eq!(forged_hello(&added), Ok(hello()));
}

/// These bytes are for ever: any two releases must understand each other this far.
#[test]
fn a_hello_never_changes() {
    let mut expected = b"POLLUX\r\n\x01\xfb\x03\x02\x01\x1f\0\x01\x01".to_vec();
    expected.extend([253, 8, 7, 6, 5, 4, 3, 2, 1, 9]);
    expected.extend([253, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    expected.extend(0..32);
    expected.extend("\x05r0/\u{e9}".bytes());
    expected.resize(252, 0);
    expected.extend(crc32fast::hash(&expected).to_le_bytes());
    assert_eq!(hello().encode()[..], expected[..]);
    let mut expected = b"POLLUXA\n\x01".to_vec();
    expected.extend([0xa5; 32]);
    expected.extend([0; 3]);
    expected.extend(crc32fast::hash(&expected).to_le_bytes());
    assert_eq!(Answer::Proof([0xa5; 32]).encode()[..], expected[..]);
}

#[test]
fn two_hellos_settle_to_the_same_on_both_ends() {
    let dialer = Hello {
        end: End::Dialer,
        from: NodeId(0),
        to: NodeId(31),
        versions: (0, 1),
        nonce: [1; 32],
        features: 0b1101,
        required: 0,
        incarnation: 5,
        ..hello()
    };
    let acceptor = Hello { features: 0b0111, required: 0b1, ..hello() };
    for (ours, theirs) in [(&dialer, &acceptor), (&acceptor, &dialer)] {
        assert_eq!(identify(ours, theirs), Ok(()));
        assert_eq!(authenticable(ours, theirs), Ok(()));
        let session = Session {
            version: 1,
            features: 0b0101,
            integrity: Integrity::Crc32,
            incarnation: theirs.incarnation,
        };
        assert_eq!(settle(ours, theirs), Ok(session));
    }
    let strict = Hello { required: 0b1010, ..acceptor.clone() };
    for result in [settle(&strict, &dialer), settle(&dialer, &strict)] {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with("features 0x2 are needed by one node"), "{text}");
    }
    let newer = Hello { versions: (2, 3), ..acceptor };
    for (result, expected) in [
        (authenticable(&newer, &dialer), "it speaks protocol versions 0 to 1, we speak 2 to 3: "),
        (authenticable(&dialer, &newer), "it speaks protocol versions 2 to 3, we speak 0 to 1: "),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(expected), "{text}");
    }
}

//! The handshake without a socket: scripts of client bytes, fed whole and in pieces.

use super::*;
use crate::test_random::Random;

const SIZE: u64 = 1 << 30;

/// What came out of a script.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    out: Vec<u8>,
    end: Option<Next>,
    /// Bytes of an incomplete option, if the script ended with one.
    left: usize,
}

/// Feeds `script` in pieces of the lengths that `piece` says. Knows the exports `r0` and, refused,
/// `second`; the empty name is `r0`.
fn drive(script: &[u8], shutdown: bool, mut piece: impl FnMut() -> usize) -> Outcome {
    let mut out = Vec::new();
    let mut handshake = Handshake::new(&mut out);
    assert_eq!(out, b"NBDMAGICIHAVEOPT\0\x03");
    out.clear();
    if shutdown {
        handshake.shut_down("going down");
    }
    let info = ExportInfo { name: "r0".into(), description: "the first".into() };
    let geometry = Geometry::any_range(SIZE);
    let (mut start, mut end) = (0, 0);
    loop {
        let mut input = &script[start..end];
        let step = handshake.next(&mut input, &mut out);
        start = end - input.len();
        let next = match step {
            Step::Starved if end == script.len() => {
                return Outcome { out, end: None, left: end - start };
            }
            Step::Starved => {
                end = (end + piece().max(1)).min(script.len());
                continue;
            }
            Step::List => {
                handshake.listed(std::slice::from_ref(&info), &mut out);
                continue;
            }
            Step::Describe(name) | Step::Open(name) => {
                let refusal = match &*name {
                    "" | "r0" => None,
                    "second" => Some(Refusal::policy("r0 is Secondary here")),
                    other => Some(Refusal::unknown(other)),
                };
                let answer = refusal.as_ref().map_or(Ok((&info, &geometry)), Err);
                handshake.described(answer, &mut out)
            }
            Step::Close(ending) => Next::Close(ending),
        };
        if next != Next::Options {
            return Outcome { out, end: Some(next), left: 0 };
        }
    }
}

/// A script: client flags, then options.
struct Script(Vec<u8>);

impl Script {
    fn new(flags: u32) -> Self {
        let mut bytes = Vec::new();
        bytes.u32(flags);
        Self(bytes)
    }

    fn option(mut self, code: u32, payload: &[u8]) -> Self {
        self.0.u64(OPTION_MAGIC).u32(code).u32(payload.len() as u32).bytes(payload);
        self
    }

    fn run(&self) -> Outcome {
        let whole = drive(&self.0, false, || usize::MAX / 2);
        assert_eq!(whole, drive(&self.0, false, || 1), "one byte at a time");
        whole
    }

    /// The option replies `(option, reply, payload)` if all output is such.
    fn replies(&self) -> (Vec<Reply>, Option<Next>) {
        let outcome = self.run();
        (decode(&outcome.out), outcome.end)
    }
}

/// Option, code, payload.
type Reply = (u32, u32, Vec<u8>);

fn decode(mut out: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !out.is_empty() {
        assert_eq!(out.u64(), Some(OPTION_REPLY_MAGIC));
        let (option, code, length) = (out.u32().unwrap(), out.u32().unwrap(), out.u32().unwrap());
        replies.push((option, code, out.take(length as usize).unwrap().to_vec()));
    }
    replies
}

fn fixed() -> Script {
    Script::new(3)
}

fn go(name: &str, infos: &[u16]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.u32(name.len() as u32).bytes(name.as_bytes()).u16(infos.len() as u16);
    for kind in infos {
        payload.u16(*kind);
    }
    payload
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.u32(name.len() as u32).bytes(name.as_bytes()).u32(queries.len() as u32);
    for query in queries {
        payload.u32(query.len() as u32).bytes(query.as_bytes());
    }
    payload
}

fn codes(script: &Script) -> Vec<u32> {
    script.replies().0.into_iter().map(|(_, code, _)| code).collect()
}

use option_reply as rep;

#[test]
fn export_name_answers_with_size_flags_and_perhaps_zeroes() {
    for (flags, zeroes) in [(0, 124), (1, 124), (2, 0), (3, 0)] {
        let outcome = Script::new(flags).option(option::EXPORT_NAME, b"r0").run();
        let mut expected = Vec::new();
        // All but READ_ONLY, ROTATIONAL and DF.
        expected.u64(SIZE).u16(0b101_0110_1101).bytes(&vec![0; zeroes]);
        assert_eq!(outcome.out, expected);
        assert_eq!(outcome.end, Some(Next::Transmission(Session::default())));
    }
}

#[test]
fn export_name_that_is_refused_closes_in_silence() {
    for name in [&b"other"[..], b"second", b"a\0", b"\xff", &[b'a'; 4097]] {
        let outcome = fixed().option(option::EXPORT_NAME, name).run();
        assert_eq!(outcome.out, b"");
        assert!(matches!(outcome.end, Some(Next::Close(_))));
    }
}

#[test]
fn go_tells_export_and_block_sizes_and_what_was_asked() {
    let script = fixed().option(option::GO, &go("", &[1, 2, 99]));
    let (replies, end) = script.replies();
    let infos: Vec<_> = replies.iter().map(|(_, code, payload)| (*code, &payload[..])).collect();
    assert_eq!(infos[0], (rep::INFO, &b"\0\0\0\0\0\0\x40\0\0\0\x05\x6d"[..]));
    assert_eq!(infos[1], (rep::INFO, &b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"[..]));
    assert_eq!(infos[2], (rep::INFO, &b"\0\x01r0"[..]));
    assert_eq!(infos[3], (rep::INFO, &b"\0\x02the first"[..]));
    assert_eq!(infos[4], (rep::ACK, &b""[..]));
    assert_eq!(infos.len(), 5);
    assert_eq!(end, Some(Next::Transmission(Session::default())));
}

#[test]
fn info_tells_the_same_as_go_and_stays() {
    let script = fixed().option(option::INFO, &go("r0", &[3])).option(option::GO, &go("r0", &[3]));
    let (replies, end) = script.replies();
    let (info, go) = replies.split_at(3);
    assert!(info.iter().zip(go).all(|(info, go)| (info.1, &info.2) == (go.1, &go.2)));
    assert!(matches!(end, Some(Next::Transmission(_))));
}

#[test]
fn structured_replies_add_df_and_a_repeat_is_invalid() {
    let script = fixed()
        .option(option::STRUCTURED_REPLY, b"")
        .option(option::STRUCTURED_REPLY, b"")
        .option(option::GO, &go("r0", &[]));
    let (replies, end) = script.replies();
    assert_eq!(replies[0].1, rep::ACK);
    assert_eq!(replies[1].1, rep::ERR_INVALID);
    assert_eq!(replies[2].2[10..], [0x05, 0xed]);
    let session = Session { structured: true, allocation: false };
    assert_eq!(end, Some(Next::Transmission(session)));
}

#[test]
fn a_context_is_bound_to_the_export_it_was_selected_for() {
    let select = |set: &[&[u8]], name: &str| {
        let mut script = fixed().option(option::STRUCTURED_REPLY, b"");
        for payload in set {
            script = script.option(option::SET_META_CONTEXT, payload);
        }
        match script.option(option::GO, &go(name, &[])).replies().1 {
            Some(Next::Transmission(session)) => session.allocation,
            other => panic!("{other:?}"),
        }
    };
    let good = meta("r0", &["base:allocation"]);
    assert!(select(&[&good], "r0"));
    assert!(!select(&[&good], ""), "another name");
    assert!(!select(&[], "r0"));
    assert!(!select(&[&meta("r0", &["base:"])], "r0"), "a wildcard selects nothing");
    assert!(!select(&[&meta("r0", &[])], "r0"));
    // A later SET replaces the earlier, also when it fails.
    assert!(!select(&[&good, &meta("r0", &["x:y"])], "r0"));
    assert!(!select(&[&good, &meta("other", &["base:allocation"])], "r0"));
    assert!(!select(&[&good, b"\0"], "r0"));
    assert!(!select(&[&good, &vec![0; OPTION_PAYLOAD + 1]], "r0"));
    assert!(select(&[&meta("r0", &["x:y"]), &good], "r0"));
}

#[test]
fn contexts_are_listed_and_set_with_their_ids() {
    let structured = || fixed().option(option::STRUCTURED_REPLY, b"");
    let hit = |id: u8| [&[0, 0, 0, id][..], b"base:allocation"].concat();
    let list = structured()
        .option(option::LIST_META_CONTEXT, &meta("r0", &[]))
        .option(option::LIST_META_CONTEXT, &meta("r0", &["base:"]))
        .option(option::LIST_META_CONTEXT, &meta("r0", &["qemu:", "nocolon"]));
    let replies = list.replies().0;
    let seen: Vec<_> = replies.iter().map(|(_, code, payload)| (*code, &payload[..])).collect();
    assert_eq!(seen[1..3], [(rep::META_CONTEXT, &hit(0)[..]), (rep::ACK, &b""[..])]);
    assert_eq!(seen[3..5], seen[1..3]);
    assert_eq!(seen[5..], [(rep::ACK, &b""[..])]);

    let many = ["base:allocation"; 2000];
    let set = structured().option(option::SET_META_CONTEXT, &meta("r0", &many)).replies().0;
    assert_eq!(set.len(), 3, "one context, however often it is named");
    assert_eq!((set[1].1, &set[1].2), (rep::META_CONTEXT, &hit(1)));

    let early = fixed().option(option::SET_META_CONTEXT, &meta("r0", &["base:allocation"]));
    assert_eq!(codes(&early), [rep::ERR_INVALID]);
}

#[test]
fn refusals_carry_kind_and_reason() {
    let script = fixed()
        .option(option::GO, &go("second", &[]))
        .option(option::INFO, &go("third", &[]))
        .option(option::GO, &go("r0", &[]));
    let (replies, end) = script.replies();
    assert_eq!(replies[0], (option::GO, rep::ERR_POLICY, b"r0 is Secondary here".to_vec()));
    assert_eq!(replies[1].1, rep::ERR_UNKNOWN);
    assert_eq!(replies[1].2, b"no export is named \"third\"");
    assert!(matches!(end, Some(Next::Transmission(_))), "still usable");
}

#[test]
fn what_cannot_be_answered_closes() {
    let bad_magic = Script([&3u32.to_be_bytes()[..], &[b'x'; 16]].concat());
    let endless = Script([&3u32.to_be_bytes()[..], b"IHAVEOPT\0\0\0\x63\x80\0\0\0"].concat());
    let mut many = fixed();
    for _ in 0..=OPTIONS {
        many = many.option(option::LIST, b"");
    }
    for script in [Script::new(4), Script::new(1 << 31), bad_magic, endless, many] {
        let end = script.run().end;
        assert!(matches!(end, Some(Next::Close(Ending::Violation(_)))), "{end:?}");
    }
}

#[test]
fn options_that_are_not_served_are_consumed_and_refused() {
    let table: [(u32, &[u8], u32); 11] = [
        (option::STARTTLS, b"", rep::ERR_UNSUP),
        (option::STARTTLS, b"x", rep::ERR_INVALID),
        (option::EXTENDED_HEADERS, b"", rep::ERR_UNSUP),
        (option::EXTENDED_HEADERS, b"x", rep::ERR_INVALID),
        (option::LIST, b"x", rep::ERR_INVALID),
        (option::STRUCTURED_REPLY, b"x", rep::ERR_INVALID),
        (4, b"r0", rep::ERR_UNSUP),
        (0, b"", rep::ERR_UNSUP),
        (0xdead_beef, &[7; 100_000], rep::ERR_UNSUP),
        (option::GO, &[0; OPTION_PAYLOAD + 1], rep::ERR_TOO_BIG),
        (option::GO, b"", rep::ERR_INVALID),
    ];
    for (code, payload, answer) in table {
        let script = fixed().option(code, payload).option(option::LIST, b"");
        assert_eq!(codes(&script), [answer, rep::SERVER, rep::ACK], "option {code}");
    }
}

#[test]
fn without_fixed_newstyle_only_export_name_is_valid() {
    let script = Script::new(0).option(option::LIST, b"").option(option::GO, &go("r0", &[]));
    assert_eq!(codes(&script), [rep::ERR_INVALID, rep::ERR_INVALID]);
}

#[test]
fn abort_is_acknowledged_whatever_it_carries_and_whatever_the_client_flags() {
    for script in [fixed(), Script::new(0)] {
        let (replies, end) = script.option(option::ABORT, b"bye").replies();
        assert_eq!(replies, [(option::ABORT, rep::ACK, Vec::new())]);
        assert_eq!(end, Some(Next::Close(Ending::Aborted)));
    }
}

#[test]
fn a_server_that_ends_refuses_options_with_the_reason() {
    let script = fixed().option(option::GO, &go("r0", &[])).option(option::ABORT, b"");
    let outcome = drive(&script.0, true, || usize::MAX / 2);
    let replies = decode(&outcome.out);
    assert_eq!(replies[0], (option::GO, rep::ERR_SHUTDOWN, b"going down".to_vec()));
    assert_eq!(outcome.end, Some(Next::Close(Ending::Aborted)));
    let old = Script::new(0).option(option::EXPORT_NAME, b"r0");
    let end = drive(&old.0, true, || 1).end;
    assert_eq!(end, Some(Next::Close(Ending::Refused("going down".into()))));
}

/// Whatever the bytes are, and however they are cut, the outcome is the same and bounded.
#[test]
fn random_bytes_neither_panic_nor_depend_on_their_pieces() {
    let mut random = Random::new(1);
    for round in 0..3000 {
        let mut script = Script::new([0, 1, 3, 3, 3][random.below(5)]);
        for _ in 0..random.below(6) {
            let code = random.below(13) as u32;
            let payload = match random.below(4) {
                0 => go(["r0", "", "second", "x"][random.below(4)], &[1, 3]),
                1 => meta("r0", &["base:allocation", "base:"]),
                2 => Vec::new(),
                _ => (0..random.below(40)).map(|_| random.below(256) as u8).collect(),
            };
            script = script.option(code, &payload);
        }
        for _ in 0..random.below(3) {
            let at = random.below(script.0.len());
            script.0[at] = random.below(256) as u8;
        }
        let whole = drive(&script.0, false, || usize::MAX / 2);
        assert!(whole.out.len() < 4096, "round {round}");
        let pieces = drive(&script.0, false, || random.below(9));
        assert_eq!(whole, pieces, "round {round}");
    }
}

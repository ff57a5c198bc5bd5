//! The encoder without a socket: what is gathered, whole and after short sends.

use super::*;
use crate::test_random::Random;

fn ticket(wants: Wants, structured: bool, length: u32) -> Ticket {
    Ticket { cookie: 0x0102_0304_0506_0708, offset: 0x1000, length, wants, structured, charge: 1 }
}

/// Everything that waits, sent in pieces of at most `piece()` bytes; and the replies that left.
fn send(replies: &mut Replies<Vec<u8>>, mut piece: impl FnMut() -> usize) -> (Vec<u8>, u64) {
    let (mut sent, mut gone) = (Vec::new(), 0);
    while !replies.is_empty() {
        let mut slices = [IoSlice::new(&[]); 4];
        let used = replies.gather(&mut slices);
        assert!(used > 0 && slices[..used].iter().all(|slice| !slice.is_empty()));
        let all = joined(&slices[..used]);
        let now = piece().clamp(1, all.len());
        sent.extend_from_slice(&all[..now]);
        replies.sent(now, |charge| gone += charge);
    }
    (sent, gone)
}

fn joined(slices: &[IoSlice<'_>]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.iter().copied()).collect()
}

fn one(ticket: Ticket, result: Result<Outcome<Vec<u8>>, IoError>) -> Vec<u8> {
    let mut replies = Replies::default();
    replies.push(&ticket, result);
    send(&mut replies, || usize::MAX).0
}

const COOKIE: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";

#[test]
fn simple_replies() {
    let status = ticket(Wants::Status, false, 0);
    assert_eq!(one(status, Ok(Outcome::Done)), [b"\x67\x44\x66\x98\0\0\0\0", COOKIE].concat());
    let full = one(status, Err(IoError::NoSpace));
    assert_eq!(full, [b"\x67\x44\x66\x98\0\0\0\x1c", COOKIE].concat());
    let read = one(ticket(Wants::Data, false, 3), Ok(Outcome::Data(b"abc".to_vec())));
    assert_eq!(read, [b"\x67\x44\x66\x98\0\0\0\0", COOKIE, b"abc"].concat());
    let failed = one(ticket(Wants::Data, false, 3), Err(IoError::Io));
    assert_eq!(failed, [b"\x67\x44\x66\x98\0\0\0\x05", COOKIE].concat(), "no data with an error");
    // The shorter reply is legal for what carries no payload, structured or not.
    assert_eq!(one(ticket(Wants::Status, true, 0), Ok(Outcome::Done)).len(), 16);
}

#[test]
fn chunks() {
    let head = |kind: &[u8; 2], length: u8| {
        [b"\x66\x8e\x33\xef\0\x01", &kind[..], COOKIE, &[0, 0, 0, length]].concat()
    };
    let read = one(ticket(Wants::Data, true, 3), Ok(Outcome::Data(b"abc".to_vec())));
    assert_eq!(read, [&head(b"\0\x01", 11)[..], b"\0\0\0\0\0\0\x10\0abc"].concat());
    assert_eq!(one(ticket(Wants::Data, true, 0), Ok(Outcome::Done)), head(b"\0\0", 0));
    for wants in [Wants::Data, Wants::Extents(8)] {
        let failed = one(ticket(wants, true, 3), Err(IoError::Io));
        let text = b"\0\0\0\x05\0\x12input/output error";
        assert_eq!(failed, [&head(b"\x80\x01", 24)[..], text].concat());
    }
}

#[test]
fn extents_are_merged_and_cut() {
    let extent = |length, hole, zero| Extent { length, hole, zero };
    let known = [
        extent(512, false, false),
        extent(512, false, false),
        extent(1024, true, true),
        extent(1 << 40, false, true),
        extent(512, false, false),
    ];
    assert_eq!(merged(&known, 1 << 20, 9), [(1024, 0), (1024, 3), ((1 << 20) - 2048, 2)]);
    assert_eq!(merged(&known, 700, 9), [(700, 0)]);
    assert_eq!(merged(&known, 1 << 20, 1), [(1024, 0)]);
    assert_eq!(merged(&known, u32::MAX, 9)[2], (u32::MAX - 2048, 2));
    let all = one(ticket(Wants::Extents(9), true, 2048), Ok(Outcome::Extents(known.to_vec())));
    assert_eq!(all[6..8], [0, 5]);
    assert_eq!(all[20..], *b"\0\0\0\x01\0\0\x04\0\0\0\0\0\0\0\x04\0\0\0\0\x03");
}

#[test]
fn neighbours_without_payload_leave_as_one_slice() {
    let mut replies = Replies::<Vec<u8>>::default();
    for _ in 0..100 {
        replies.push(&ticket(Wants::Status, false, 0), Ok(Outcome::Done));
    }
    let mut slices = [IoSlice::new(&[]); 4];
    assert_eq!(replies.gather(&mut slices), 1);
    assert_eq!(slices[0].len(), 1600);
}

#[test]
#[should_panic(expected = "answered Data with something else")]
fn a_device_that_answers_a_read_without_data_is_a_bug() {
    one(ticket(Wants::Data, false, 3), Ok(Outcome::Done));
}

#[test]
#[should_panic(expected = "what the device read")]
fn a_device_that_reads_too_little_is_a_bug() {
    one(ticket(Wants::Data, false, 3), Ok(Outcome::Data(vec![0; 2])));
}

/// Short sends at any place, and pushes between them, change nothing of the stream.
#[test]
fn the_stream_does_not_depend_on_how_it_is_sent() {
    let mut random = Random::new(3);
    for _ in 0..200 {
        let (mut expected, mut sent, mut gone) = (Vec::new(), Vec::new(), 0);
        let mut replies = Replies::default();
        for round in 0..300 {
            let structured = random.below(2) == 0;
            let length = random.below(300) as u32;
            let data = vec![round as u8; length as usize];
            let (ticket, result) = match random.below(3) {
                0 => (ticket(Wants::Status, structured, length), Ok(Outcome::Done)),
                1 => (ticket(Wants::Data, structured, length), Err(IoError::Io)),
                _ if length == 0 => (ticket(Wants::Data, structured, 0), Ok(Outcome::Done)),
                _ => (ticket(Wants::Data, structured, length), Ok(Outcome::Data(data))),
            };
            expected.extend(match &result {
                Ok(Outcome::Data(data)) => one(ticket, Ok(Outcome::Data(data.clone()))),
                Ok(_) => one(ticket, Ok(Outcome::Done)),
                Err(error) => one(ticket, Err(*error)),
            });
            replies.push(&ticket, result);
            if random.below(3) == 0 {
                let mut slices = [IoSlice::new(&[]); 6];
                let used = replies.gather(&mut slices);
                let all = joined(&slices[..used]);
                let now = random.below(all.len() + 1);
                sent.extend_from_slice(&all[..now]);
                replies.sent(now, |charge| gone += charge);
            }
        }
        let (rest, last) = send(&mut replies, || random.below(100));
        sent.extend(rest);
        assert_eq!(gone + last, 300);
        assert!(sent == expected);
    }
}

#[test]
fn sent_headers_do_not_pile_up() {
    let mut replies = Replies::<Vec<u8>>::default();
    for _ in 0..100_000 {
        replies.push(&ticket(Wants::Status, false, 0), Ok(Outcome::Done));
        replies.push(&ticket(Wants::Status, false, 0), Ok(Outcome::Done));
        // Never empty: one reply always stays behind.
        let waiting = replies.queue.len();
        replies.sent(16 * (waiting - 1), |_| ());
    }
    assert!(replies.heads.capacity() < 4 * COMPACT);
}

#[test]
fn a_lost_client_gives_everything_back() {
    let mut replies = Replies::default();
    for _ in 0..5 {
        replies.push(&ticket(Wants::Data, false, 3), Ok(Outcome::Data(b"abc".to_vec())));
    }
    let mut gone = 0;
    replies.sent(25, |charge| gone += charge);
    replies.clear(|charge| gone += charge);
    assert_eq!(gone, 5);
    assert!(replies.is_empty());
    replies.push(&ticket(Wants::Status, false, 0), Ok(Outcome::Done));
    assert_eq!(send(&mut replies, || 3).0.len(), 16);
}

//! The decoder without a socket: rows of requests, fed whole and in pieces.

use super::*;
use crate::nbd::protocol::Put;
use crate::test_random::Random;

const SIZE: u64 = 1 << 20;
const COOKIE: u64 = 0x0123_4567_89ab_cdef;
const SIMPLE: Session = Session { structured: false, allocation: false };
const FULL: Session = Session { structured: true, allocation: true };

type Requests = Transmission<Vec<u8>>;

/// Admits everything, or only so many.
struct Room(usize);

impl Intake<Vec<u8>> for Room {
    fn admit(&mut self, _bytes: u64) -> bool {
        self.0 = match self.0.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }

    fn allocate(&mut self, length: u32) -> Vec<u8> {
        vec![0xee; length as usize]
    }
}

fn requests(session: Session, geometry: Geometry) -> Requests {
    Transmission::new(session, geometry)
}

fn writable() -> Geometry {
    Geometry::any_range(SIZE)
}

fn request(flags: u16, command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.u32(REQUEST_MAGIC).u16(flags).u16(command).u64(COOKIE).u64(offset).u32(length);
    bytes
}

/// All steps until the input is used up.
fn steps(
    mut requests: Requests,
    script: &[u8],
    mut piece: impl FnMut() -> usize,
) -> Vec<Step<Vec<u8>>> {
    let mut seen = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let mut input = &script[start..end];
        let step = requests.next(&mut input, &mut Room(usize::MAX));
        start = end - input.len();
        match step {
            Step::Starved if end == script.len() || requests.has_ended() => return seen,
            Step::Starved => end = (end + piece().max(1)).min(script.len()),
            step => seen.push(step),
        }
    }
}

fn only(mut seen: Vec<Step<Vec<u8>>>) -> Step<Vec<u8>> {
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

/// What becomes of one request.
fn verdict(
    session: Session,
    geometry: Geometry,
    bytes: &[u8],
) -> Result<Operation<Vec<u8>>, IoError> {
    let whole = steps(requests(session, geometry), bytes, || usize::MAX / 2);
    assert_eq!(whole, steps(requests(session, geometry), bytes, || 1));
    match only(whole) {
        Step::Submit(ticket, operation) => {
            assert_eq!(ticket.cookie, COOKIE);
            Ok(operation)
        }
        Step::Answer(ticket, result) => {
            assert_eq!(ticket.cookie, COOKIE);
            // Nothing to do: seen as a flush by these tests.
            result.map(|()| Operation::Flush)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn good_requests_become_operations() {
    let span = |offset, length| Span { offset, length };
    let fua = command_flag::FUA;
    let table: [(u16, u16, Operation<Vec<u8>>); 10] = [
        (0, command::READ, Operation::Read(span(512, 4096))),
        (fua, command::READ, Operation::Read(span(512, 4096))),
        (command_flag::DF, command::READ, Operation::Read(span(512, 4096))),
        (0, command::TRIM, Operation::Trim { range: span(512, 4096), fua: false }),
        (fua, command::TRIM, Operation::Trim { range: span(512, 4096), fua: true }),
        (fua, command::CACHE, Operation::Cache(span(512, 4096))),
        (
            command_flag::NO_HOLE | fua,
            command::WRITE_ZEROES,
            Operation::WriteZeroes { range: span(512, 4096), fua: true, no_hole: true },
        ),
        (
            0,
            command::WRITE_ZEROES,
            Operation::WriteZeroes { range: span(512, 4096), fua: false, no_hole: false },
        ),
        (
            0,
            command::BLOCK_STATUS,
            Operation::BlockStatus { range: span(512, 4096), limit: EXTENTS },
        ),
        (
            command_flag::REQ_ONE,
            command::BLOCK_STATUS,
            Operation::BlockStatus { range: span(512, 4096), limit: 1 },
        ),
    ];
    for (flags, command, operation) in table {
        assert_eq!(verdict(FULL, writable(), &request(flags, command, 512, 4096)), Ok(operation));
    }
    assert_eq!(
        verdict(SIMPLE, writable(), &request(fua, command::FLUSH, 0, 0)),
        Ok(Operation::Flush)
    );
}

#[test]
fn payloads_are_complete_before_they_are_submitted() {
    for length in [1, 27, 28, 29, 4096, 16 << 10, 100_000] {
        let data: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
        let mut script = request(command_flag::FUA, command::WRITE, 3, length as u32);
        script.bytes(&data);
        let expected = Operation::Write { offset: 3, data, fua: true };
        assert_eq!(verdict(SIMPLE, writable(), &script), Ok(expected));
    }
}

#[test]
fn the_rest_of_a_payload_may_be_received_in_place() {
    let mut requests = requests(SIMPLE, writable());
    let mut script = request(0, command::WRITE, 0, 100);
    script.bytes(&[1; 10]);
    let mut input = &script[..];
    assert!(requests.missing().is_none());
    assert_eq!(requests.next(&mut input, &mut Room(1)), Step::Starved);
    assert!(input.is_empty());
    for piece in [50, 40] {
        requests.missing().unwrap()[..piece].fill(2);
        requests.filled(piece);
    }
    let data = [&[1; 10][..], &[2; 90]].concat();
    match requests.next(&mut &b""[..], &mut Room(0)) {
        Step::Submit(_, operation) => {
            assert_eq!(operation, Operation::Write { offset: 0, data, fua: false });
        }
        other => panic!("{other:?}"),
    }
    assert!(requests.missing().is_none());
}

#[test]
fn bad_requests_get_the_error_of_the_specification() {
    use IoError::*;
    let read_only = Geometry { read_only: true, ..writable() };
    let blocks = Geometry { minimum: 512, ..writable() };
    let max = writable().maximum;
    let table: &[(Session, Geometry, u16, u16, u64, u32, IoError)] = &[
        (SIMPLE, writable(), 0, command::READ, SIZE - 1, 2, Invalid),
        (SIMPLE, writable(), 0, command::READ, SIZE + 1, 0, Invalid),
        (SIMPLE, writable(), 0, command::TRIM, SIZE, 1, Invalid),
        (SIMPLE, writable(), 0, command::CACHE, SIZE, 1, Invalid),
        (FULL, writable(), 0, command::BLOCK_STATUS, SIZE, 1, Invalid),
        (SIMPLE, writable(), 0, command::WRITE, SIZE, 1, NoSpace),
        (SIMPLE, writable(), 0, command::WRITE_ZEROES, 1, SIZE as u32, NoSpace),
        (SIMPLE, writable(), 0, command::READ, u64::MAX, 2, Invalid),
        (SIMPLE, writable(), 0, command::WRITE, u64::MAX - 1, 2, NoSpace),
        (SIMPLE, read_only, 0, command::WRITE, 0, 4, NotPermitted),
        (SIMPLE, read_only, 0, command::WRITE, SIZE, 4, NotPermitted),
        (SIMPLE, read_only, 0, command::TRIM, 0, 4, NotPermitted),
        (SIMPLE, read_only, 0, command::WRITE_ZEROES, 0, 4, NotPermitted),
        (SIMPLE, writable(), 0, command::READ, 0, max + 1, Invalid),
        (FULL, writable(), 0, command::READ, 0, max + 1, TooLong),
        (FULL, writable(), command_flag::DF, command::READ, 0, max + 1, TooLong),
        (FULL, writable(), 0, command::WRITE, 0, max + 1, Invalid),
        (SIMPLE, blocks, 0, command::READ, 256, 512, Invalid),
        (SIMPLE, blocks, 0, command::WRITE, 512, 100, Invalid),
        (SIMPLE, writable(), 0, 8, 0, 0, Invalid),
        (SIMPLE, writable(), 0, 0xffff, 0, 77, Invalid),
        (SIMPLE, writable(), 1 << 5, command::WRITE, 0, 16, Invalid),
        (SIMPLE, writable(), command_flag::NO_HOLE, command::WRITE, 0, 16, Invalid),
        (SIMPLE, writable(), command_flag::NO_HOLE, command::READ, 0, 16, Invalid),
        (SIMPLE, writable(), command_flag::DF, command::READ, 0, 16, Invalid),
        (FULL, writable(), command_flag::REQ_ONE, command::READ, 0, 16, Invalid),
        (FULL, writable(), 1 << 4, command::WRITE_ZEROES, 0, 16, Invalid),
        (FULL, writable(), command_flag::DF, command::CACHE, 0, 16, Invalid),
        (SIMPLE, writable(), 0, command::FLUSH, 1, 0, Invalid),
        (SIMPLE, writable(), 0, command::FLUSH, 0, 1, Invalid),
        (SIMPLE, writable(), 0, command::BLOCK_STATUS, 0, 16, Invalid),
        (FULL, writable(), 0, command::BLOCK_STATUS, 0, 0, Invalid),
    ];
    for &(session, geometry, flags, command, offset, length, error) in table {
        let mut script = request(flags, command, offset, length);
        if command == command::WRITE {
            // Off the stream before the answer, and never in the device's memory.
            script.resize(script.len() + length as usize, 0);
        }
        let fed = steps(requests(session, geometry), &script, || 64 << 10);
        let Step::Answer(ticket, result) = only(fed) else { panic!("{command} {offset} {length}") };
        assert_eq!(result, Err(error), "command {command} flags {flags} {offset}+{length}");
        assert_eq!(ticket.charge, 0);
    }
    // Good neighbours of bad requests.
    assert!(verdict(SIMPLE, read_only, &request(0, command::FLUSH, 0, 0)).is_ok());
    assert!(verdict(SIMPLE, writable(), &request(0, command::READ, SIZE - 1, 1)).is_ok());
}

#[test]
fn empty_ranges_need_no_device() {
    for command in [command::READ, command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        let fed = steps(requests(FULL, writable()), &request(0, command, SIZE, 0), || 1);
        assert!(matches!(only(fed), Step::Answer(_, Ok(()))), "command {command}");
    }
}

#[test]
fn a_request_without_room_waits_untouched() {
    let mut requests = requests(SIMPLE, writable());
    let script = [request(0, command::READ, 0, 1), request(0, command::WRITE, 0, 1)].concat();
    let mut input = &script[..];
    let mut room = Room(1);
    assert!(matches!(requests.next(&mut input, &mut room), Step::Submit(..)));
    for _ in 0..2 {
        assert_eq!(requests.next(&mut input, &mut room), Step::Full);
        assert_eq!(input.len(), REQUEST_HEADER);
    }
    assert_eq!(requests.next(&mut input, &mut Room(1)), Step::Starved);
    assert!(requests.missing().is_some());
}

#[test]
fn disconnect_and_garbage_end_the_phase() {
    let mut bye = request(0xffff, command::DISC, 7, 7);
    bye.bytes(b"ignored");
    assert_eq!(only(steps(requests(SIMPLE, writable()), &bye, || 1)), Step::Disconnect);
    // Seen with the fourth byte.
    let fed = steps(requests(SIMPLE, writable()), b"GET ", || 1);
    assert!(matches!(only(fed), Step::Violation(_)));
}

#[test]
fn a_closing_export_refuses_but_still_takes_payloads_off_the_stream() {
    let mut closing = requests(SIMPLE, writable());
    closing.close();
    let mut script = request(0, command::WRITE, 0, 10);
    script.bytes(&[0; 10]).bytes(&request(0, command::FLUSH, 0, 0));
    for step in steps(closing, &script, || 3) {
        assert!(matches!(step, Step::Answer(_, Err(IoError::ShuttingDown))));
    }
}

/// Whatever the bytes are, and however they are cut, the outcome is the same, and no operation
/// reaches beyond the device.
#[test]
fn random_bytes_neither_panic_nor_depend_on_their_pieces() {
    let mut random = Random::new(2);
    for round in 0..3000 {
        let mut script = Vec::new();
        for _ in 0..random.below(8) {
            let command = random.below(9) as u16;
            let length = random.below(200) as u32;
            let offset = [0, 5, SIZE - 100, SIZE, u64::MAX - 50][random.below(5)];
            let flags = [0, 0, 0, 1, 2, 4, 8, 32][random.below(8)];
            script.bytes(&request(flags, command, offset, length));
            if command == command::WRITE {
                script.resize(script.len() + length as usize, 0x55);
            }
        }
        for _ in 0..random.below(3) * script.len().min(1) {
            let at = random.below(script.len());
            script[at] = random.below(256) as u8;
        }
        let session = if round % 2 == 0 { SIMPLE } else { FULL };
        let whole = steps(requests(session, writable()), &script, || usize::MAX / 2);
        let pieces = steps(requests(session, writable()), &script, || random.below(50));
        assert_eq!(whole, pieces, "round {round}");
        for step in whole {
            let Step::Submit(_, operation) = step else { continue };
            let end = match operation {
                Operation::Read(range)
                | Operation::Cache(range)
                | Operation::Trim { range, .. }
                | Operation::WriteZeroes { range, .. }
                | Operation::BlockStatus { range, .. } => range.offset + range.length,
                Operation::Write { offset, data, .. } => offset + data.len() as u64,
                Operation::Flush => 0,
            };
            assert!(end <= SIZE, "round {round}");
        }
    }
}

//! Reads what the server said to a client that sent these bytes, by the protocol and not by the server's code: every answer
//! is whole and to something that was asked, and every request is answered once. A client that gives two requests one name could not
//! tell their answers apart, so where that matters reading stops.

use nbd_server::nbd::protocol::{
    CHUNK_DONE, CHUNK_MAGIC, MAGIC, OPTION_HEADER, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    REQUEST_HEADER, REQUEST_MAGIC, SIMPLE_REPLY_MAGIC, chunk, command, option, option_reply,
};
use std::collections::BTreeMap;

/// Errors that NBD knows.
const ERRORS: [u32; 8] = [1, 5, 12, 22, 28, 75, 95, 108];
const NO_ZEROES: u32 = 2;

/// Big-endian numbers off the front of a stream.
struct Stream<'a>(&'a [u8]);

impl<'a> Stream<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        self.0.split_off(..len)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|number| number as u16)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|number| number as u32)
    }
}

/// Panics if an answer is not one.
pub(super) fn check(client: &[u8], said: &[u8]) {
    let (mut client, mut said) = (Stream(client), Stream(said));
    assert_eq!(said.number(8), Some(MAGIC), "the greeting");
    assert_eq!((said.number(8), said.u16()), (Some(OPTION_MAGIC), Some(3)), "the greeting");
    if let Some(structured) = options(&mut client, &mut said) {
        transmission(client, said, structured);
    } else {
        assert!(said.0.is_empty(), "{} bytes answer nothing", said.0.len());
    }
}

/// Whether there is a transmission phase, and whether with structured replies.
fn options(client: &mut Stream<'_>, said: &mut Stream<'_>) -> Option<bool> {
    let flags = client.u32()?;
    let mut structured = false;
    loop {
        if client.0.len() < OPTION_HEADER || client.number(8)? != OPTION_MAGIC {
            return None;
        }
        let (code, length) = (client.u32()?, client.u32()?);
        client.take(length as usize)?;
        if said.0.is_empty() {
            // The server hung up, which it may do at any option.
            return None;
        }
        if code == option::EXPORT_NAME {
            said.take(10).expect("size and flags");
            let zeroes = if flags & NO_ZEROES == 0 { 124 } else { 0 };
            let zeroes = said.take(zeroes).expect("the zeroes");
            assert!(zeroes.iter().all(|&byte| byte == 0), "the zeroes");
            return Some(structured);
        }
        let accepted = loop {
            assert_eq!(said.number(8), Some(OPTION_REPLY_MAGIC), "an answer to option {code}");
            assert_eq!(said.u32(), Some(code), "an answer to the last option");
            let (reply, length) = (said.u32().expect("a kind"), said.u32().expect("a length"));
            let payload = said.take(length as usize).expect("a payload");
            if reply >> 31 == 1 {
                assert!(str::from_utf8(payload).is_ok(), "an error is a text");
                break false;
            }
            if reply == option_reply::ACK {
                assert!(payload.is_empty(), "an acknowledgement has no payload");
                break true;
            }
        };
        match code {
            option::STRUCTURED_REPLY => structured |= accepted,
            option::GO if accepted => return Some(structured),
            option::ABORT => return None,
            _ => {}
        }
    }
}

/// What was asked under one name: command and length.
type Asked = Vec<(u16, u32)>;

fn requests(mut client: Stream<'_>) -> BTreeMap<u64, Asked> {
    let mut asked = BTreeMap::<u64, Asked>::new();
    while client.0.len() >= REQUEST_HEADER && client.u32() == Some(REQUEST_MAGIC) {
        let header = (client.u16(), client.u16(), client.number(8), client.number(8), client.u32());
        let (_, Some(command), Some(cookie), _, Some(length)) = header else { break };
        let payload = if command == command::WRITE { length } else { 0 };
        if command == command::DISC || client.take(payload as usize).is_none() {
            break;
        }
        asked.entry(cookie).or_default().push((command, length));
    }
    asked
}

fn transmission(client: Stream<'_>, mut said: Stream<'_>, structured: bool) {
    let mut asked = requests(client);
    while !said.0.is_empty() {
        let magic = said.u32().expect("a magic number");
        let (chunk, error) = match magic {
            CHUNK_MAGIC => {
                assert_eq!(said.u16(), Some(CHUNK_DONE), "one chunk to a reply");
                (said.u16(), 0)
            }
            SIMPLE_REPLY_MAGIC => (None, said.u32().expect("an error")),
            _ => panic!("{magic:#x} begins no reply"),
        };
        let cookie = said.number(8).expect("a cookie");
        let same = asked.get_mut(&cookie).expect("an answer to something that was asked");
        if same.iter().any(|one| *one != same[0]) {
            return;
        }
        let (command, length) = same.pop().expect("one answer each");
        let has_chunks = structured && matches!(command, command::READ | command::BLOCK_STATUS);
        assert_eq!(chunk.is_some(), has_chunks, "the kind of reply that command {command} has");
        if let Some(kind) = chunk {
            let payload_len = said.u32().expect("a length") as usize;
            let mut payload = Stream(said.take(payload_len).expect("a payload"));
            match kind {
                chunk::NONE => assert_eq!((payload_len, length), (0, 0)),
                chunk::OFFSET_DATA => assert_eq!(payload_len, 8 + length as usize),
                chunk::BLOCK_STATUS => {
                    assert!(payload_len >= 12 && payload_len % 8 == 4, "id and extents");
                }
                chunk::ERROR => {
                    assert!(ERRORS.contains(&payload.u32().expect("an error")));
                    let text = payload.u16().expect("the length of a text");
                    assert_eq!(payload.0.len(), usize::from(text));
                }
                _ => panic!("no chunk is of kind {kind}"),
            }
        } else if error == 0 {
            let data = if command == command::READ { length } else { 0 };
            said.take(data as usize).expect("what was read");
        } else {
            assert!(ERRORS.contains(&error), "no error is {error}");
        }
        if same.is_empty() {
            asked.remove(&cookie);
        }
    }
    assert!(asked.is_empty(), "not answered: {asked:?}");
}

//! As much of an NBD client as the demo needs: one request at a time, over a Unix socket. Not for
//! anybody else: `nbd-server` is tested with real ones.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const SERVER_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x3_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// Fixed newstyle, and no 124 zeros.
const FLAGS: u16 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const ERROR_BIT: u32 = 1 << 31;
/// Longest answer to an option that is read.
const LONGEST: u32 = 64 << 10;
/// A daemon that holds I/O longer than this has failed the demo.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct NbdClient {
    stream: UnixStream,
    last: u64,
}

impl NbdClient {
    /// Opens the export; what the server says against it is the error.
    pub(super) fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let greeting: [u8; 18] = take(&mut stream)?;
        expect(greeting[..8] == SERVER_MAGIC.to_be_bytes(), "no NBD server")?;
        let mut hello = u32::from(FLAGS).to_be_bytes().to_vec();
        hello.extend(OPTION_MAGIC.to_be_bytes());
        hello.extend(OPTION_GO.to_be_bytes());
        hello.extend((export.len() as u32 + 6).to_be_bytes());
        hello.extend((export.len() as u32).to_be_bytes());
        hello.extend(export.as_bytes());
        hello.extend([0, 0]);
        stream.write_all(&hello)?;
        loop {
            let head: [u8; 20] = take(&mut stream)?;
            expect(head[..8] == OPTION_REPLY_MAGIC.to_be_bytes(), "no answer to GO")?;
            let [.., a, b, c, d] = head;
            let length = u32::from_be_bytes([a, b, c, d]);
            let kind = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
            expect(length <= LONGEST, "a long answer to GO")?;
            let mut text = vec![0; length as usize];
            stream.read_exact(&mut text)?;
            if kind & ERROR_BIT != 0 {
                let text = String::from_utf8_lossy(&text);
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text.into_owned()));
            }
            if kind == REPLY_ACK {
                return Ok(Self { stream, last: 0 });
            }
        }
    }

    pub(super) fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        self.ask(0, offset, length, &[])?;
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask(1, offset, bytes.len() as u32, bytes)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.ask(3, 0, 0, &[])
    }

    fn ask(&mut self, command: u16, offset: u64, length: u32, payload: &[u8]) -> io::Result<()> {
        self.last += 1;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(command.to_be_bytes());
        request.extend(self.last.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(payload);
        self.stream.write_all(&request)?;
        let reply: [u8; 16] = take(&mut self.stream)?;
        let [m0, m1, m2, m3, e0, e1, e2, e3, ref cookie @ ..] = reply;
        expect(u32::from_be_bytes([m0, m1, m2, m3]) == REPLY_MAGIC, "no reply")?;
        expect(*cookie == self.last.to_be_bytes(), "the reply to something else")?;
        match u32::from_be_bytes([e0, e1, e2, e3]) {
            0 => Ok(()),
            error => Err(io::Error::other(format!("the server answers with error {error}"))),
        }
    }
}

impl Drop for NbdClient {
    fn drop(&mut self) {
        // The polite word at the end; it has no reply.
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0, 0, 0, 2]);
        request.extend([0; 20]);
        let _ = self.stream.write_all(&request);
    }
}

fn take<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn expect(holds: bool, what: &str) -> io::Result<()> {
    match holds {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, what)),
    }
}

//! A small NBD client of our own: blocking, simple replies, as many requests in flight as wanted, every reply and every error seen. It is
//! written from the protocol's specification, not from the server, and knows nothing of replication.

use super::ports::loopback;
use super::seconds;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const FLAG_FUA: u16 = 1;

/// A request that can be sent.
#[derive(Clone, Debug)]
pub enum Ask<'a> {
    /// So many bytes from this offset.
    Read(u64, u32),
    /// These bytes, at this offset.
    Write(u64, &'a [u8]),
    /// As `Write`, stable when it is answered.
    WriteFua(u64, &'a [u8]),
    /// Everything answered so far becomes stable.
    Flush,
    /// Zeros from this offset, so many bytes; space may be given back.
    Trim(u64, u32),
    /// Zeros from this offset, so many bytes.
    WriteZeroes(u64, u32),
}

/// Why there is no (good) reply.
#[derive(Debug)]
pub enum Lost {
    /// The handshake was refused, in the server's words.
    Refused(String),
    /// The server answered with this error number.
    Errno(u32),
    /// The connection is gone, or no answer came in time.
    Connection(io::Error),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Errno(number) => write!(f, "error {number}"),
            Self::Connection(error) => write!(f, "connection lost: {error}"),
        }
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}

/// An answer: which request, and its bytes (of a read) or the error number.
pub type Answered = (u64, Result<Vec<u8>, u32>);

/// A connection to an export.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<Stream>,
    writer: Stream,
    /// Bytes of the export.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    last_cookie: u64,
    /// Of requests in flight: the bytes that come with a good answer.
    in_flight: BTreeMap<u64, usize>,
}

impl Client {
    /// Over a Unix socket.
    ///
    /// # Errors
    /// If it is refused, or nobody listens.
    pub fn unix(socket: &Path, export: &str) -> Result<Self, Lost> {
        let stream = UnixStream::connect(socket)?;
        Self::shake_hands(Stream::Unix(stream.try_clone()?), Stream::Unix(stream), export)
    }

    /// Over TCP on loopback.
    ///
    /// # Errors
    /// If it is refused, or nobody listens.
    pub fn tcp(port: u16, export: &str) -> Result<Self, Lost> {
        let stream = TcpStream::connect(loopback(port))?;
        stream.set_nodelay(true)?;
        Self::shake_hands(Stream::Tcp(stream.try_clone()?), Stream::Tcp(stream), export)
    }

    fn shake_hands(reader: Stream, mut writer: Stream, export: &str) -> Result<Self, Lost> {
        reader.set_patience(seconds(60))?;
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        if (u64_from(&mut reader)?, u64_from(&mut reader)?) != (NBDMAGIC, IHAVEOPT) {
            return Err(Lost::Refused("this is no NBD server".into()));
        }
        let server_flags = u16_from(&mut reader)?;
        // Fixed newstyle, no zeroes: whatever the server has of these.
        let flags = u32::from(server_flags & 3);
        let length = u32::try_from(export.len()).expect("a short name");
        let mut hello = flags.to_be_bytes().to_vec();
        hello.extend(IHAVEOPT.to_be_bytes());
        hello.extend(OPT_GO.to_be_bytes());
        hello.extend((length + 6).to_be_bytes());
        hello.extend(length.to_be_bytes());
        hello.extend(export.as_bytes());
        // No special information is asked for.
        hello.extend(0u16.to_be_bytes());
        writer.write_all(&hello)?;
        let (mut size, mut transmission) = (None, 0);
        loop {
            let magic = u64_from(&mut reader)?;
            let (option, reply) = (u32_from(&mut reader)?, u32_from(&mut reader)?);
            let mut data = vec![0; u32_from(&mut reader)? as usize];
            reader.read_exact(&mut data)?;
            if magic != OPTION_REPLY || option != OPT_GO {
                return Err(Lost::Refused("an answer to something else".into()));
            }
            match reply {
                REP_INFO if data.starts_with(&[0, 0]) && data.len() == 12 => {
                    size = Some(u64::from_be_bytes(data[2..10].try_into().expect("eight bytes")));
                    transmission = u16::from_be_bytes([data[10], data[11]]);
                }
                REP_INFO => {}
                REP_ACK => break,
                error if error & REP_ERROR != 0 => {
                    return Err(Lost::Refused(String::from_utf8_lossy(&data).into_owned()));
                }
                other => return Err(Lost::Refused(format!("a reply of type {other}"))),
            }
        }
        let size = size.ok_or_else(|| Lost::Refused("no size was told".into()))?;
        let (last_cookie, in_flight) = (0, BTreeMap::new());
        Ok(Self { reader, writer, size, flags: transmission, last_cookie, in_flight })
    }

    /// How long an answer may take before the connection counts as lost; at first a minute.
    ///
    /// # Panics
    /// If the socket does not take it.
    pub fn set_patience(&mut self, patience: Duration) {
        self.reader.get_ref().set_patience(patience).expect("a socket takes a timeout");
    }

    /// Sends a request and does not wait; the cookie its answer will have.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, ask: &Ask<'_>) -> Result<u64, Lost> {
        let (flags, kind, offset, length, payload): (u16, u16, u64, u32, &[u8]) = match *ask {
            Ask::Read(offset, length) => (0, 0, offset, length, &[]),
            Ask::Write(offset, bytes) => (0, 1, offset, length_of(bytes), bytes),
            Ask::WriteFua(offset, bytes) => (FLAG_FUA, 1, offset, length_of(bytes), bytes),
            Ask::Flush => (0, 3, 0, 0, &[]),
            Ask::Trim(offset, length) => (0, 4, offset, length, &[]),
            Ask::WriteZeroes(offset, length) => (0, 6, offset, length, &[]),
        };
        self.last_cookie += 1;
        let mut bytes = Vec::with_capacity(28 + payload.len());
        bytes.extend(REQUEST.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.last_cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.extend(payload);
        let answer = if let Ask::Read(_, length) = ask { *length as usize } else { 0 };
        self.in_flight.insert(self.last_cookie, answer);
        self.writer.write_all(&bytes)?;
        Ok(self.last_cookie)
    }

    /// The next answer, to whatever request.
    ///
    /// # Errors
    /// If the connection is gone, no answer comes in time, or it is none.
    pub fn receive(&mut self) -> Result<Answered, Lost> {
        let (magic, error) = (u32_from(&mut self.reader)?, u32_from(&mut self.reader)?);
        let cookie = u64_from(&mut self.reader)?;
        // IO-1: exactly one answer to each request, and none to what was not asked.
        let length = self.in_flight.remove(&cookie);
        let (SIMPLE_REPLY, Some(length)) = (magic, length) else {
            let text = format!("magic {magic:#x}, cookie {cookie} is no answer");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        };
        if error != 0 {
            return Ok((cookie, Err(error)));
        }
        let mut data = vec![0; length];
        self.reader.read_exact(&mut data)?;
        Ok((cookie, Ok(data)))
    }

    /// Sends a request and waits for its answer; nothing else may be in flight.
    ///
    /// # Errors
    /// What the server answered, or that it did not.
    pub fn call(&mut self, ask: &Ask<'_>) -> Result<Vec<u8>, Lost> {
        assert!(self.in_flight.is_empty(), "one at a time, or send and receive");
        self.send(ask)?;
        self.receive()?.1.map_err(Lost::Errno)
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, Lost> {
        self.call(&Ask::Read(offset, length))
    }

    /// Writes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Lost> {
        self.call(&Ask::Write(offset, bytes)).map(drop)
    }

    /// Flushes.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn flush(&mut self) -> Result<(), Lost> {
        self.call(&Ask::Flush).map(drop)
    }

    /// Requests without an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // NBD_CMD_DISC, so that the server sees a polite end; if the connection is gone, it is gone.
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&REQUEST.to_be_bytes());
        bytes[7] = 2;
        let _ = self.writer.write_all(&bytes);
        self.writer.close();
        // And this is the end the server sees: when it has hung up, the client counts as gone there too.
        let begin = Instant::now();
        let mut sink = [0; 4096];
        let _ = self.reader.get_ref().set_patience(seconds(5));
        while begin.elapsed() < seconds(5) && matches!(self.reader.read(&mut sink), Ok(1..)) {}
    }
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(patience)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(patience)),
        }
    }

    fn close(&self) {
        // It may be closed already.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a request has less than 4 GiB")
}

fn u16_from(reader: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    reader.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

fn u32_from(reader: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn u64_from(reader: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}

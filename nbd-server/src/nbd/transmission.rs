//! The receiving half of the transmission phase: bytes of the client in, checked requests out.
//! No socket and no reply here; what cannot be a request becomes an event that says how it is to
//! be answered.
//!
//! A payload is copied once, out of the receive buffer into the device's; what of it has not
//! arrived yet is received straight into the device's buffer ([`Transmission::missing`]).

use super::handshake::Session;
use super::limits::EXTENTS;
use super::protocol::{REQUEST_HEADER, REQUEST_MAGIC, Take, command, command_flag};
use super::reply::{Ticket, Wants};
use crate::device::{Geometry, IoError, Operation, Span};

/// The state of the receiving half of one connection.
#[derive(Debug)]
pub struct Transmission<B> {
    session: Session,
    geometry: Geometry,
    closing: bool,
    phase: Phase<B>,
}

#[derive(Debug)]
enum Phase<B> {
    Header,
    Payload {
        ticket: Ticket,
        offset: u64,
        data: B,
        filled: usize,
        fua: bool,
    },
    /// A payload that nobody wants, and the answer once it is off the stream.
    Skip {
        left: u32,
        ticket: Ticket,
        error: IoError,
    },
    Ended,
}

/// Where memory for requests comes from.
pub trait Intake<B> {
    /// Takes room for one request that holds `bytes` of payload until its reply is sent; `false`
    /// if there is none now.
    fn admit(&mut self, bytes: u64) -> bool;
    /// Memory for a payload that has been admitted.
    fn allocate(&mut self, length: u32) -> B;
}

/// What became of the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<B> {
    /// More bytes are needed.
    Starved,
    /// There is no room for the next request; it stays in the input.
    Full,
    /// For the device.
    Submit(Ticket, Operation<B>),
    /// Answered without the device: with an error, or because there is nothing to do.
    Answer(Ticket, Result<(), IoError>),
    /// The client is done. Nothing may follow.
    Disconnect,
    /// The stream is lost.
    Violation(&'static str),
}

struct Header {
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    length: u32,
}

impl Header {
    fn decode(mut input: &[u8]) -> Option<Result<Self, &'static str>> {
        // The magic is checked as soon as it is there: who talks another protocol may never send
        // a whole header.
        if input.u32()? != REQUEST_MAGIC {
            return Some(Err("wrong request magic"));
        }
        Some(Ok(Self {
            flags: input.u16()?,
            command: input.u16()?,
            cookie: input.u64()?,
            offset: input.u64()?,
            length: input.u32()?,
        }))
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Transmission<B> {
    /// The start of the phase.
    pub fn new(session: Session, geometry: Geometry) -> Self {
        Self { session, geometry, closing: false, phase: Phase::Header }
    }

    /// From now on new requests are answered with [`IoError::ShuttingDown`].
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Nothing further will come out of it.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// The unfilled rest of a payload. What is received into it is told with
    /// [`Transmission::filled`], before anything else is fed.
    pub fn missing(&mut self) -> Option<&mut [u8]> {
        match &mut self.phase {
            Phase::Payload { data, filled, .. } => Some(&mut data.as_mut()[*filled..]),
            _ => None,
        }
    }

    /// `bytes` of what was missing have been received in place.
    pub fn filled(&mut self, bytes: usize) {
        let Phase::Payload { data, filled, .. } = &mut self.phase else {
            panic!("no payload is being received");
        };
        *filled += bytes;
        assert!(*filled <= data.as_ref().len(), "more was received than was missing");
    }

    /// Consumes the next thing from the front of `input`.
    pub fn next(&mut self, input: &mut &[u8], intake: &mut impl Intake<B>) -> Step<B> {
        loop {
            match &mut self.phase {
                Phase::Header => {
                    let header = match Header::decode(input) {
                        None => return Step::Starved,
                        Some(Ok(header)) => header,
                        Some(Err(why)) => return self.end(Step::Violation(why)),
                    };
                    if header.command == command::DISC {
                        return self.end(Step::Disconnect);
                    }
                    if let Some(step) = self.header(&header, intake) {
                        if !matches!(step, Step::Full) {
                            *input = &input[REQUEST_HEADER..];
                        }
                        return step;
                    }
                    *input = &input[REQUEST_HEADER..];
                }
                Phase::Payload { data, filled, .. } => {
                    let missing = &mut data.as_mut()[*filled..];
                    let present = missing.len().min(input.len());
                    let (payload, rest) = input.split_at(present);
                    missing[..present].copy_from_slice(payload);
                    *input = rest;
                    if present < missing.len() {
                        *filled += present;
                        return Step::Starved;
                    }
                    return self.end_payload();
                }
                Phase::Skip { left, ticket, error } => {
                    let present = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *input = &input[present..];
                    *left -= u32::try_from(present).expect("at most what is left");
                    if *left > 0 {
                        return Step::Starved;
                    }
                    let answer = Step::Answer(*ticket, Err(*error));
                    self.phase = Phase::Header;
                    return answer;
                }
                Phase::Ended => return Step::Starved,
            }
        }
    }

    fn end(&mut self, step: Step<B>) -> Step<B> {
        self.phase = Phase::Ended;
        step
    }

    /// Decides about a request; `None` if its payload is still to come.
    fn header(&mut self, header: &Header, intake: &mut impl Intake<B>) -> Option<Step<B>> {
        let length = header.length;
        let verdict = self.check(header);
        let payload_bytes = match (header.command, &verdict) {
            (command::READ | command::WRITE, Ok(())) => u64::from(length),
            (command::BLOCK_STATUS, Ok(())) => EXTENTS as u64 * 8,
            _ => 0,
        };
        if !intake.admit(payload_bytes) {
            return Some(Step::Full);
        }
        let one = header.flags & command_flag::REQ_ONE != 0;
        let limit = if one { 1 } else { EXTENTS };
        let ticket = Ticket {
            cookie: header.cookie,
            offset: header.offset,
            length,
            wants: match header.command {
                command::READ => Wants::Data,
                command::BLOCK_STATUS => Wants::Extents(limit),
                _ => Wants::Status,
            },
            structured: self.session.structured,
            charge: payload_bytes,
        };
        let range = Span { offset: header.offset, length: u64::from(length) };
        let fua = header.flags & command_flag::FUA != 0;
        let operation = match (header.command, verdict) {
            (command::WRITE, Err(error)) if length > 0 => {
                // The payload leaves the stream before the answer is sent.
                self.phase = Phase::Skip { left: length, ticket, error };
                return None;
            }
            (_, Err(error)) => return Some(Step::Answer(ticket, Err(error))),
            (command::FLUSH, Ok(())) => Operation::Flush,
            (_, Ok(())) if length == 0 => return Some(Step::Answer(ticket, Ok(()))),
            (command::WRITE, Ok(())) => {
                let data = intake.allocate(length);
                assert_eq!(data.as_ref().len(), length as usize, "what the device allocated");
                let offset = header.offset;
                self.phase = Phase::Payload { ticket, offset, data, filled: 0, fua };
                return None;
            }
            (command::READ, Ok(())) => Operation::Read(range),
            (command::TRIM, Ok(())) => Operation::Trim { range, fua },
            (command::CACHE, Ok(())) => Operation::Cache(range),
            (command::WRITE_ZEROES, Ok(())) => {
                let no_hole = header.flags & command_flag::NO_HOLE != 0;
                Operation::WriteZeroes { range, fua, no_hole }
            }
            (command::BLOCK_STATUS, Ok(())) => Operation::BlockStatus { range, limit },
            (other, Ok(())) => unreachable!("check() let command {other} through"),
        };
        Some(Step::Submit(ticket, operation))
    }

    /// Whether the device may see a request. Flags, then size, then permission, then range, then
    /// alignment: a write beyond the end of a read-only export is not permitted.
    fn check(&self, header: &Header) -> Result<(), IoError> {
        let Geometry { size, minimum, maximum, read_only, .. } = self.geometry;
        let &Header { command, offset, length, .. } = header;
        // Existing clients set FUA on reads, so it is no error anywhere.
        let allowed = command_flag::FUA
            | match command {
                command::READ if self.session.structured => command_flag::DF,
                command::WRITE_ZEROES => command_flag::NO_HOLE,
                command::BLOCK_STATUS => command_flag::REQ_ONE,
                command::READ | command::WRITE | command::FLUSH => 0,
                command::TRIM | command::CACHE => 0,
                _ => return Err(IoError::Invalid),
            };
        if header.flags & !allowed != 0 {
            return Err(IoError::Invalid);
        }
        let changes = matches!(command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if matches!(command, command::READ | command::WRITE) && length > maximum {
            let chunks = self.session.structured && command == command::READ;
            return Err(if chunks { IoError::TooLong } else { IoError::Invalid });
        }
        if self.closing {
            return Err(IoError::ShuttingDown);
        }
        if read_only && changes {
            return Err(IoError::NotPermitted);
        }
        if command == command::FLUSH {
            return if offset == 0 && length == 0 { Ok(()) } else { Err(IoError::Invalid) };
        }
        if command == command::BLOCK_STATUS && (!self.session.allocation || length == 0) {
            return Err(IoError::Invalid);
        }
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > size) {
            let beyond_writable = matches!(command, command::WRITE | command::WRITE_ZEROES);
            return Err(if beyond_writable { IoError::NoSpace } else { IoError::Invalid });
        }
        if !offset.is_multiple_of(minimum.into()) || !length.is_multiple_of(minimum) {
            return Err(IoError::Invalid);
        }
        Ok(())
    }

    fn end_payload(&mut self) -> Step<B> {
        match std::mem::replace(&mut self.phase, Phase::Header) {
            Phase::Payload { ticket, offset, data, fua, .. } => {
                Step::Submit(ticket, Operation::Write { offset, data, fua })
            }
            _ => unreachable!("called when a payload is complete"),
        }
    }
}

#[cfg(test)]
mod tests;

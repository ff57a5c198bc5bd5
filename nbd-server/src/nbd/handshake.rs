//! The fixed newstyle handshake, server side: bytes of the client in, bytes for the client and
//! questions to the owner of the exports out. No socket, no clock (the deadline is the driver's).
//!
//! ```text
//! greeting ─► client flags ─► option ─┬─► answered here ───────────────┬─► option …
//!                                     └─► question ─► listed/described ┴─► transmission, or the end
//! ```

use super::exports::{ExportInfo, Refusal, RefusalKind};
use super::limits::{OPTION_PAYLOAD, OPTION_SKIP, OPTIONS};
use super::options::{InfoRequest, MetaRequest, info_request, meta_request, string};
use super::protocol::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, MAGIC, MAX_STRING,
    OPTION_HEADER, OPTION_MAGIC, OPTION_REPLY_MAGIC, Put, Take, flag, info, option, option_reply,
};
use crate::device::Geometry;

/// The state of one handshake.
#[derive(Debug, Default)]
pub struct Handshake {
    flags: Option<u32>,
    structured: bool,
    /// The export, as the client spelled it, for which `base:allocation` is selected.
    allocation_of: Option<String>,
    options: u32,
    skip: Option<Skip>,
    question: Option<Question>,
    shutdown: Option<String>,
}

/// What the driver has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what is to be sent, then receive more.
    Starved,
    /// Answer with [`Handshake::listed`].
    List,
    /// Answer with [`Handshake::described`], without opening the export.
    Describe(String),
    /// Open the export and answer with [`Handshake::described`].
    Open(String),
    /// Send what is to be sent and hang up.
    Close(Ending),
}

/// What follows an answer to a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// More options.
    Options,
    /// The transmission phase.
    Transmission(Session),
    /// Hang up.
    Close(Ending),
}

/// Why a handshake ends without a transmission phase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The client said so.
    #[error("the client aborted")]
    Aborted,
    /// The client broke the protocol in a way that cannot be answered.
    #[error("protocol violation: {0}")]
    Violation(&'static str),
    /// EXPORT_NAME has no other way to refuse.
    #[error("refused: {0}")]
    Refused(String),
}

/// What was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Session {
    /// Reads are answered with chunks.
    pub structured: bool,
    /// BLOCK_STATUS may ask for `base:allocation`.
    pub allocation: bool,
}

/// A payload that nobody wants to see, and what is done when it is off the stream.
#[derive(Debug)]
struct Skip {
    left: u32,
    option: u32,
    then: Then,
}

#[derive(Debug, Clone)]
enum Then {
    Abort,
    Refuse(u32, String),
}

#[derive(Debug)]
enum Question {
    List,
    ExportName(String),
    Info { option: u32, request: InfoRequest },
    Meta { option: u32, request: MetaRequest },
}

impl Handshake {
    /// A handshake whose greeting is in `out`.
    pub fn new(out: &mut Vec<u8>) -> Self {
        out.u64(MAGIC).u64(OPTION_MAGIC).u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        Self::default()
    }

    /// From now on options are refused, because of `reason`.
    pub fn shut_down(&mut self, reason: &str) {
        self.shutdown = Some(reason.to_owned());
    }

    /// Consumes the next thing from the front of `input`, appends its answer to `out`.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Step {
        assert!(self.question.is_none(), "the previous question has not been answered");
        loop {
            if let Some(ending) = self.skip(input, out) {
                return Step::Close(ending);
            }
            if self.skip.is_some() {
                return Step::Starved;
            }
            let Some(flags) = self.flags else {
                let Some(flags) = input.u32() else { return Step::Starved };
                if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
                    return Step::Close(Ending::Violation("unknown client flag"));
                }
                self.flags = Some(flags);
                continue;
            };
            let mut rest = *input;
            let (Some(magic), Some(code), Some(length)) = (rest.u64(), rest.u32(), rest.u32())
            else {
                return Step::Starved;
            };
            if magic != OPTION_MAGIC {
                return Step::Close(Ending::Violation("wrong option magic"));
            }
            if length > OPTION_SKIP {
                return Step::Close(Ending::Violation("option payload too long"));
            }
            let decided = self.without_payload(code, length, has(flags, FLAG_FIXED_NEWSTYLE));
            let payload = match decided {
                Some(Err(ending)) => return Step::Close(ending),
                Some(Ok(then)) => {
                    self.skip = Some(Skip { left: length, option: code, then });
                    None
                }
                None => {
                    let payload = rest.take(length as usize);
                    if payload.is_none() {
                        return Step::Starved;
                    }
                    payload
                }
            };
            *input = rest;
            self.options += 1;
            if self.options > OPTIONS {
                return Step::Close(Ending::Violation("too many options"));
            }
            if let Some(step) = payload.and_then(|payload| self.option(code, payload, out)) {
                return step;
            }
        }
    }

    /// Goes on with skipping a payload, and ends it with its answer.
    fn skip(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Option<Ending> {
        let skip = self.skip.as_mut()?;
        let present = input.len().min(usize::try_from(skip.left).unwrap_or(usize::MAX));
        *input = &input[present..];
        skip.left -= u32::try_from(present).expect("at most what is left");
        if skip.left > 0 {
            return None;
        }
        let skip = self.skip.take()?;
        match skip.then {
            Then::Abort => {
                reply(out, skip.option, option_reply::ACK, &[]);
                Some(Ending::Aborted)
            }
            Then::Refuse(code, text) => {
                refuse(out, skip.option, code, &text);
                None
            }
        }
    }

    /// What is to be done if the header alone decides; `None` if the payload is wanted.
    fn without_payload(
        &mut self,
        code: u32,
        length: u32,
        fixed: bool,
    ) -> Option<Result<Then, Ending>> {
        let answer = |reply, text: &str| Some(Ok(Then::Refuse(reply, text.to_owned())));
        let too_long = length as usize > OPTION_PAYLOAD;
        if code == option::SET_META_CONTEXT {
            // The previous selection is gone, whatever comes of this one.
            self.allocation_of = None;
        }
        match (code, &self.shutdown) {
            (option::EXPORT_NAME, Some(reason)) => {
                return Some(Err(Ending::Refused(reason.clone())));
            }
            (option::EXPORT_NAME, None) if length as usize > MAX_STRING => {
                return Some(Err(Ending::Violation("export name too long")));
            }
            (option::EXPORT_NAME, None) => return None,
            // To who leaves it does not matter which dialect was agreed on.
            (option::ABORT, _) => return Some(Ok(Then::Abort)),
            _ if !fixed => {
                return answer(
                    option_reply::ERR_INVALID,
                    "only EXPORT_NAME without fixed newstyle",
                );
            }
            (_, Some(reason)) => return answer(option_reply::ERR_SHUTDOWN, reason),
            _ => {}
        }
        match code {
            option::LIST
            | option::STARTTLS
            | option::STRUCTURED_REPLY
            | option::EXTENDED_HEADERS
                if length > 0 =>
            {
                answer(option_reply::ERR_INVALID, "this option takes no data")
            }
            option::STARTTLS => answer(option_reply::ERR_UNSUP, "no TLS here"),
            option::LIST | option::STRUCTURED_REPLY => None,
            option::INFO | option::GO | option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                if too_long {
                    return answer(option_reply::ERR_TOO_BIG, "the option is too long");
                }
                None
            }
            _ => answer(option_reply::ERR_UNSUP, "unknown option"),
        }
    }

    /// Handles a complete option; `None` if it is answered already.
    fn option(&mut self, code: u32, payload: &[u8], out: &mut Vec<u8>) -> Option<Step> {
        let invalid = |out: &mut Vec<u8>, text| {
            refuse(out, code, option_reply::ERR_INVALID, text);
            None
        };
        match code {
            option::EXPORT_NAME => match string(payload) {
                Ok(name) => {
                    self.question = Some(Question::ExportName(name.to_owned()));
                    Some(Step::Open(name.to_owned()))
                }
                Err(why) => Some(Step::Close(Ending::Violation(why))),
            },
            option::LIST => {
                self.question = Some(Question::List);
                Some(Step::List)
            }
            option::STRUCTURED_REPLY if self.structured => {
                invalid(out, "structured replies are already on")
            }
            option::STRUCTURED_REPLY => {
                self.structured = true;
                reply(out, code, option_reply::ACK, &[]);
                None
            }
            option::INFO | option::GO => match info_request(payload) {
                Ok(request) => {
                    let name = request.name.clone();
                    self.question = Some(Question::Info { option: code, request });
                    Some(if code == option::GO { Step::Open(name) } else { Step::Describe(name) })
                }
                Err(why) => invalid(out, why),
            },
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT if !self.structured => {
                invalid(out, "metadata contexts need structured replies")
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => match meta_request(payload) {
                Ok(request) => {
                    let name = request.name.clone();
                    self.question = Some(Question::Meta { option: code, request });
                    Some(Step::Describe(name))
                }
                Err(why) => invalid(out, why),
            },
            _ => unreachable!("without_payload() lets no other option through"),
        }
    }

    /// Answers [`Step::List`].
    pub fn listed(&mut self, exports: &[ExportInfo], out: &mut Vec<u8>) {
        let question = self.question.take();
        assert!(matches!(question, Some(Question::List)), "nobody asked for the list");
        for export in exports {
            let name = clip(&export.name);
            let mut payload = Vec::with_capacity(4 + name.len() + export.description.len());
            payload.u32(u32::try_from(name.len()).expect("clipped")).bytes(name.as_bytes());
            payload.bytes(clip(&export.description).as_bytes());
            reply(out, option::LIST, option_reply::SERVER, &payload);
        }
        reply(out, option::LIST, option_reply::ACK, &[]);
    }

    /// Answers [`Step::Describe`] and [`Step::Open`].
    pub fn described(
        &mut self,
        answer: Result<(&ExportInfo, &Geometry), &Refusal>,
        out: &mut Vec<u8>,
    ) -> Next {
        let question = self.question.take().expect("nobody asked about an export");
        let (export, geometry) = match (&question, answer) {
            (_, Ok(described)) => described,
            (Question::ExportName(_), Err(refusal)) => {
                return Next::Close(Ending::Refused(refusal.reason.clone()));
            }
            (Question::Info { option, .. } | Question::Meta { option, .. }, Err(refusal)) => {
                let code = match refusal.kind {
                    RefusalKind::Unknown => option_reply::ERR_UNKNOWN,
                    RefusalKind::Policy => option_reply::ERR_POLICY,
                    RefusalKind::ShuttingDown => option_reply::ERR_SHUTDOWN,
                };
                refuse(out, *option, code, &refusal.reason);
                return Next::Options;
            }
            (Question::List, _) => panic!("the list was asked for, not an export"),
        };
        let transmission_flags = export_flags(geometry, self.structured);
        match question {
            Question::ExportName(name) => {
                out.u64(geometry.size).u16(transmission_flags);
                if !has(self.flags.unwrap_or_default(), FLAG_NO_ZEROES) {
                    out.bytes(&[0; 124]);
                }
                Next::Transmission(self.session(&name))
            }
            Question::Info { option, request } => {
                let mut send = |kind: u16, fill: &dyn Fn(&mut Vec<u8>)| {
                    let mut payload = Vec::new();
                    fill(payload.u16(kind));
                    reply(out, option, option_reply::INFO, &payload);
                };
                send(info::EXPORT, &|to| {
                    to.u64(geometry.size).u16(transmission_flags);
                });
                // Sent to everybody: who did not ask ignores it, who does not know it obeys
                // defaults that suffice.
                send(info::BLOCK_SIZE, &|to| {
                    to.u32(geometry.minimum).u32(geometry.preferred).u32(geometry.maximum);
                });
                if request.wants_name {
                    send(info::NAME, &|to| {
                        to.bytes(clip(&export.name).as_bytes());
                    });
                }
                if request.wants_description && !export.description.is_empty() {
                    send(info::DESCRIPTION, &|to| {
                        to.bytes(clip(&export.description).as_bytes());
                    });
                }
                reply(out, option, option_reply::ACK, &[]);
                if option == option::GO {
                    return Next::Transmission(self.session(&request.name));
                }
                Next::Options
            }
            Question::Meta { option, request } => {
                let set = option == option::SET_META_CONTEXT;
                if request.exact || (request.all && !set) {
                    let mut payload = Vec::new();
                    payload.u32(if set { BASE_ALLOCATION_ID } else { 0 });
                    payload.bytes(BASE_ALLOCATION.as_bytes());
                    reply(out, option, option_reply::META_CONTEXT, &payload);
                    if set {
                        self.allocation_of = Some(request.name);
                    }
                }
                reply(out, option, option_reply::ACK, &[]);
                Next::Options
            }
            Question::List => unreachable!("handled above"),
        }
    }

    fn session(&self, name: &str) -> Session {
        Session {
            structured: self.structured,
            allocation: self.allocation_of.as_deref() == Some(name),
        }
    }
}

/// The transmission flags of an export; they depend on what was negotiated.
fn export_flags(geometry: &Geometry, structured: bool) -> u16 {
    let mut flags = flag::HAS_FLAGS
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_TRIM
        | flag::SEND_WRITE_ZEROES
        | flag::CAN_MULTI_CONN
        | flag::SEND_CACHE;
    for (holds, bit) in [
        (geometry.read_only, flag::READ_ONLY),
        (geometry.rotational, flag::ROTATIONAL),
        (structured, flag::SEND_DF),
    ] {
        flags |= if holds { bit } else { 0 };
    }
    flags
}

fn has(flags: u32, bit: u16) -> bool {
    flags & u32::from(bit) != 0
}

/// The longest start of `text` that the protocol allows.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_STRING)]
}

fn refuse(out: &mut Vec<u8>, option: u32, code: u32, text: &str) {
    reply(out, option, code, clip(text).as_bytes());
}

fn reply(out: &mut Vec<u8>, option: u32, code: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("replies are made of clipped strings");
    out.reserve(OPTION_HEADER + 4 + payload.len());
    out.u64(OPTION_REPLY_MAGIC).u32(option).u32(code).u32(length).bytes(payload);
}

#[cfg(test)]
mod tests;

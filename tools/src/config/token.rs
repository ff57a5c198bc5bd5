//! Bytes to tokens of the drbd.conf grammar. Knows words and punctuation, no keywords. The bytes
//! may be anything: what is no token is an error with its line.

use super::place::Place;
use crate::failure::Result;

/// Longest bare word, in bytes (as in DRBD).
const BARE_MAX: usize = 128;
/// Longest quoted word between its quotes, in bytes, before escapes are undone (as in DRBD).
const QUOTED_MAX: usize = 255;

/// One token. `:`, `[` and `]` are words of their own, as in an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

/// True for a byte that may stand in a word without quotes.
pub(super) fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)
}

/// The tokens of one file, one at a time.
pub(super) struct Tokens<'a> {
    rest: &'a [u8],
    place: Place,
}

impl<'a> Tokens<'a> {
    /// `place` is the first line of the file.
    pub(super) fn new(bytes: &'a [u8], place: Place) -> Self {
        Self { rest: bytes, place }
    }

    /// Where the token returned last stands (a token never spans lines).
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The next token; `End` at the end, again and again.
    pub(super) fn next(&mut self) -> Result<Token> {
        self.skip_blank();
        let Some(&first) = self.rest.first() else {
            return Ok(Token::End);
        };
        if is_bare(first) {
            return self.bare();
        }
        if first == b'"' {
            return self.quoted();
        }
        self.rest = &self.rest[1..];
        match first {
            b';' => Ok(Token::Semicolon),
            b'{' => Ok(Token::Open),
            b'}' => Ok(Token::Close),
            b':' | b'[' | b']' => Ok(Token::Word(char::from(first).to_string())),
            _ => Err(self.place.error(format!(
                "found `{}`, which no word may contain without quotes: a bare word is made of \
                 A-Z a-z 0-9 / . _ -, everything else stands in \"...\"",
                first.escape_ascii()
            ))),
        }
    }

    /// Blank space and `# comments`.
    fn skip_blank(&mut self) {
        while let Some(&byte) = self.rest.first() {
            if byte == b'#' {
                let line = self.rest.iter().position(|&b| b == b'\n').unwrap_or(self.rest.len());
                self.rest = &self.rest[line..];
            } else if byte.is_ascii_whitespace() {
                self.place.line += u32::from(byte == b'\n');
                self.rest = &self.rest[1..];
            } else {
                return;
            }
        }
    }

    fn bare(&mut self) -> Result<Token> {
        let length = self.rest.iter().position(|&b| !is_bare(b)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        if length > BARE_MAX {
            return Err(self.place.error(format!(
                "a word of {length} characters: {BARE_MAX} are allowed, or {QUOTED_MAX} in \"...\""
            )));
        }
        Ok(Token::Word(word.iter().copied().map(char::from).collect()))
    }

    fn quoted(&mut self) -> Result<Token> {
        let mut text = Vec::new();
        let mut rest = self.rest[1..].iter();
        loop {
            let byte = match rest.next() {
                Some(b'"') => break,
                Some(b'\\') => rest.next(),
                byte => byte,
            };
            let Some(byte) = byte.filter(|byte| **byte != b'\n') else {
                return Err(self.place.error(
                    "this string does not end on its line: close it with \" (and write \\\" for a \
                     quote inside)",
                ));
            };
            text.push(*byte);
        }
        let length = self.rest.len() - rest.len() - 2;
        if length > QUOTED_MAX {
            return Err(self.place.error(format!(
                "a quoted string of {length} characters: {QUOTED_MAX} are allowed"
            )));
        }
        self.rest = rest.as_slice();
        match String::from_utf8(text) {
            Ok(text) if !text.chars().any(char::is_control) => Ok(Token::Word(text)),
            _ => Err(self.place.error("a quoted string must be UTF-8 without control characters")),
        }
    }
}

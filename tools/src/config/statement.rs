//! Tokens to a tree: every statement of drbd.conf is some words and then `;` or `{ statements }`.
//! Knows nothing of what the words mean, except `skip`, which drops the statement behind it.

use std::fmt::Display;

use super::place::Place;
use super::token::{Token, Tokens};
use crate::failure::{Failure, Result};

/// Deepest nesting of `{`; the grammar needs four.
const NESTING_MAX: usize = 8;

/// One statement as it was written: at least one word.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    /// The line of the first word.
    pub(super) place: Place,
    words: Vec<String>,
    /// What stands between `{` and `}`; `None` for a statement that ends with `;`.
    pub(super) body: Option<Vec<Self>>,
}

impl Statement {
    /// The first word.
    pub(super) fn name(&self) -> &str {
        &self.words[0]
    }

    /// The words behind the first.
    pub(super) fn values(&self) -> &[String] {
        &self.words[1..]
    }

    /// The words behind the first, an address in one piece.
    pub(super) fn values_text(&self) -> String {
        let mut text = String::new();
        for word in self.values() {
            if !text.is_empty()
                && !text.ends_with([':', '['])
                && !matches!(word.as_str(), ":" | "]")
            {
                text.push(' ');
            }
            text += word;
        }
        text
    }

    /// All the words, for messages, which end in logs: no secret.
    pub(super) fn text(&self) -> String {
        match self.name() {
            "shared-secret" => "shared-secret ...".to_owned(),
            name => format!("{name} {}", self.values_text()).trim_end().to_owned(),
        }
    }

    pub(super) fn error(&self, message: impl Display) -> Failure {
        self.place.error(message)
    }

    /// The statements of a section; an error if this is none.
    pub(super) fn section(&self) -> Result<&[Self]> {
        self.body.as_deref().ok_or_else(|| {
            let words = self.words.join(" ");
            self.error(format!("`{words};` is a section: write `{words} {{ ... }}`"))
        })
    }

    /// The statements of a section that has no name of its own, such as `net`.
    pub(super) fn plain_section(&self) -> Result<&[Self]> {
        if !self.values().is_empty() {
            return Err(self.error(format!(
                "`{}`: write `{} {{ ... }}` (is a `;` missing?)",
                self.text(),
                self.name()
            )));
        }
        self.section()
    }

    /// The values of a statement that is no section.
    pub(super) fn plain_values(&self) -> Result<&[String]> {
        match self.body {
            None => Ok(self.values()),
            Some(_) => Err(self.error(format!(
                "`{0}` is no section here: write `{0} VALUE;` (is a `;` missing?)",
                self.name()
            ))),
        }
    }

    /// The only value; `example` is what to type instead.
    pub(super) fn value(&self, example: &str) -> Result<&str> {
        match self.plain_values()? {
            [value] => Ok(value),
            _ => Err(self.error(format!(
                "`{}`: one value is wanted: write `{example}` (is a `;` missing, or the quotes of a \
                 value with `:`?)",
                self.text()
            ))),
        }
    }
}

/// Parses one file. Bounded by the size of the file and `NESTING_MAX`.
pub(super) fn parse(bytes: &[u8], start: Place) -> Result<Vec<Statement>> {
    block(&mut Tokens::new(bytes, start), None, 0)
}

/// The statements up to the `}` that answers `opened`, or to the end of the file.
fn block(tokens: &mut Tokens<'_>, opened: Option<&Place>, depth: usize) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut words = Vec::new();
    let mut place = tokens.place().clone();
    loop {
        let token = tokens.next()?;
        let here = tokens.place();
        let body = match (token, opened) {
            (Token::Word(word), _) => {
                if words.is_empty() {
                    place = here.clone();
                }
                words.push(word);
                continue;
            }
            (Token::Close | Token::End, _) if !words.is_empty() => {
                let words = words.join(" ");
                return Err(place.error(format!("`{words}` ends without `;`: write `{words};`")));
            }
            (Token::End, None) | (Token::Close, Some(_)) => return Ok(statements),
            (Token::End, Some(opened)) => {
                return Err(opened.error("this `{` is never closed: add a `}`"));
            }
            (Token::Close, None) => {
                return Err(here.error("found `}` where nothing is open: delete it"));
            }
            (Token::Semicolon, _) if words.is_empty() => {
                return Err(here.error("found `;` with no word before it: delete it"));
            }
            (Token::Open, _) if words.is_empty() => {
                return Err(here.error(
                    "found `{` with no word before it: name the section, as in `net { ... }`",
                ));
            }
            (Token::Open, _) if depth == NESTING_MAX => {
                let text = format!("sections nest deeper than {NESTING_MAX}: close some");
                return Err(here.error(text));
            }
            (Token::Semicolon, _) => None,
            (Token::Open, _) => {
                let opened = here.clone();
                Some(block(tokens, Some(&opened), depth + 1)?)
            }
        };
        let words = std::mem::take(&mut words);
        if words[0] != "skip" {
            statements.push(Statement { place: place.clone(), words, body });
        }
    }
}

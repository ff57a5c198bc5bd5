//! What clients asked and what they were told, and what follows for the order of writes.
//!
//! Time here is a stamp that rises with every invocation and every answer: the only time clients can observe.

use super::Token;

/// Number of an operation; 0 stands for "never written".
pub type OpId = u32;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read.
    Read,
    /// Write a unique content.
    Write,
    /// Write zeros, or trim.
    Zero,
    /// Make everything acknowledged so far stable.
    Flush,
}

/// What the client knows of the fate of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not answered.
    Open,
    /// Answered: done.
    Ok,
    /// Answered: failed. It may still have happened.
    Failed,
    /// Will never be answered, the node that had it is gone. It may have happened.
    Lost,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The node it was sent to.
    pub node: usize,
    /// What was asked.
    pub kind: Kind,
    /// First sector.
    pub start: u32,
    /// Sectors.
    pub len: u32,
    /// Stable before the answer.
    pub fua: bool,
    /// Stamp when it was sent.
    pub invoked: u64,
    /// Stamp when its fate could no longer change; `u64::MAX` while it can.
    pub ended: u64,
    /// Its fate.
    pub outcome: Outcome,
}

impl Op {
    /// Whether it changes data.
    pub fn writes(&self) -> bool {
        matches!(self.kind, Kind::Write | Kind::Zero)
    }

    /// Its sectors.
    pub fn sectors(&self) -> std::ops::Range<u32> {
        self.start..self.start + self.len
    }
}

/// All operations of a run.
#[derive(Clone, Debug)]
pub struct History {
    ops: Vec<Op>,
    zeros: Vec<OpId>,
    open: Vec<OpId>,
    stamp: u64,
    first_content: u64,
}

impl Default for History {
    fn default() -> Self {
        let never = Op {
            node: 0,
            kind: Kind::Flush,
            start: 0,
            len: 0,
            fua: false,
            invoked: 0,
            ended: 0,
            outcome: Outcome::Ok,
        };
        Self { ops: vec![never], zeros: Vec::new(), open: Vec::new(), stamp: 1, first_content: 0 }
    }
}

impl History {
    /// The stamp of now.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Declares what this disk held at first as the legal first content of the device.
    pub fn accept_first_content(&mut self, disk: u32) {
        self.first_content |= 1 << (disk % 64);
    }

    /// A client sends an operation.
    pub fn invoke(&mut self, node: usize, kind: Kind, start: u32, len: u32, fua: bool) -> OpId {
        self.stamp += 1;
        let id = OpId::try_from(self.ops.len()).expect("a run has fewer than 2^32 operations");
        let invoked = self.stamp;
        let outcome = Outcome::Open;
        self.ops.push(Op { node, kind, start, len, fua, invoked, ended: u64::MAX, outcome });
        self.open.push(id);
        if kind == Kind::Zero {
            self.zeros.push(id);
        }
        id
    }

    /// The fate of an operation is decided.
    pub fn end(&mut self, id: OpId, outcome: Outcome) {
        self.stamp += 1;
        let op = &mut self.ops[id as usize];
        op.ended = self.stamp;
        op.outcome = outcome;
        self.open.retain(|&o| o != id);
    }

    /// One operation.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id as usize]
    }

    /// All operations, oldest first.
    pub fn ops(&self) -> impl Iterator<Item = (OpId, &Op)> {
        (0..).zip(self.ops.iter()).skip(1)
    }

    /// Operations without an answer.
    pub fn open(&self) -> impl Iterator<Item = (OpId, &Op)> {
        self.open.iter().map(|&id| (id, self.op(id)))
    }

    /// Whether `a` was over before `b` began, so that nothing may show `a` where `b` must be.
    pub fn older(&self, a: OpId, b: OpId) -> bool {
        a != b && self.op(a).ended < self.op(b).invoked
    }

    /// The one of two acknowledged writes that demands more: what is older than either is older than it.
    pub fn newer_of(&self, a: OpId, b: OpId) -> OpId {
        if self.op(b).invoked > self.op(a).invoked { b } else { a }
    }

    /// Whether `token` may be what `sector` holds where at least write `floor` must be. The error says why not.
    pub fn judge(&self, sector: u32, token: Token, floor: OpId) -> Result<(), String> {
        let bad = |why: &str| {
            let f = self.op(floor);
            let need = if floor == 0 { "nothing".into() } else { format!("write #{floor} {f:?}") };
            Err(format!("sector {sector} holds {token:?}: {why}; at least required: {need}"))
        };
        if token == Token::ZERO {
            let legal =
                |&&z: &&OpId| self.op(z).sectors().contains(&sector) && !self.older(z, floor);
            return if self.zeros.iter().rev().find(legal).is_some() {
                Ok(())
            } else {
                bad("no write of zeros explains it")
            };
        }
        if let Some((disk, at)) = token.first_content() {
            if at != sector {
                return bad("it belongs to another sector");
            }
            if self.first_content & 1 << (disk % 64) == 0 {
                return bad("that disk's first content was never the device's");
            }
            return if floor == 0 { Ok(()) } else { bad("it was overwritten") };
        }
        let Some((id, index)) = token.writer() else {
            return bad("nobody wrote it");
        };
        let Some(op) = self.ops.get(id as usize) else {
            return bad("no such write");
        };
        if op.kind != Kind::Write || sector.checked_sub(op.start) != Some(index) {
            return bad("that write has not this sector there");
        }
        if self.older(id, floor) {
            return bad("it is older");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_older_than_the_floor_is_illegal_and_a_concurrent_one_is_not() {
        let mut h = History::default();
        let w1 = h.invoke(0, Kind::Write, 8, 4, false);
        h.end(w1, Outcome::Ok);
        let w2 = h.invoke(0, Kind::Write, 8, 1, false);
        let w3 = h.invoke(0, Kind::Write, 8, 1, false);
        h.end(w3, Outcome::Ok);
        assert!(h.judge(8, Token::write(w1, 0), w3).is_err());
        assert!(h.judge(8, Token::write(w2, 0), w3).is_ok());
        assert!(h.judge(8, Token::write(w3, 0), w3).is_ok());
        assert!(h.judge(9, Token::write(w1, 1), w1).is_ok());
        assert!(h.judge(9, Token::write(w1, 0), w1).is_err(), "shifted");
        assert!(h.judge(9, Token::write(77, 0), 0).is_err(), "unknown");
        assert!(h.judge(9, Token::ZERO, 0).is_err(), "zeros nobody wrote");
    }

    #[test]
    fn zeros_need_a_write_of_zeros_that_is_not_older() {
        let mut h = History::default();
        let z = h.invoke(0, Kind::Zero, 0, 8, false);
        h.end(z, Outcome::Ok);
        assert!(h.judge(3, Token::ZERO, z).is_ok());
        let w = h.invoke(0, Kind::Write, 3, 1, false);
        h.end(w, Outcome::Ok);
        assert!(h.judge(3, Token::ZERO, w).is_err());
        assert!(h.judge(4, Token::ZERO, z).is_ok());
    }

    #[test]
    fn first_content_is_legal_until_overwritten_and_only_of_an_accepted_disk() {
        let mut h = History::default();
        assert!(h.judge(1, Token::garbage(0, 1), 0).is_err());
        h.accept_first_content(0);
        assert!(h.judge(1, Token::garbage(0, 1), 0).is_ok());
        assert!(h.judge(1, Token::garbage(1, 1), 0).is_err());
        let w = h.invoke(0, Kind::Write, 1, 1, false);
        h.end(w, Outcome::Ok);
        assert!(h.judge(1, Token::garbage(0, 1), w).is_err());
    }
}

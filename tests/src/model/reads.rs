//! DUR-5: a read returns the latest acknowledged write or one under way, and never goes back in time.

use super::{Check, Cluster, Kind, OpId, Token, Violation};

impl Cluster {
    /// What a read sent now must show at least, for each of its sectors.
    pub fn read_floors(&self, id: OpId) -> Vec<OpId> {
        let op = self.history.op(id);
        assert_eq!(op.kind, Kind::Read, "only reads have floors");
        self.service[op.node][op.start as usize..(op.start + op.len) as usize].to_vec()
    }

    /// A read was answered with these sectors; call before `answered`. A target that reads what it has not got yet (RES-5) shows here.
    pub fn read_returned(&mut self, id: OpId, floors: &[OpId], tokens: &[Token]) -> Check {
        let op = *self.history.op(id);
        if tokens.len() != op.len as usize {
            let story = format!("read #{id} of {} sectors returned {}", op.len, tokens.len());
            return Err(Violation::new("DUR-5", story));
        }
        let now = self.history.stamp() + 1;
        for ((s, &token), &floor) in op.sectors().zip(tokens).zip(floors) {
            if let Err(why) = self.history.judge(s, token, floor) {
                return Err(Violation::new(
                    "DUR-5",
                    format!("read #{id} on node {}: {why}", op.node),
                ));
            }
            if let Some(&(before, from, to)) = self.seen[op.node].get(&s)
                && before != token
                && op.invoked > to
                && self.surely_before(token, from)
            {
                let story = format!(
                    "read #{id} on node {} sector {s} went back from {before:?} to {token:?}",
                    op.node
                );
                return Err(Violation::new("DUR-5", story));
            }
            if token.writer().is_some() {
                self.seen[op.node].insert(s, (token, op.invoked, now));
            } else {
                self.seen[op.node].remove(&s);
            }
        }
        Ok(())
    }

    fn surely_before(&self, token: Token, stamp: u64) -> bool {
        match token.writer() {
            Some((id, _)) => self.history.op(id).ended < stamp,
            None => token.first_content().is_some(),
        }
    }
}

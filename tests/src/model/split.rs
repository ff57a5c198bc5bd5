//! SB: a split brain is declared where there is one, and only there.

use super::{Check, Cluster, Violation};
use replicator::node::Role;

/// What two nodes did since they were last the same. The nodes judge all volumes at once, so this, too, is of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parted {
    touched: [bool; 2],
    /// Acknowledged alone since the nodes last met, and not given up since by an operator.
    alone: [bool; 2],
    /// An operator's word, or a failed disk, made one of them something that the other never was.
    claimed: bool,
}

impl Parted {
    /// Of these volumes.
    pub fn of<'a>(volumes: impl Iterator<Item = &'a Cluster>) -> Self {
        volumes.map(Cluster::parted).fold(Self::default(), Self::or)
    }

    fn or(self, other: Self) -> Self {
        Self {
            touched: [0, 1].map(|n| self.touched[n] || other.touched[n]),
            alone: [0, 1].map(|n| self.alone[n] || other.alone[n]),
            claimed: self.claimed || other.claimed,
        }
    }

    /// Whether both nodes accepted something the other may lack, so that a split brain may be declared.
    pub fn may_be_split(&self) -> bool {
        self.touched == [true; 2] || self.claimed
    }

    /// SB-1: the nodes agreed to go on as one, whatever volume each of them has written to.
    pub fn unnoticed_split(&self) -> Check {
        if self.alone == [true; 2] {
            let story = "both nodes acknowledged alone since they parted, and go on as one";
            return Err(Violation::new("SB-1", story));
        }
        Ok(())
    }

    /// SB-4: a node declares a split brain; `roles`: what both said they were.
    pub fn split_brain_declared(&self, roles: [Role; 2]) -> Check {
        // A Primary with good data is never made a target, even if it has written nothing.
        let untouchable = (0..2).any(|n| roles[n] == Role::Primary && self.touched[1 - n]);
        if self.may_be_split() || untouchable {
            return Ok(());
        }
        let story = format!(
            "a split brain was declared, but since the nodes were the same only {} accepted anything",
            match self.touched {
                [true, false] => "node 0",
                [false, true] => "node 1",
                _ => "neither",
            }
        );
        Err(Violation::new("SB-4", story))
    }
}

impl Cluster {
    /// Which nodes have accepted anything for this volume since the two were the same.
    pub fn touched(&self) -> [bool; 2] {
        self.touched
    }

    /// Which nodes have accepted anything for some volume: it may be a reason for a new generation of this one.
    pub fn touched_elsewhere(&mut self, any: [bool; 2]) {
        self.elsewhere = [0, 1].map(|n| self.elsewhere[n] || any[n]);
    }

    /// What was done to this volume since the two were the same.
    pub fn parted(&self) -> Parted {
        let claimed = [self.forced, self.claimed, self.ruined].iter().any(|c| *c != [false; 2]);
        let alone = [0, 1].map(|n| self.alone[n] && self.unheard[n] && !self.ordered());
        let touched = [0, 1].map(|n| self.touched[n] || self.elsewhere[n]);
        Parted { touched, alone, claimed }
    }

    /// SB-1: the nodes agreed that they are the same.
    pub(super) fn unnoticed_split(&self) -> Check {
        if self.alone == [true; 2] && !self.ordered() {
            let story = "both nodes acknowledged alone, and no split brain was declared";
            return Err(Violation::new("SB-1", story));
        }
        Ok(())
    }
}

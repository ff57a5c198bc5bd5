//! A lease on being Primary. Whoever decides who may be Primary (an agent that holds a lock elsewhere) says until when this node
//! is, and renews that. Once it has run out, the lock may be another's: nobody is answered (ROLE-6).

use super::Node;
use super::types::{Action, CommandId, Level, RefusalKind, Role, Time};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lease {
    /// Nobody has said anything: roles are an operator's business.
    #[default]
    None,
    /// From this instant on nobody is answered.
    Until(Time),
    /// It has run out.
    Over,
    /// It had run out, and is renewed, or (none) lifted, as soon as no handshake runs (GI-6).
    Renewed(Option<Time>),
}

impl Lease {
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Over | Self::Renewed(_))
    }

    pub(super) fn deadline(self) -> Option<Time> {
        match self {
            Self::Until(end) | Self::Renewed(Some(end)) => Some(end),
            Self::None | Self::Over | Self::Renewed(None) => None,
        }
    }
}

impl Node {
    pub(super) fn set_lease(&mut self, id: CommandId, until: Option<Time>) {
        if until.is_some_and(|end| end <= self.now) {
            if self.lease == Lease::None {
                // ROLE-6: it was given, and this node was told too late.
                self.lease = Lease::Over;
            }
            let text = "a lease that ends in the past: nothing is renewed".into();
            return self.refuse(id, RefusalKind::State, text);
        }
        self.lease = match self.lease {
            Lease::None | Lease::Until(_) => until.map_or(Lease::None, Lease::Until),
            Lease::Over | Lease::Renewed(_) => Lease::Renewed(until),
        };
        self.out.push(Action::Done(id, Ok(())));
    }

    /// ROLE-6: before anything else is looked at.
    pub(super) fn lease_timer(&mut self) {
        if self.lease.deadline().is_some_and(|end| self.now >= end) {
            self.lease = Lease::Over;
            if self.role == Role::Primary {
                let text = "the lease on being Primary has run out: no client is answered until it is renewed";
                self.notice(Level::Warning, text.into());
            }
        }
    }

    /// No handshake runs.
    pub(super) fn lease_step(&mut self) {
        if let Lease::Renewed(until) = self.lease {
            self.lease = until.map_or(Lease::None, Lease::Until);
            self.wake_suspended();
        }
    }
}

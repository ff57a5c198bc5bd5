//! How the owner of something (an export, a server) tells the connections that use it that it
//! ends, and why. It carries no deadline and waits for nobody.

use std::rc::Rc;
use tokio::sync::watch;

/// The owner's end: closes once, with the reason. Dropping it closes too.
#[derive(Debug)]
pub struct Closer(watch::Sender<Option<Rc<str>>>);

/// A user's end. Clones see the same closing.
#[derive(Debug, Clone)]
pub struct Closing(watch::Receiver<Option<Rc<str>>>);

impl Closer {
    /// An end that is open.
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Another listener to the closing.
    pub fn watch(&self) -> Closing {
        Closing(self.0.subscribe())
    }

    /// Tells all watchers. The first reason stays.
    pub fn close(&self, reason: &str) {
        self.0.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(reason.into());
            }
            first
        });
    }
}

impl Default for Closer {
    fn default() -> Self {
        Self::new()
    }
}

impl Closing {
    /// The reason, if it is closing already.
    pub fn reason(&self) -> Option<Rc<str>> {
        self.0.borrow().clone()
    }

    /// Waits until it closes. Safe to cancel.
    pub async fn closed(&mut self) -> Rc<str> {
        match self.0.wait_for(Option::is_some).await {
            Ok(state) => state.clone().expect("waited until there is a reason"),
            Err(_) => "the owner is gone".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_reaches_every_watcher() {
        let closer = Closer::new();
        let (mut early, clone) = (closer.watch(), closer.watch());
        assert_eq!(early.reason(), None);
        closer.close("demoted");
        closer.close("shutdown");
        assert_eq!(&*early.closed().await, "demoted");
        assert_eq!(clone.reason().as_deref(), Some("demoted"));
        assert_eq!(&*closer.watch().closed().await, "demoted");
    }

    #[tokio::test]
    async fn a_dropped_owner_closes() {
        let mut closing = Closer::new().watch();
        assert_eq!(&*closing.closed().await, "the owner is gone");
    }
}

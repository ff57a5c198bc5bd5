//! The lock in etcd, by etcd's own HTTP gateway.
//!
//! ```text
//! /pollux/CLUSTER/RESOURCE/primary         {"node", "incarnation"}: bound to a lease; made only where it is absent
//! /pollux/CLUSTER/RESOURCE/outdated/NODE   the other went on alone: NODE may not take the lock
//! ```
//!
//! Every instant here is from before the request that it speaks of was sent: etcd counts from when it got it, which is later. So what
//! is told to the daemon ends before the lock does, whatever is delayed.

use super::http::Members;
use crate::clock;
use crate::decide::{Lock, Ms};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// One resource's keys.
pub(crate) struct Etcd {
    pub(crate) members: Members,
    /// `/pollux/CLUSTER/RESOURCE`.
    pub(crate) prefix: String,
    pub(crate) me: String,
    pub(crate) peer: String,
    pub(crate) incarnation: u64,
    /// The life of the lock without renewal.
    pub(crate) ttl: Ms,
    /// So much earlier the daemon stops.
    pub(crate) margin: Ms,
}

/// The lock, held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    lease: String,
    /// At which etcd made the key: no other taking of it has the same.
    revision: String,
    /// It is nobody else's before.
    pub(crate) until: Ms,
}

/// What asking for the lock came to.
#[derive(Debug)]
pub(crate) enum Asked {
    Granted(Held),
    Denied(String),
}

/// What the handler of a Primary learns.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outdated {
    /// The peer may not take the lock any more.
    Peer,
    /// The lock is not ours, and it is we who may not take it.
    Me,
    /// The lock is not ours.
    Neither,
}

/// A key with its value, as etcd shows it.
struct Key {
    value: Value,
    created: String,
    modified: String,
    lease: String,
}

fn text(value: &Value) -> String {
    // etcd writes 64 bit numbers as strings, and leaves zeros out.
    value.as_str().map_or_else(|| value.as_u64().unwrap_or(0).to_string(), str::to_owned)
}

fn key_of(response: &Value) -> Option<Key> {
    let found = response["kvs"].as_array()?.first()?;
    let bytes = STANDARD.decode(found["value"].as_str()?).ok()?;
    Some(Key {
        value: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        created: text(&found["create_revision"]),
        modified: text(&found["mod_revision"]),
        lease: text(&found["lease"]),
    })
}

fn number(value: &Value) -> u64 {
    text(value).parse().unwrap_or(0)
}

impl Etcd {
    fn key(&self, name: &str) -> String {
        STANDARD.encode(format!("{}/{name}", self.prefix))
    }

    fn lock(&self) -> String {
        self.key("primary")
    }

    fn outdated(&self, node: &str) -> String {
        self.key(&format!("outdated/{node}"))
    }

    async fn txn(&self, compare: Value, success: Value, failure: Value) -> Result<Value, String> {
        let body = json!({ "compare": compare, "success": success, "failure": failure });
        self.members.ask("/v3/kv/txn", &body).await
    }

    /// The lock, and whether this node may have it. At one instant, as all of etcd agrees.
    async fn both(&self) -> Result<(Option<Key>, bool), String> {
        let both = json!([range(&self.lock()), range(&self.outdated(&self.me))]);
        let answer = self.txn(json!([]), both, json!([])).await?;
        let responses = answer["responses"].as_array().ok_or("etcd: an answer without content")?;
        let [lock, outdated] = &responses[..] else {
            return Err("etcd: an answer to something else".into());
        };
        Ok((key_of(&lock["response_range"]), key_of(&outdated["response_range"]).is_some()))
    }

    /// Looks at the lock.
    ///
    /// # Errors
    /// If etcd does not answer, or cannot: then nothing is known.
    pub(crate) async fn look(&self) -> Result<Lock, String> {
        Ok(match self.both().await? {
            (Some(key), _) if key.value["node"] == *self.me => Lock::Mine,
            (Some(_), _) => Lock::Other,
            (None, true) => Lock::Barred,
            (None, false) => Lock::Free,
        })
    }

    /// Takes the lock, or takes it up again if this node has it from an earlier life or an earlier attempt.
    ///
    /// # Errors
    /// If it is not known what became of it.
    pub(crate) async fn ask(&self) -> Result<Asked, String> {
        let (lock, barred) = self.both().await?;
        if let Some(lock) = lock {
            let node = lock.value["node"].as_str().unwrap_or("somebody");
            if node != self.me {
                return Ok(Asked::Denied(format!("{node} has the lock")));
            }
            let held = Held { lease: lock.lease, revision: lock.created, until: 0 };
            if let Some(until) = self.renew(&held).await? {
                return Ok(Asked::Granted(Held { until, ..held }));
            }
            return Err("the lock of an earlier life has just ended".into());
        }
        if barred {
            return Ok(Asked::Denied("the peer went on alone: its data is newer".into()));
        }
        let now = clock::now();
        let seconds = self.ttl.div_ceil(1_000).to_string();
        let granted = self.members.ask("/v3/lease/grant", &json!({ "TTL": seconds })).await?;
        let (lease, ttl) = (text(&granted["ID"]), number(&granted["TTL"]));
        let (lock, mine) = (self.lock(), self.outdated(&self.me));
        let value = json!({ "node": self.me, "incarnation": self.incarnation }).to_string();
        let put = json!({ "requestPut": { "key": lock, "value": STANDARD.encode(value), "lease": lease } });
        let absent =
            json!([is(&lock, "VERSION", "version", "0"), is(&mine, "VERSION", "version", "0")]);
        let answer = self.txn(absent, json!([put]), json!([])).await?;
        if answer["succeeded"] != true {
            self.revoke(&lease).await?;
            return Ok(Asked::Denied("the peer was faster".into()));
        }
        let revision = text(&answer["header"]["revision"]);
        Ok(Asked::Granted(Held { lease, revision, until: self.until(now, ttl) }))
    }

    fn until(&self, asked: Ms, ttl: u64) -> Ms {
        (asked + ttl * 1_000).saturating_sub(self.margin)
    }

    /// Until when it is ours now; `None`: it is not any more.
    ///
    /// # Errors
    /// If etcd does not answer: it is ours as long as it was.
    pub(crate) async fn renew(&self, held: &Held) -> Result<Option<Ms>, String> {
        let now = clock::now();
        let answer = self.members.ask("/v3/lease/keepalive", &json!({ "ID": held.lease })).await?;
        let ttl = number(&answer["result"]["TTL"]);
        let (lock, _) = self.both().await?;
        let same = lock.is_some_and(|key| key.created == held.revision && key.lease == held.lease);
        Ok((same && ttl > 0).then(|| self.until(now, ttl)))
    }

    /// Gives it back, so that the other need not wait for its end. Only of a node that is Secondary.
    ///
    /// # Errors
    /// If etcd does not answer: it ends by itself.
    pub(crate) async fn release(&self, held: &Held) -> Result<(), String> {
        // The key goes with its lease.
        self.revoke(&held.lease).await
    }

    async fn revoke(&self, lease: &str) -> Result<(), String> {
        self.members.ask("/v3/lease/revoke", &json!({ "ID": lease })).await.map(drop)
    }

    /// For a Primary, or one on the way there, that lost its peer: from now on the peer may not take the lock.
    ///
    /// # Errors
    /// If it is not known whether that is so.
    pub(crate) async fn outdate_peer(&self, held: &Held) -> Result<Outdated, String> {
        let value = STANDARD.encode(json!({ "by": self.me }).to_string());
        // Put again even if it is there: who is about to remove the old one must not remove this.
        let put = json!({ "requestPut": { "key": self.outdated(&self.peer), "value": value } });
        let ours = is(&self.lock(), "CREATE", "create_revision", &held.revision);
        let mine = range(&self.outdated(&self.me));
        let answer = self.txn(json!([ours]), json!([put]), json!([mine])).await?;
        if answer["succeeded"] == true {
            return Ok(Outdated::Peer);
        }
        let me = key_of(&answer["responses"][0]["response_range"]);
        Ok(if me.is_some() { Outdated::Me } else { Outdated::Neither })
    }

    /// The note that the peer is outdated, for [`Self::forget`].
    ///
    /// # Errors
    /// If etcd does not answer.
    pub(crate) async fn peer_note(&self) -> Result<Option<String>, String> {
        let answer =
            self.txn(json!([]), json!([range(&self.outdated(&self.peer))]), json!([])).await?;
        Ok(key_of(&answer["responses"][0]["response_range"]).map(|key| key.modified))
    }

    /// Removes exactly that note: one that was made since stays.
    ///
    /// # Errors
    /// If etcd does not answer.
    pub(crate) async fn forget(&self, note: &str) -> Result<(), String> {
        let key = self.outdated(&self.peer);
        let same = is(&key, "MOD", "mod_revision", note);
        let delete = json!({ "requestDeleteRange": { "key": key } });
        self.txn(json!([same]), json!([delete]), json!([])).await.map(drop)
    }
}

fn range(key: &str) -> Value {
    json!({ "requestRange": { "key": key } })
}

fn is(key: &str, target: &str, field: &str, value: &str) -> Value {
    json!({ "key": key, "target": target, "result": "EQUAL", field: value })
}

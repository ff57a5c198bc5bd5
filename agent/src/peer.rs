//! The two agents hear each other, on one or more paths: heartbeats, and the question whether the other will stay Secondary. Every
//! datagram is signed with the resource's shared secret and counted, so that none is taken twice. An answer names the question, and a
//! question the life of the agent it is for: what an earlier life said is nobody's.

use crate::config::Route;
use crate::decide::Word;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval};

/// Bytes of a datagram, at most; the signature comes first.
const LONGEST: usize = 1_024;
const SIGNATURE: usize = 32;
/// Datagrams that wait for us.
const QUEUE: usize = 64;
/// How long the other may think about a question, and between two times of asking it.
pub(crate) const THINK: Duration = Duration::from_secs(5);
const REPEAT: Duration = Duration::from_millis(200);

/// What the other says to being asked to stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// Its data is Outdated now, stably.
    Outdated,
    /// Its daemon is down, and its agent will not have it promoted before the two have met. What is on its disk nobody knows.
    Barred,
    /// Its data was worse already.
    Inconsistent,
    /// It is Primary.
    Primary,
    /// Not now.
    Refused,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Content {
    Beat,
    StayAway { nonce: u64, to_incarnation: u64 },
    Answer { nonce: u64, answer: Answer },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Message {
    resource: String,
    from: String,
    to: String,
    incarnation: u64,
    number: u64,
    busy: bool,
    #[serde(flatten)]
    content: Content,
}

/// What the other is asked, or we are.
pub(crate) enum Heard {
    Word(Word),
    /// Stay away? The answer is said again if the question is.
    StayAway(oneshot::Sender<Answer>),
}

/// Who we are to each other.
pub(crate) struct Names {
    pub(crate) resource: String,
    pub(crate) me: String,
    pub(crate) peer: String,
    pub(crate) incarnation: u64,
    pub(crate) secret: String,
}

/// How we speak.
pub(crate) struct Manner {
    /// Said with every heartbeat.
    pub(crate) busy: AtomicBool,
    /// Nothing is said at all: the other is to count this node as dead.
    pub(crate) silent: AtomicBool,
}

/// The way to the other agent.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) manner: Arc<Manner>,
    questions: mpsc::Sender<oneshot::Sender<Answer>>,
}

struct Talk {
    names: Names,
    /// Our end of each, and the other's address.
    paths: Vec<(Arc<UdpSocket>, SocketAddr)>,
    manner: Arc<Manner>,
    number: u64,
    /// Of the other's last message.
    last: (u64, u64),
    to: mpsc::Sender<Heard>,
    asked: Option<(u64, Instant, oneshot::Sender<Answer>)>,
    /// What we were asked: by whom it was, and what we said.
    answered: Option<(u64, Option<Answer>)>,
    thinking: Option<oneshot::Receiver<Answer>>,
}

impl Peer {
    /// Begins to talk; what is heard goes to `to`.
    ///
    /// # Errors
    /// If an address of ours cannot be had.
    pub(crate) async fn start(
        names: Names,
        routes: &[Route],
        every: Duration,
        to: mpsc::Sender<Heard>,
    ) -> Result<Self, String> {
        let (datagrams, mut received) = mpsc::channel(QUEUE);
        let mut paths = Vec::new();
        for (mine, theirs) in routes {
            let socket = UdpSocket::bind(mine).await.map_err(|error| format!("{mine}: {error}"))?;
            let socket = Arc::new(socket);
            // Not connected: an ICMP error of the other's restart would be an error of ours. Who it was from, the signature says.
            tokio::spawn(read(socket.clone(), datagrams.clone()));
            paths.push((socket, *theirs));
        }
        // Before anything is known of the daemon.
        let manner = Arc::new(Manner { busy: true.into(), silent: false.into() });
        let (questions, mut asked) = mpsc::channel::<oneshot::Sender<Answer>>(4);
        let mut talk = Talk {
            names,
            paths,
            manner: manner.clone(),
            number: 0,
            last: (0, 0),
            to,
            asked: None,
            answered: None,
            thinking: None,
        };
        tokio::spawn(async move {
            let mut beat = interval(every);
            let mut repeat = interval(REPEAT);
            loop {
                let content = tokio::select! {
                    _ = beat.tick() => Some(Content::Beat),
                    _ = repeat.tick() => talk.question(),
                    Some(datagram) = received.recv() => talk.hear(&datagram).await,
                    Some(question) = asked.recv() => {
                        talk.asked = Some((nonce(), Instant::now(), question));
                        talk.question()
                    }
                    Some(answer) = thought(&mut talk.thinking) => talk.thought(answer),
                };
                if let Some(content) = content {
                    talk.say(content).await;
                }
            }
        });
        Ok(Self { manner, questions })
    }

    /// Asks the other to stay away; `None`: it did not answer in time.
    pub(crate) async fn stay_away(&self) -> Option<Answer> {
        let (question, answer) = oneshot::channel();
        self.questions.send(question).await.ok()?;
        tokio::time::timeout(THINK, answer).await.ok()?.ok()
    }
}

async fn thought(thinking: &mut Option<oneshot::Receiver<Answer>>) -> Option<Answer> {
    let answer = thinking.as_mut()?.await;
    *thinking = None;
    Some(answer.unwrap_or(Answer::Refused))
}

fn nonce() -> u64 {
    getrandom::u64().expect("the kernel has random numbers")
}

async fn read(socket: Arc<UdpSocket>, to: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; LONGEST];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(read) => {
                if to.send(buffer[..read].to_vec()).await.is_err() {
                    return;
                }
            }
            // Of something sent before; the address stays ours.
            Err(_) => tokio::time::sleep(REPEAT).await,
        }
    }
}

impl Talk {
    fn signer(&self) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.names.secret.as_bytes())
            .expect("a key may have any length");
        // So that nothing signed for another purpose counts here.
        mac.update(b"pollux-agent 1\n");
        mac
    }

    async fn say(&mut self, content: Content) {
        if self.manner.silent.load(Ordering::Acquire) {
            return;
        }
        self.number += 1;
        let message = Message {
            resource: self.names.resource.clone(),
            from: self.names.me.clone(),
            to: self.names.peer.clone(),
            incarnation: self.names.incarnation,
            number: self.number,
            busy: self.manner.busy.load(Ordering::Acquire),
            content,
        };
        let body = serde_json::to_vec(&message).expect("strings and numbers are JSON");
        let mut mac = self.signer();
        mac.update(&body);
        let datagram = [&mac.finalize().into_bytes()[..], &body].concat();
        for (socket, to) in &self.paths {
            // What is lost is said again.
            let _ = socket.send_to(&datagram, to).await;
        }
    }

    fn question(&mut self) -> Option<Content> {
        let (nonce, since, _) = self.asked.as_ref()?;
        if since.elapsed() > THINK || self.last.0 == 0 {
            self.asked = None;
            return None;
        }
        Some(Content::StayAway { nonce: *nonce, to_incarnation: self.last.0 })
    }

    fn thought(&mut self, answer: Answer) -> Option<Content> {
        let (nonce, said) = self.answered.as_mut()?;
        *said = Some(answer);
        Some(Content::Answer { nonce: *nonce, answer })
    }

    /// What is to be said to it.
    async fn hear(&mut self, datagram: &[u8]) -> Option<Content> {
        let (signature, body) = datagram.split_at_checked(SIGNATURE)?;
        let mut mac = self.signer();
        mac.update(body);
        mac.verify_slice(signature).ok()?;
        let message: Message = serde_json::from_slice(body).ok()?;
        let for_us = message.resource == self.names.resource
            && message.from == self.names.peer
            && message.to == self.names.me;
        // The same comes on each path.
        if !for_us || (message.incarnation, message.number) <= self.last {
            return None;
        }
        self.last = (message.incarnation, message.number);
        let word = Word { incarnation: message.incarnation, busy: message.busy };
        self.to.send(Heard::Word(word)).await.ok()?;
        match message.content {
            Content::Beat => None,
            Content::StayAway { nonce, to_incarnation } => {
                if to_incarnation != self.names.incarnation {
                    return None;
                }
                if let Some((old, said)) = self.answered
                    && old == nonce
                {
                    return said.map(|answer| Content::Answer { nonce, answer });
                }
                let (answer, thinking) = oneshot::channel();
                self.answered = Some((nonce, None));
                self.thinking = Some(thinking);
                self.to.send(Heard::StayAway(answer)).await.ok()?;
                None
            }
            Content::Answer { nonce, answer } => {
                if let Some((_, _, question)) = self.asked.take_if(|(asked, ..)| *asked == nonce) {
                    // Who asked may have given up.
                    let _ = question.send(answer);
                }
                None
            }
        }
    }
}

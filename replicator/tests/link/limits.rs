//! LIM: strangers, and peers that send without end or take nothing.

use crate::by_hand::*;
use crate::host::*;
use crate::samples::{pattern, plain};
use bitmap::ByteRange;
use replicator::node::{LinkDown, LinkId};
use replicator::wire::{Encoder, End, Integrity, Message, UNNAMED};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let (mut host, address) = guarded(|c| c.timing.hello = Duration::from_millis(500)).await;
    during(&mut host, async {
        let mut silent = dial(address).await;
        let mut slow = dial(address).await;
        slow.write_all(b"POLL").await.unwrap();
        let (mut mute, _) = greet(address, &stranger(End::Dialer, LOW, HIGH, true).encode()).await;
        for stream in [&mut silent, &mut slow, &mut mute] {
            assert_eq!(rest(stream).await, b"");
        }
    })
    .await;
}

#[tokio::test]
async fn many_silent_strangers_do_not_keep_a_peer_out() {
    let (mut host, address) = guarded(|c| c.timing.hello = PATIENCE).await;
    let strangers = during(&mut host, async {
        let mut strangers = vec![];
        for _ in 0..20 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
            strangers.push(socket.connect(address).await.unwrap());
        }
        // Those beyond the limit are closed at once, the others held.
        for stream in &mut strangers[8..] {
            assert_eq!(rest(stream).await, b"");
        }
        strangers
    })
    .await;
    let link = handmade(&mut host, address, 101).await;
    let nothing = strangers[0].try_read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "still held");
    drop(link);
}

#[tokio::test]
async fn a_queue_beyond_its_limit_breaks_the_link() {
    let (mut low, mut high) = linked(|config| config.send_bytes = 1 << 20).await;
    let large = |len| writing(1, vec![1; len]);
    low.send(1, &large((1 << 20) - 100));
    until(&mut [&mut low, &mut high], |hosts| (!hosts[1].messages().is_empty()).then_some(()))
        .await;
    low.send(1, &large(1 << 20));
    let down = until(&mut [&mut low, &mut high], |hosts| hosts[0].down()).await;
    assert_eq!(down, (LinkId(1), LinkDown::Broken));
    assert_eq!(low.links.linked(), []);
}

/// LIM: what a peer reads through us is read ahead no further than it takes the answers; the link stays.
async fn more_is_asked_than_taken(ask: impl Fn(u64) -> Message, answer: impl Fn(u64) -> Message) {
    let (mut low, mut high) = linked(|config| config.send_bytes = 16 << 20).await;
    let count = 200;
    for id in 0..count {
        low.send(1, &plain("", ask(id)));
    }
    low.links.flush_turn();
    let payload = high.pool.copy_of(&pattern(1 << 20, 3));
    let answer_all = |high: &mut Host| {
        let asked = high.messages();
        for (_, message, _) in &asked {
            let (Message::Read { id, .. } | Message::SyncRead { id, .. }) = *message else {
                panic!("{message:?}")
            };
            high.links.send(LinkId(101), answer(id), |_| payload.clone());
        }
        asked.len()
    };
    let (mut told, mut seen) = (0, 0);
    until(&mut [&mut high], |hosts| {
        let now = answer_all(hosts[0]);
        told += now;
        (told > 0 && now == 0).then_some(())
    })
    .await;
    assert!(told < 50, "{told} MiB were read for a peer that takes nothing");
    until(&mut [&mut low, &mut high], |hosts| {
        answer_all(hosts[1]);
        seen += hosts[0].messages().len() as u64;
        (seen == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_asks_for_more_than_it_takes_waits() {
    let (volume, range, buffer) = (0, ByteRange::new(0, 1 << 20), Some(UNNAMED));
    let ask = |id| Message::Read { id, volume, range };
    more_is_asked_than_taken(ask, |id| Message::ReadData { id, buffer }).await;
    let ask = |id| Message::SyncRead { id, volume, range };
    more_is_asked_than_taken(ask, |id| Message::SyncData { id, serves: false, buffer }).await;
}

/// LIM: neither questions nor answers pile up without end for a peer that sends and takes nothing.
#[tokio::test]
async fn a_peer_that_sends_without_end_and_takes_nothing_is_cut_off() {
    let range = ByteRange::new(0, 1);
    for message in [Message::Ping, Message::SyncRead { id: 0, volume: 0, range }] {
        let (mut host, address) = guarded(|c| c.send_bytes = 1 << 20).await;
        let mut stream = handmade(&mut host, address, 101).await;
        let mut encoder = Encoder::new(Integrity::None);
        let flood = async {
            for id in 0.. {
                let mut bytes = vec![];
                for id in id * 1000..(id + 1) * 1000 {
                    let message = match message {
                        Message::Ping => Message::Ping,
                        _ => Message::SyncRead { id, volume: 0, range },
                    };
                    encoder.encode(&message, None, &mut bytes);
                }
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        let mut flood = std::pin::pin!(flood);
        let mut passed_on = 0;
        let run = poll_fn(|context| {
            let _ = flood.as_mut().poll(context);
            host.poll(context);
            for (link, message, _) in host.messages() {
                passed_on += 1;
                if message == Message::Ping {
                    host.links.send(link, Message::Pong, |_| unreachable!());
                }
            }
            host.links.flush_turn();
            context.waker().wake_by_ref();
            host.down().map_or(Poll::Pending, Poll::Ready)
        });
        let down = timeout(PATIENCE, run).await.expect("in time");
        assert_eq!(down, (LinkId(101), LinkDown::Broken), "after {passed_on} messages");
    }
}

/// How often a host is woken in a while in which nothing happens.
async fn wakes(host: &mut Host) -> u32 {
    let mut wakes = 0;
    let mut quiet = std::pin::pin!(tokio::time::sleep(Duration::from_millis(100)));
    poll_fn(|context| {
        wakes += 1;
        host.poll(context);
        quiet.as_mut().poll(context)
    })
    .await;
    assert!(host.arrivals.is_empty());
    wakes
}

#[tokio::test]
async fn waiting_costs_nothing() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    stream.write_all(&frames(&[ping()])).await.unwrap();
    until(&mut [&mut host], |hosts| (!hosts[0].messages().is_empty()).then_some(())).await;
    assert!(wakes(&mut host).await < 10, "nothing to read");
    // The peer reads nothing: the socket is full.
    for dagtag in 0..100 {
        host.send(101, &writing(dagtag, pattern(1 << 20, dagtag)));
    }
    host.links.flush_turn();
    wakes(&mut host).await;
    assert!(wakes(&mut host).await < 10, "nothing can be sent");
    let mut all = vec![0; 100 << 20];
    during(&mut host, stream.read_exact(&mut all)).await.unwrap();
}

//! What travels over a link: all of it, in order, whole, however the bytes arrive, and what is left of it when it ends.

use crate::by_hand::*;
use crate::host::*;
use crate::samples::{self, Sample, pattern, plain, write};
use bitmap::ByteRange;
use replicator::buffers::Buffer;
use replicator::link::Secret;
use replicator::node::{Event, LinkDown, LinkId};
use replicator::wire::{Integrity, MAX_PAYLOAD, Message, UNNAMED};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn every_message() -> Vec<Sample> {
    let mut all = samples::all();
    for (i, len) in [4096, 20_000, (16 << 10) - 1, 16 << 10, 1 << 20].into_iter().enumerate() {
        all.push(writing(i as u64, pattern(len, i as u64)));
    }
    all
}

/// What is asked, so that the answers among the samples are expected.
fn asks() -> Vec<Sample> {
    let ask = |id, sync| {
        let range = ByteRange::new(0, 12);
        plain(
            "",
            match sync {
                true => Message::SyncRead { id, volume: 0, range },
                false => Message::Read { id, volume: 0, range },
            },
        )
    };
    let compare = samples::all().into_iter().find(|sample| sample.name == "sync-compare");
    let mut asks =
        vec![ask(21, false), ask(22, false), ask(23, true), ask(24, true), ask(26, true)];
    asks.extend(compare);
    asks
}

async fn exchange(low: &mut Host, high: &mut Host) {
    asks().iter().for_each(|ask| low.send(1, ask));
    let expected = every_message();
    expected.iter().for_each(|sample| high.send(101, sample));
    let mut seen = vec![];
    until(&mut [low, high], |hosts| {
        seen.extend(hosts[0].messages());
        (seen.len() == expected.len()).then_some(())
    })
    .await;
    for ((link, message, payload), sample) in seen.into_iter().zip(expected) {
        assert_eq!(link, LinkId(1));
        assert_eq!(message, sample.message, "{}", sample.name);
        assert_eq!(payload, sample.payload, "{}", sample.name);
    }
}

#[tokio::test]
async fn every_message_travels() {
    for integrity in [Integrity::None, Integrity::Crc32] {
        for secret in [None, Some(Secret::new("castor and pollux"))] {
            let (mut low, mut high) = linked(|config| {
                config.integrity = integrity;
                config.secret = secret.clone();
            })
            .await;
            exchange(&mut low, &mut high).await;
            assert_eq!(low.links.linked(), [HIGH]);
        }
    }
}

#[tokio::test]
async fn payloads_are_aligned_and_keep_their_order() {
    let (mut low, mut high) = linked(|_| {}).await;
    // Far more than a socket takes at once: sends are continued, receives are cut anywhere.
    let lens = [1 << 20, 512, 16 << 10, 4096, 3 << 20, 100_000, 512, 2 << 20];
    let mut sent = vec![];
    for round in 0..5 {
        for (i, &len) in lens.iter().enumerate() {
            let (dagtag, bytes) = (sent.len() as u64, pattern(len, round * 8 + i as u64));
            low.send(1, &writing(dagtag, bytes.clone()));
            sent.push(bytes);
        }
    }
    let mut received = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        received.extend(hosts[1].messages());
        (received.len() == sent.len()).then_some(())
    })
    .await;
    let address = |buffer: &Buffer| buffer.as_ref().as_ptr() as usize;
    assert!(high.buffers.values().all(|buffer| address(buffer).is_multiple_of(4096)));
    for (i, (_, message, payload)) in received.iter().enumerate() {
        assert_eq!(*message, write(i as u64, 0, sent[i].len() as u64));
        assert!(payload.as_ref() == Some(&sent[i]), "payload {i}");
    }
}

#[tokio::test]
async fn garbage_closes_that_connection_only() {
    let (mut low, mut high) = linked(|_| {}).await;
    let address = high.links.address().unwrap();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 300], &[255; 100_000]] {
        let answered = during(&mut high, async {
            let mut stream = dial(address).await;
            // It may be closed while we write.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            rest(&mut stream).await
        });
        assert_eq!(answered.await, b"");
    }
    exchange(&mut low, &mut high).await;
    assert!(!high.arrivals.iter().any(|arrival| matches!(arrival, Event::Link(..))));
}

/// What becomes of a link on which these bytes arrive, then the end.
async fn ended_by(bytes: &[u8]) -> Vec<Seen> {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    asks().iter().for_each(|ask| host.send(101, ask));
    // Take the questions, so that our end closes without a reset.
    let mut asked = vec![0; frames(&asks()).len()];
    during(&mut host, stream.read_exact(&mut asked)).await.unwrap();
    assert_eq!(asked, frames(&asks()));
    // It may be closed while we write.
    let _ = during(&mut host, stream.write_all(bytes)).await;
    let _ = stream.shutdown().await;
    let mut seen = vec![];
    let down = until(&mut [&mut host], |hosts| {
        seen.extend(hosts[0].messages());
        hosts[0].down()
    })
    .await;
    assert_eq!(down, (LinkId(101), LinkDown::Broken));
    assert!(host.arrivals.is_empty(), "nothing after the end");
    assert_eq!(host.links.linked(), []);
    seen
}

#[tokio::test]
async fn what_came_whole_counts_when_a_link_ends() {
    let small = || writing(1, pattern(512, 1));
    let first = |seen: &[Seen]| matches!(seen, [(_, Message::Ping, None)]);
    assert!(first(&ended_by(&frames(&[ping()])).await), "closed between messages");
    for sample in [small(), writing(2, pattern(50_000, 2))] {
        let whole = frames(&[ping(), sample]);
        let head = frames(&[ping()]).len();
        for cut in [head + 1, head + 32, head + 33, whole.len() - 1] {
            assert!(first(&ended_by(&whole[..cut]).await), "cut after {cut}");
        }
        assert_eq!(ended_by(&whole).await.len(), 2);
    }
    let mut altered = frames(&[ping(), small()]);
    altered[40] ^= 1;
    assert!(first(&ended_by(&altered).await), "checksum");
    let repeated = [frames(&[ping()]), frames(&[ping()])].concat();
    assert!(first(&ended_by(&repeated).await), "sequence");
}

#[tokio::test]
async fn answers_must_be_to_questions() {
    let answer = |id, len: usize| Sample {
        name: "",
        message: Message::ReadData { id, buffer: Some(UNNAMED) },
        payload: Some(vec![1; len]),
    };
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 12)])).await.len(), 2);
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 13)])).await.len(), 1, "too long");
    assert_eq!(ended_by(&frames(&[ping(), answer(21, 11)])).await.len(), 1, "too short");
    assert_eq!(ended_by(&frames(&[ping(), answer(20, 12)])).await.len(), 1, "not asked");
    assert_eq!(ended_by(&frames(&[ping(), answer(23, 12)])).await.len(), 1, "asked otherwise");
    let refusal = plain("", Message::ReadData { id: 23, buffer: None });
    assert_eq!(ended_by(&frames(&[ping(), refusal])).await.len(), 2, "a resync's read refused");
    assert_eq!(ended_by(&frames(&[answer(21, 12), answer(21, 12)])).await.len(), 1, "twice");
}

#[tokio::test]
async fn bytes_may_arrive_one_by_one() {
    let (mut host, address) = guarded(|_| {}).await;
    let mut stream = handmade(&mut host, address, 101).await;
    stream.set_nodelay(true).unwrap();
    let mut samples = samples::all();
    // Nobody has asked.
    samples.retain(|s| {
        !matches!(
            s.message,
            Message::ReadData { .. } | Message::SyncData { .. } | Message::SyncDiffers { .. }
        )
    });
    let mut seen = vec![];
    for &byte in &frames(&samples) {
        stream.write_all(&[byte]).await.unwrap();
        until(&mut [&mut host], |_| Some(())).await;
        seen.extend(host.messages());
    }
    until(&mut [&mut host], |hosts| {
        seen.extend(hosts[0].messages());
        (seen.len() == samples.len()).then_some(())
    })
    .await;
    for ((_, message, payload), sample) in seen.into_iter().zip(samples) {
        assert_eq!((message, payload), (sample.message, sample.payload));
    }
}

#[tokio::test]
async fn receives_may_end_anywhere() {
    const RECEIVE: usize = 256 << 10;
    for total in [RECEIVE - 1, RECEIVE, RECEIVE + 1, RECEIVE + 31, RECEIVE + 32, RECEIVE + 33] {
        // 4 KiB writes, then one that ends exactly at `total`; all of it there at once.
        let one = |dagtag: usize, len| writing(dagtag as u64, pattern(len, dagtag as u64));
        let frame = frames(&[one(0, 4096)]).len();
        let mut samples: Vec<_> = (0..total / frame - 1).map(|i| one(i, 4096)).collect();
        let left = total - frames(&samples).len();
        samples.push(one(samples.len(), left - (frame - 4096)));
        let mut stream_bytes = frames(&samples);
        assert_eq!(stream_bytes.len(), total);
        let whole = samples.len();
        samples.push(ping());
        stream_bytes = frames(&samples);

        let (mut host, address) = guarded(|_| {}).await;
        let mut stream = handmade(&mut host, address, 101).await;
        // Our writes come first: nothing reads meanwhile until the socket is full.
        let (sent, seen) = (stream.write_all(&stream_bytes), &mut vec![]);
        during(&mut host, sent).await.unwrap();
        until(&mut [&mut host], |hosts| {
            seen.extend(hosts[0].messages());
            (seen.len() == whole + 1).then_some(())
        })
        .await;
        for ((_, message, payload), sample) in seen.iter().zip(&samples) {
            assert_eq!(message, &sample.message);
            assert!(payload == &sample.payload);
        }
    }
}

#[tokio::test]
async fn close_delivers_what_was_sent_before() {
    let (mut low, mut high) = linked(|_| {}).await;
    const COUNT: usize = 40;
    let len = 1 << 20;
    for i in 0..COUNT {
        let sample = |seed| writing(i as u64, pattern(len, seed));
        high.send(101, &sample(i as u64));
        // What is never read must not make the kernel throw away what was sent.
        low.send(1, &sample(0));
    }
    high.send(101, &plain("", Message::Bye { outdate: false, outdated: false }));
    low.links.flush_turn();
    high.links.close(LinkId(101));
    assert_eq!(high.links.linked(), []);
    let mut seen = vec![];
    let down = async {
        until(&mut [&mut low], |hosts| {
            seen.extend(hosts[0].messages());
            hosts[0].down()
        })
        .await
    };
    let (down, ()) = tokio::join!(down, high.links.closed());
    assert_eq!(down, (LinkId(1), LinkDown::Broken));
    assert_eq!(seen.len(), COUNT + 1);
    for (i, (_, message, payload)) in seen[..COUNT].iter().enumerate() {
        assert_eq!(*message, write(i as u64, 0, len as u64));
        assert!(*payload == Some(pattern(len, i as u64)), "payload {i}");
    }
    assert_eq!(seen[COUNT].1, Message::Bye { outdate: false, outdated: false });
    assert!(high.arrivals.is_empty(), "a closed link says nothing");
    // And again, over the same hosts.
    connect(&mut low, &mut high, 2).await;
}

#[tokio::test]
async fn the_largest_payload_travels() {
    let (mut low, mut high) = linked(|config| config.integrity = Integrity::Crc32).await;
    low.send(1, &writing(1, pattern(MAX_PAYLOAD, 5)));
    let mut seen = vec![];
    until(&mut [&mut low, &mut high], |hosts| {
        seen = hosts[1].messages();
        (!seen.is_empty()).then_some(())
    })
    .await;
    assert!(seen[0].2 == Some(pattern(MAX_PAYLOAD, 5)));
}

/// 4 KiB writes, 32 in flight, each acknowledged. Prints what it measures; `--nocapture` shows it.
#[tokio::test]
async fn writes_are_batched() {
    let (mut low, mut high) = linked(|_| {}).await;
    let payload = low.pool.copy_of(&pattern(4096, 1));
    let (count, depth) = (20_000u64, 32);
    let (mut sent, mut acknowledged, mut turns) = (0, 0, 0u64);
    let start = Instant::now();
    while acknowledged < count {
        while sent < count.min(acknowledged + depth) {
            sent += 1;
            low.links.send(LinkId(1), write(sent, 0, 4096), |_| payload.clone());
        }
        low.links.flush_turn();
        until(&mut [&mut high], |hosts| (!hosts[0].arrivals.is_empty()).then_some(())).await;
        turns += 1;
        for arrival in high.arrivals.drain(..) {
            let Event::Peer(id, Message::Write(write)) = arrival else { panic!("{arrival:?}") };
            high.links.send(id, Message::Written(write.dagtag), |_| unreachable!());
        }
        high.buffers.clear();
        high.links.flush_turn();
        until(&mut [&mut low], |hosts| (!hosts[0].arrivals.is_empty()).then_some(())).await;
        for arrival in low.arrivals.drain(..) {
            let Event::Peer(LinkId(1), Message::Written(dagtag)) = arrival else {
                panic!("{arrival:?}")
            };
            assert_eq!(dagtag, acknowledged + 1);
            acknowledged += 1;
        }
    }
    let (each, batch) = (start.elapsed() / count as u32, count as f64 / turns as f64);
    println!("{each:?} a write, both ends; {batch:.1} writes a turn");
    assert!(turns <= count / depth + count / 100, "{turns} turns");
}

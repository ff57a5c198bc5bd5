//! The loop that owns a node, with one front end and one operator, on a file: what is asked is done
//! and answered once, and the end leaves nobody waiting. What nodes decide is tested elsewhere.
#![cfg(feature = "shell")]

use bitmap::{ByteRange, FormatParams, Metadata, NodeId, Placement};
use replicator::buffers::{Buffer, Pool};
use replicator::config::{Config, Fencing, Limits, Timing, VolumeConfig};
use replicator::daemon::control::{Control, Names, RunLock};
use replicator::daemon::limits::CONTROL_CONNECTIONS;
use replicator::daemon::{Daemon, Open, OrderError, Programs, Setup, VolumeFiles, Waiter};
use replicator::disk::{Backing, Op, Options};
use replicator::link::{LinkConfig, LinkTiming, SEND_BYTES};
use replicator::node::{Command, Protocol, RefusalKind, RequestError, RequestOp, Role};
use replicator::wire::Integrity;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

const SIZE: u64 = 16 << 20;
const BLOCK: u64 = 4096;
const PATIENCE: Duration = Duration::from_secs(60);

type Answer = Result<Option<Buffer>, RequestError>;

struct Told(oneshot::Sender<Answer>);

impl Waiter for Told {
    fn done(self, result: Answer) {
        // Some tests do not listen.
        let _ = self.0.send(result);
    }
}

/// A file with metadata; bytes of data in it.
fn disk(path: &Path) -> u64 {
    std::fs::File::create(path).and_then(|file| file.set_len(SIZE)).expect("a file");
    let pool = Pool::new(0);
    let mut backing = Backing::open(path, &Options::default(), &pool).expect("a disk");
    let (metadata, stages) = Metadata::format(FormatParams {
        placement: Placement::Internal,
        device_size: backing.size(),
        data_size: None,
        size: None,
        node_id: NodeId(0),
        device_uuid: 7,
        slots: vec![],
        al_slots: 67,
        al_sectors: 256,
        block_size: 4096,
        extent_size: 1 << 20,
        logical_block_size: 512,
    })
    .expect("it fits");
    for write in stages.into_iter().flatten() {
        backing.perform(&Op::WriteMeta(write)).expect("written");
    }
    metadata.geometry().size
}

fn setup(disk: Option<PathBuf>, requests: usize) -> Setup {
    let volumes = vec![VolumeConfig { number: 0, placement: Placement::Internal, size: 0 }];
    Setup {
        programs: Programs::default(),
        config: Config {
            node: NodeId(0),
            volumes,
            peers: vec![],
            protocol: Protocol::C,
            flush_peer: true,
            suspend_no_data: false,
            fencing: Fencing::DontCare,
            auto_promote: false,
            timing: Timing::default(),
            limits: Limits { requests, ..Limits::default() },
        },
        files: vec![VolumeFiles { volume: 0, disk, options: Options::default() }],
        links: LinkConfig {
            me: NodeId(0),
            incarnation: 0,
            resource: "r0".into(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            peers: vec![],
            secret: None,
            integrity: Integrity::None,
            send_bytes: SEND_BYTES,
            timing: LinkTiming::default(),
        },
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build_local(LocalOptions::default()).expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("in time") });
}

fn ask(open: &Open<Told>, op: RequestOp<Buffer>) -> oneshot::Receiver<Answer> {
    let (told, answer) = oneshot::channel();
    open.submit([(0, op, Told(told))]);
    answer
}

fn block(n: u64) -> ByteRange {
    ByteRange::new(n * BLOCK, BLOCK)
}

#[test]
fn what_was_written_is_read_by_the_next_process_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    let size = disk(&path);
    for round in 0..2 {
        run(async {
            // Fewer requests at a time than there are: the others wait in the queue.
            let daemon = Daemon::new(setup(Some(path.clone()), 3)).await.expect("it starts");
            let (handle, remote) = (daemon.handle(), daemon.remote());
            let running = spawn_local(daemon.run());
            assert_eq!(handle.size(0), None);
            remote.attach(0).await.expect("attached");
            assert_eq!(handle.size(0), Some(size));
            let refused = handle.open(|_| {}).await.err().expect("it is Secondary");
            assert!(refused.text.contains("Secondary"), "{}", refused.text);
            remote.command(Command::Primary { force: round == 0 }).await.expect("promoted");

            let gone = Rc::new(Cell::new(false));
            let told = Rc::clone(&gone);
            let open = handle.open(move |_| told.set(true)).await.expect("it is Primary");
            let mut answers = Vec::new();
            for n in 0..50 {
                if round == 0 {
                    let mut buffer = handle.allocate(BLOCK as usize);
                    buffer.as_mut().fill(n as u8 + 1);
                    let buffer = buffer.freeze();
                    answers.push(ask(
                        &open,
                        RequestOp::Write { range: block(n), buffer, fua: n % 7 == 0 },
                    ));
                } else {
                    answers.push(ask(&open, RequestOp::Read(block(n))));
                }
            }
            for (n, answer) in answers.into_iter().enumerate() {
                let bytes = answer.await.expect("answered").expect("done");
                assert_eq!(bytes.is_some(), round == 1);
                if let Some(bytes) = bytes {
                    assert_eq!(bytes.as_ref(), [n as u8 + 1; BLOCK as usize]);
                }
            }
            let zero = RequestOp::Zero { range: block(60), unmap: true, fua: true };
            assert!(ask(&open, zero).await.expect("answered").expect("done").is_none());
            assert!(ask(&open, RequestOp::Flush).await.expect("answered").expect("done").is_none());

            let held = remote.command(Command::Down).await.expect_err("a client is there");
            let OrderError::Refused(held) = held else { panic!("{held:?}") };
            assert_eq!(held.kind, RefusalKind::InUse);
            assert!(!gone.get());
            let counters = remote.snapshot().await.expect("it runs").volumes;
            let (reads, writes) = (counters[0].reads, counters[0].writes);
            assert_eq!((reads, writes), if round == 0 { (0, 51) } else { (50, 1) });
            assert_eq!((counters[0].upper_pending, counters[0].flushes), (0, 1));
            drop(open);
            remote.command(Command::Down).await.expect("down");
            running.await.expect("it ended");
            assert!(matches!(remote.snapshot().await, Err(OrderError::Ending)));
        });
    }
}

#[test]
fn a_disk_that_is_there_already_or_cannot_be_had_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    run(async {
        let daemon = Daemon::<Told>::new(setup(Some(path.clone()), 100)).await.expect("it starts");
        let remote = daemon.remote();
        let running = spawn_local(daemon.run());
        let why = async |volume| match remote.attach(volume).await {
            Err(OrderError::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        assert!(why(3).await.text.contains("no volume 3"));
        assert_eq!(why(0).await.kind, RefusalKind::Metadata, "no such file");
        std::fs::File::create(&path).and_then(|file| file.set_len(SIZE)).expect("a file");
        assert!(why(0).await.text.contains("no metadata"));
        let made = directory.path().join("made");
        disk(&made);
        std::fs::copy(&made, &path).expect("copied");
        remote.attach(0).await.expect("attached");
        assert!(why(0).await.text.contains("has a disk already"));
        remote.command(Command::Detach(0)).await.expect("detached");
        let other = Backing::open(&path, &Options::default(), &Pool::new(0)).map(drop);
        other.expect("free when the detach is answered");
        remote.attach(0).await.expect("attached again");
        remote.end().await;
        running.await.expect("it ended");
    });
}

#[test]
fn an_end_leaves_nobody_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("disk");
    disk(&path);
    run(async {
        let daemon = Daemon::new(setup(Some(path.clone()), 1)).await.expect("it starts");
        let (handle, remote) = (daemon.handle(), daemon.remote());
        let running = spawn_local(daemon.run());
        remote.attach(0).await.expect("attached");
        remote.command(Command::Primary { force: true }).await.expect("promoted");
        let reason = Rc::new(Cell::new(None));
        let told = Rc::clone(&reason);
        let open = handle.open(move |why| told.set(Some(why.to_owned()))).await.expect("open");
        let flushes: Vec<_> = (0..100).map(|_| ask(&open, RequestOp::Flush)).collect();
        remote.end().await;
        running.await.expect("it ended");
        assert!(reason.take().is_some(), "the client was told to go");
        let mut failed = 0;
        for flush in flushes {
            match flush.await.expect("answered") {
                Ok(None) => {}
                Err(RequestError::Shutdown) => failed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(failed > 0, "the test ends it before all are done");
        let late = ask(&open, RequestOp::Flush).await.expect("answered");
        assert!(matches!(late, Err(RequestError::Shutdown)), "{late:?}");
        assert!(handle.open(|_| {}).await.is_err());
        assert_eq!(handle.snapshot().status.role, Role::Primary, "as it was at the end");
    });
}

/// What is no command, and is answered with a refusal.
async fn ask_nothing(operator: &mut UnixStream) {
    let request = b"POST /command HTTP/1.1\r\nhost: r0\r\ncontent-length: 0\r\n\r\n";
    operator.write_all(request).await.expect("sent");
}

async fn refusal(operator: &mut UnixStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\"}") {
        assert_ne!(operator.read_buf(&mut answer).await.expect("received"), 0, "closed");
    }
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.contains("400 Bad Request") && answer.contains("\"usage\""), "{answer}");
}

#[test]
fn so_many_operators_are_served_at_a_time_and_the_others_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    run(async {
        let daemon = Daemon::<Told>::new(setup(None, 1)).await.expect("it starts");
        let lock = RunLock::take(directory.path(), "r0").expect("it does not run yet");
        let (resource, node) = ("r0".into(), "alpha".into());
        let names = Names { resource, node, version: "0", peers: vec![] };
        let control = Control::start(&lock, daemon.remote(), names, vec![]).expect("it listens");
        let connect = || UnixStream::connect(RunLock::socket(directory.path(), "r0"));
        let mut operators = Vec::new();
        for _ in 0..CONTROL_CONNECTIONS {
            operators.push(connect().await.expect("connected"));
        }
        let mut late = connect().await.expect("in the queue");
        ask_nothing(&mut late).await;
        for round in 0..3 {
            for operator in &mut operators {
                ask_nothing(operator).await;
                refusal(operator).await;
            }
            let nothing = late.try_read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock), "round {round}");
        }
        drop(operators.pop());
        refusal(&mut late).await;
        control.end(PATIENCE);
    });
}

//! The end of an export or of the server: what was accepted is answered, what comes later is
//! refused, and nobody waits for ever.

#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

mod common;

use common::*;
use nbd_server::memory::MemoryDevice;
use nbd_server::nbd::protocol::*;
use nbd_server::nbd::transport::Socket;
use nbd_server::{Address, ExportInfo, Exports, Geometry, Limits, Listener, Refusal, Server};
use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{LocalSet, spawn_local};

const ESHUTDOWN: u32 = 108;

#[test]
fn an_export_that_closes_answers_what_it_accepted() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut idle = Client::connect(&host).simple("r0");
    let mut other = Client::connect(&host).simple("ro");
    let mut client = Client::connect(&host).simple("r0");
    for cookie in 0..3 {
        client.request(0, command::READ, cookie, 0, 100);
    }
    host.wait_until_held(3);
    host.device(|device| device.close("demoted"));
    idle.expect_end();
    // New requests are refused as long as the accepted ones are under way.
    client.request(0, command::WRITE, 50, 0, 5);
    client.send(b"later");
    assert_eq!(client.simple_reply(50), ESHUTDOWN);
    host.device(|device| device.resume());
    for cookie in 0..3 {
        assert_eq!(client.simple_reply(cookie), 0);
        client.receive(100);
    }
    client.expect_end();
    other.expect_alive();
    host.until("the handles are back", |server| server.exports().clients("r0") == 0);
}

#[test]
fn requests_that_never_complete_end_with_the_deadline() {
    let host = Host::with(Limits { drain: Duration::from_millis(50), ..Limits::DEFAULT });
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    client.request(0, command::READ, 1, 0, 100);
    host.wait_until_held(1);
    host.device(|device| device.close("demoted"));
    client.expect_end();
    host.until("it is gone", |server| server.connections() == 0);
    assert_eq!(host.run(|server| server.in_flight()), (0, 0));
    // The device completes it much later: to nobody.
    host.device(|device| device.resume());
}

/// A socket that is closed with bytes unread resets the connection, and what has not reached the
/// client by then is lost.
#[test]
fn what_follows_a_disconnect_costs_no_reply() {
    let host = Host::with(Limits { linger: PATIENCE, ..Limits::DEFAULT });
    host.device(|device| device.hold());
    let mut client = Client::connect_tcp(&host).simple("r0");
    let mut script = request(0, command::READ, 1, 0, 1 << 20);
    script.extend(request(0, command::DISC, 0, 0, 0));
    script.extend(vec![0xff; 1 << 19]);
    client.send(&script);
    host.wait_until_held(1);
    host.device(|device| device.resume());
    // All of it is in the kernel, most of it on the server's side.
    host.until("the reply is sent", |server| server.in_flight() == (0, 0));
    assert_eq!(client.simple_reply(1), 0);
    client.receive(1 << 20);
    client.expect_end();
}

#[test]
fn a_device_that_drops_its_requests_leaves_nobody_waiting() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    client.request(0, command::READ, 1, 0, 100);
    host.wait_until_held(1);
    host.device(|device| device.discard());
    assert_eq!(client.simple_reply(1), ESHUTDOWN);
}

#[test]
fn a_server_shuts_down_when_all_is_answered() {
    let host = Host::start();
    host.device(|device| device.hold());
    let mut client = Client::connect(&host).simple("r0");
    let mut silent = Client::connect(&host);
    silent.greet(3);
    assert_eq!(silent.ask(option::LIST, b""), option_reply::ACK);
    client.request(0, command::READ, 1, 0, 100);
    host.wait_until_held(1);
    let ended = host.begin(|server| async move { server.shut_down("for the night").await });
    silent.expect_end();
    client.request(0, command::FLUSH, 2, 0, 0);
    assert_eq!(client.simple_reply(2), ESHUTDOWN);
    assert!(ended.try_recv().is_err(), "a request is still under way");
    host.device(|device| device.resume());
    assert_eq!(client.simple_reply(1), 0);
    client.receive(100);
    client.expect_end();
    drop((client, silent));
    ended.recv_timeout(PATIENCE).unwrap();
    // Nobody listens any more, and the socket file is gone.
    let late = UnixStream::connect(&host.socket).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
}

#[test]
fn a_server_that_ends_tells_clients_in_the_handshake() {
    let host = Host::with(Limits { linger: PATIENCE, ..Limits::DEFAULT });
    let mut client = Client::connect(&host);
    client.greet(3);
    assert_eq!(client.ask(option::LIST, b""), option_reply::ACK);
    let ended = host.begin(|server| async move { server.shut_down("for the night").await });
    host.run(|_| ());
    client.option(option::INFO, &go(b"r0"));
    let answer = client.option_reply(option::INFO);
    assert_eq!(answer, (option_reply::ERR_SHUTDOWN, b"for the night".to_vec()));
    assert_eq!(client.ask(option::ABORT, b""), option_reply::ACK);
    client.expect_end();
    drop(client);
    ended.recv_timeout(PATIENCE).unwrap();
}

/// Exports whose devices take for ever to open.
struct Stuck;

impl Exports for Stuck {
    type Device = MemoryDevice;

    fn list(&self) -> Vec<ExportInfo> {
        Vec::new()
    }

    fn describe(&self, name: &str) -> Result<(ExportInfo, Geometry), Refusal> {
        let info = ExportInfo { name: name.to_owned(), description: String::new() };
        Ok((info, Geometry::any_range(SIZE)))
    }

    async fn open(&self, _: &str) -> Result<MemoryDevice, Refusal> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_open_that_is_under_way_when_the_server_ends_is_refused() {
    let work = async {
        let server = Server::new(Stuck, Limits::DEFAULT);
        let (mut client, theirs) = tokio::net::UnixStream::pair().unwrap();
        server.serve(Socket::Unix(theirs), "a socket pair".into()).await;
        client.write_all(&3u32.to_be_bytes()).await.unwrap();
        client.write_all(&option_bytes(option::GO, &go(b"r0"))).await.unwrap();
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).await.unwrap();
        let ending = server.clone();
        let ended = spawn_local(async move { ending.shut_down("for the night").await });
        let mut refusal = [0; 20 + 13];
        client.read_exact(&mut refusal).await.unwrap();
        assert_eq!(refusal[12..16], option_reply::ERR_SHUTDOWN.to_be_bytes());
        assert_eq!(refusal[20..], *b"for the night");
        drop(client);
        ended.await.unwrap();
    };
    tokio::time::timeout(PATIENCE, LocalSet::new().run_until(work)).await.unwrap();
}

/// Binds on a runtime of its own; the kind of the failure.
fn bind(address: Address) -> Result<Listener, ErrorKind> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Listener::bind(&address)).map_err(|error| error.source.kind())
}

#[test]
fn only_a_stale_socket_file_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let address = Address::Unix(path.clone());

    let living = UnixListener::bind(&path).unwrap();
    assert_eq!(bind(address.clone()).unwrap_err(), ErrorKind::AddrInUse);
    // Its owner dies without removing the file.
    drop(living);
    assert!(path.exists());
    let ours = bind(address.clone()).unwrap();
    assert!(path.exists());
    assert_eq!(bind(address.clone()).unwrap_err(), ErrorKind::AddrInUse);
    drop(ours);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert_eq!(bind(address).unwrap_err(), ErrorKind::AddrInUse);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let missing = Address::Unix(directory.path().join("no/such/directory"));
    assert_eq!(bind(missing).unwrap_err(), ErrorKind::NotFound);
}

#[test]
fn a_listener_removes_only_its_own_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nbd.sock");
    let ours = bind(Address::Unix(path.clone())).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _another = UnixListener::bind(&path).unwrap();
    drop(ours);
    assert!(path.exists());
}

//! What the suites share: a server on a thread of its own, and a client made of bare bytes that
//! can say anything, also what no decent client would.

#![allow(dead_code, unreachable_pub, reason = "each suite uses another part")]
#![allow(clippy::unwrap_used, reason = "a failed test is a panic")]

use nbd_server::memory::{MemoryDevice, MemoryExports};
use nbd_server::nbd::protocol::*;
use nbd_server::{Address, Geometry, Limits, Listener, Refusal, Server};
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{LocalSet, spawn_local};

/// Longer than anything here takes on a busy machine; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const SIZE: u64 = 64 << 20;

pub type TestServer = Server<MemoryExports>;
type Job = Box<dyn FnOnce(TestServer) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A server with the exports `r0` (the default), `ro` (read-only), `blocks` (512-byte blocks) and
/// `second` (refused). Dropping it ends it.
pub struct Host {
    pub socket: PathBuf,
    pub tcp: SocketAddr,
    jobs: Option<UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Host {
    pub fn start() -> Self {
        Self::with(Limits { linger: Duration::from_millis(200), ..Limits::DEFAULT })
    }

    pub fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("nbd.sock");
        let (jobs, mut queue) = tokio::sync::mpsc::unbounded_channel::<Job>();
        let (started, when_started) = mpsc::channel();
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let server = Server::new(exports(), limits);
                let unix = Listener::bind(&Address::Unix(path)).await.unwrap();
                let tcp = Listener::bind(&Address::Tcp(([127, 0, 0, 1], 0).into())).await.unwrap();
                let Address::Tcp(port) = tcp.address().unwrap() else { unreachable!() };
                for listener in [unix, tcp] {
                    let server = server.clone();
                    spawn_local(async move { server.listen(listener).await });
                }
                started.send(port).unwrap();
                while let Some(job) = queue.recv().await {
                    spawn_local(job(server.clone()));
                }
            });
        });
        let tcp = when_started.recv_timeout(PATIENCE).unwrap();
        Self { socket, tcp, jobs: Some(jobs), thread: Some(thread), _directory: directory }
    }

    /// Runs `job` on the server's thread.
    pub fn run<R: Send + 'static>(&self, job: impl FnOnce(&TestServer) -> R + Send + 'static) -> R {
        self.wait(move |server| std::future::ready(job(&server)))
    }

    /// Runs `job` on the server's thread until it is done.
    pub fn wait<R: Send + 'static, F: Future<Output = R> + 'static>(
        &self,
        job: impl FnOnce(TestServer) -> F + Send + 'static,
    ) -> R {
        self.begin(job).recv_timeout(PATIENCE).expect("the server's thread did the job in time")
    }

    /// Starts `job` on the server's thread.
    pub fn begin<R: Send + 'static, F: Future<Output = R> + 'static>(
        &self,
        job: impl FnOnce(TestServer) -> F + Send + 'static,
    ) -> mpsc::Receiver<R> {
        let (done, result) = mpsc::channel();
        let job: Job = Box::new(move |server| {
            let work = job(server);
            Box::pin(async move {
                let result = work.await;
                // Nobody may be waiting any more.
                let _ = done.send(result);
            })
        });
        self.jobs.as_ref().unwrap().send(job).expect("the server's thread lives");
        result
    }

    /// Runs `job` with the device of `r0`.
    pub fn device<R: Send + 'static>(
        &self,
        job: impl FnOnce(&MemoryDevice) -> R + Send + 'static,
    ) -> R {
        self.run(move |server| job(&server.exports().device("r0")))
    }

    pub fn wait_until_held(&self, count: usize) {
        self.wait(move |server| async move {
            server.exports().device("r0").wait_until_held(count).await;
        });
    }

    /// Waits until `condition` holds on the server's thread.
    pub fn until(
        &self,
        what: &str,
        condition: impl Fn(&TestServer) -> bool + Send + Copy + 'static,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !self.run(condition) {
            assert!(Instant::now() < deadline, "{what}: never");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///r0?socket={}", self.socket.display())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the server's thread has not panicked");
        }
    }
}

fn exports() -> MemoryExports {
    let exports = MemoryExports::new();
    let plain = Geometry::any_range(SIZE);
    let small = Geometry::any_range(1 << 20);
    exports.add("r0", "the first", MemoryDevice::new(plain));
    exports.add("ro", "", MemoryDevice::new(Geometry { read_only: true, ..small }));
    exports.add("blocks", "", MemoryDevice::new(Geometry { minimum: 512, ..small }));
    exports.add("second", "", MemoryDevice::new(small));
    exports.set_refusal("second", Some(Refusal::policy("this node is Secondary")));
    exports
}

/// A stream of either kind.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A client that sends what it is told to.
pub struct Client<S: Stream = UnixStream>(pub S);

/// One chunk of a structured reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    pub flags: u16,
    pub kind: u16,
    pub cookie: u64,
    pub payload: Vec<u8>,
}

impl Client<UnixStream> {
    pub fn connect(host: &Host) -> Self {
        Self::over(UnixStream::connect(&host.socket).unwrap())
    }

    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }
}

impl Client<TcpStream> {
    pub fn connect_tcp(host: &Host) -> Self {
        let stream = TcpStream::connect(host.tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }
}

impl<S: Stream> Client<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn receive(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.receive(2).try_into().unwrap())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.receive(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.receive(8).try_into().unwrap())
    }

    /// Nothing more comes from the server.
    pub fn expect_end(&mut self) {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("the server still talks: {byte:?}"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads the greeting and sends the client flags.
    pub fn greet(&mut self, flags: u32) {
        assert_eq!(self.receive(18), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&flags.to_be_bytes());
    }

    pub fn option(&mut self, code: u32, payload: &[u8]) {
        self.send(&option_bytes(code, payload));
    }

    /// One option reply: its code and payload.
    pub fn option_reply(&mut self, option: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), OPTION_REPLY_MAGIC);
        assert_eq!(self.u32(), option);
        let (code, length) = (self.u32(), self.u32());
        (code, self.receive(length as usize))
    }

    /// Sends an option; the code of its last reply.
    pub fn ask(&mut self, code: u32, payload: &[u8]) -> u32 {
        self.option(code, payload);
        loop {
            let (reply, _) = self.option_reply(code);
            if reply == option_reply::ACK || reply >> 31 == 1 {
                return reply;
            }
        }
    }

    pub fn go(&mut self, name: &str) {
        assert_eq!(self.ask(option::GO, &go(name.as_bytes())), option_reply::ACK);
    }

    /// The whole handshake: simple replies only.
    pub fn simple(mut self, name: &str) -> Self {
        self.greet(3);
        self.go(name);
        self
    }

    /// The whole handshake: structured replies, and `base:allocation`.
    pub fn structured(mut self, name: &str) -> Self {
        self.greet(3);
        assert_eq!(self.ask(option::STRUCTURED_REPLY, b""), option_reply::ACK);
        let payload = meta(name.as_bytes(), &[b"base:allocation"]);
        assert_eq!(self.ask(option::SET_META_CONTEXT, &payload), option_reply::ACK);
        self.go(name);
        self
    }

    pub fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&request(flags, command, cookie, offset, length));
    }

    /// The header of a simple reply: the error. Its cookie must be `cookie`.
    pub fn simple_reply(&mut self, cookie: u64) -> u32 {
        assert_eq!(self.u32(), SIMPLE_REPLY_MAGIC);
        let error = self.u32();
        assert_eq!(self.u64(), cookie);
        error
    }

    pub fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), CHUNK_MAGIC);
        let (flags, kind, cookie, length) = (self.u16(), self.u16(), self.u64(), self.u32());
        Chunk { flags, kind, cookie, payload: self.receive(length as usize) }
    }

    /// Error of the chunk that ends the reply to `cookie`.
    pub fn chunk_error(&mut self, cookie: u64) -> u32 {
        let chunk = self.chunk();
        assert_eq!((chunk.flags, chunk.kind, chunk.cookie), (CHUNK_DONE, chunk::ERROR, cookie));
        let text = u16::from_be_bytes(chunk.payload[4..6].try_into().unwrap());
        assert_eq!(chunk.payload.len(), 6 + usize::from(text));
        u32::from_be_bytes(chunk.payload[..4].try_into().unwrap())
    }

    /// A write and its error.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> u32 {
        self.request(0, command::WRITE, 1, offset, data.len() as u32);
        self.send(data);
        self.simple_reply(1)
    }

    /// A successful read with simple replies.
    pub fn read(&mut self, offset: u64, length: u32) -> Vec<u8> {
        self.request(0, command::READ, 2, offset, length);
        assert_eq!(self.simple_reply(2), 0);
        self.receive(length as usize)
    }

    /// The connection still works.
    pub fn expect_alive(&mut self) {
        self.request(0, command::FLUSH, 3, 0, 0);
        assert_eq!(self.simple_reply(3), 0);
    }

    pub fn disconnect(mut self) {
        self.request(0, command::DISC, 0, 0, 0);
        self.expect_end();
    }
}

pub fn option_bytes(code: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    [b"IHAVEOPT", &code.to_be_bytes()[..], &length.to_be_bytes(), payload].concat()
}

/// Payload of GO and INFO that asks for nothing more.
pub fn go(name: &[u8]) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name, &[0, 0]].concat()
}

/// Payload of the metadata options.
pub fn meta(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [&(name.len() as u32).to_be_bytes()[..], name].concat();
    bytes.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        bytes.extend((query.len() as u32).to_be_bytes());
        bytes.extend(*query);
    }
    bytes
}

pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

//! Serves a device in RAM over NBD, for trying foreign clients and for measuring:
//! `serve_memory SIZE ADDRESS...`, an address being `127.0.0.1:10809` or the path of a Unix
//! socket. The export is called `memory`. Ends on Ctrl-C.

use nbd_server::memory::{MemoryDevice, MemoryExports};
use nbd_server::{Address, Geometry, Limits, Listener, Server};
use std::error::Error;
use tokio::task::{LocalSet, spawn_local};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let size = arguments.next().ok_or("usage: serve_memory SIZE ADDRESS...")?.parse()?;
    let exports = MemoryExports::new();
    exports.add("memory", "a device in RAM", MemoryDevice::new(Geometry::any_range(size)));
    let server = Server::new(exports, Limits::DEFAULT);
    let serve = async {
        for argument in arguments {
            let address = match argument.parse() {
                Ok(address) => Address::Tcp(address),
                Err(_) => Address::Unix(argument.into()),
            };
            let listener = Listener::bind(&address).await?;
            println!("listening on {}", listener.address()?);
            let server = server.clone();
            spawn_local(async move { server.listen(listener).await });
        }
        tokio::signal::ctrl_c().await?;
        server.shut_down("the server was interrupted").await;
        Ok(())
    };
    LocalSet::new().run_until(serve).await
}

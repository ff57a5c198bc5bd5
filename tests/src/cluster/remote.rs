//! A stand-in for ssh between simulated hosts: a command of one host that another runs. It knows no users and no secrets: a host's
//! addresses are in its own network namespace.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs what it is told, one line of words each, and answers with what it said and the exit code.
///
/// # Errors
/// If the address cannot be had.
pub fn obey(address: &str) -> std::io::Result<()> {
    for stream in TcpListener::bind(address)?.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            // Who asks may be gone.
            let _ = run(stream);
        });
    }
    Ok(())
}

fn run(mut stream: TcpStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let output = Command::new("sh").args(["-c", line.trim()]).stdin(Stdio::null()).output()?;
    stream.write_all(&output.stdout)?;
    stream.write_all(&output.stderr)?;
    let code = output.status.code().unwrap_or(255);
    stream.write_all(format!("\nexit {code}\n").as_bytes())
}

/// Has a host run a command: its exit code.
///
/// # Errors
/// If it cannot be reached.
pub fn ask(address: &str, command: &[&str]) -> std::io::Result<u8> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.write_all(format!("{}\n", command.join(" ")).as_bytes())?;
    let mut code = None;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        code = line.strip_prefix("exit ").and_then(|code| code.parse().ok());
        if code.is_none() && !line.is_empty() {
            println!("{line}");
        }
    }
    code.ok_or_else(|| std::io::Error::other("it did not say how that ended"))
}

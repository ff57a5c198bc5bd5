//! Runs one target on files: `cargo run -p fuzz --example one -- NAME FILE..`, with the backtrace of what fails.

fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let target = fuzz::TARGETS.iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| std::io::Error::other("no such target"))?;
    for file in words {
        println!("{file}");
        (target.run)(&std::fs::read(file)?);
    }
    Ok(())
}

//! Writes the first inputs of each corpus again: `cargo run -p fuzz --example seeds`. What was found beside them stays.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in (target.seeds)() {
            std::fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}

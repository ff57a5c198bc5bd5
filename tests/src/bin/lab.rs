//! What the tests run inside of simulated hosts: see `tests::cluster`. Not part of the product.

use std::process::ExitCode;
use tests::cluster::{power, records, remote};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["records", address, file] => records::serve(address, file),
        ["write", address] => records::write(address),
        ["power", verb, name] => match power::ask(verb, name) {
            Ok(answer) => {
                println!("{answer}");
                // Exit code 0: it is so. "status" tells by the word.
                return ExitCode::from(u8::from(verb == "off" && answer != "off"));
            }
            Err(error) => Err(error),
        },
        ["obey", address] => remote::obey(address),
        ["ask", address, ref command @ ..] => match remote::ask(address, command) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => {
                eprintln!("lab: {address}: {error}");
                // As ssh says that it could not.
                return ExitCode::from(255);
            }
        },
        _ => Err(std::io::Error::other(
            "records ADDRESS FILE | write ADDRESS | power VERB NAME | obey ADDRESS | ask ADDRESS COMMAND",
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

//! `wait-connect`, `wait-sync`: 0 when it is reached, also when an operator must act first (said on
//! stderr), 5 when the time is over.

use super::target::Target;
use super::{Failure, Place, code};
use crate::client::Client;

#[derive(clap::Args)]
pub(super) struct Options {
    #[arg(value_name = "RESOURCE | all")]
    target: Target,
    /// Seconds to wait at most; 0: for ever.
    #[arg(long, short, default_value_t = 0.0, value_parser = seconds)]
    timeout: f64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    match seconds.is_finite() && seconds >= 0.0 {
        true => Ok(seconds),
        false => Err("a wait is 0 seconds or longer".to_owned()),
    }
}

pub(super) async fn wait(place: &Place, options: Options, what: &str) -> Result<(), Failure> {
    let configuration = place.load()?;
    for resource in options.target.whole()?.resources(&configuration)? {
        let name = &resource.name;
        let client = Client::new(&place.run_dir(), name);
        match client.wait(what, options.timeout).await?.as_str() {
            "timed-out" => {
                let seconds = options.timeout;
                let text =
                    format!("{name}: not in {seconds} s; next: polluxadm status {name} says why");
                return Err(Failure::new(code::TIMED_OUT, text));
            }
            "stand-alone" => {
                eprintln!(
                    "{name}: a connection stands alone, which no wait changes; next: polluxadm \
                     status {name} says why"
                );
            }
            _ => {}
        }
    }
    Ok(())
}

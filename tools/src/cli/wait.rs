//! `wait-connect`, `wait-sync`: 0 when it is reached, also when an operator must act first (said on
//! stderr), 5 when the time is over.

use super::target::Subject;
use super::{Place, Whole};
use crate::failure::{Failure, Result, code};
use replicator::daemon::control::Ended;

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    on: Whole,
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

pub(super) async fn wait(place: &Place, options: &Options, what: &str) -> Result {
    place.each(&options.on.target, async |it| wait_one(it, options.timeout, what).await).await
}

pub(crate) async fn wait_one(it: &Subject, seconds: f64, what: &str) -> Result {
    let name = &it.resource.name;
    let why = format!("next: polluxadm status {name} says why");
    match it.client.wait(what, seconds).await? {
        Ended::TimedOut => {
            let text = format!("{name}: not in {seconds} s; {why}");
            return Err(Failure::new(code::TIMED_OUT, text));
        }
        Ended::StandAlone => {
            eprintln!("{name}: a connection stands alone, which no wait changes; {why}");
        }
        Ended::Reached => {}
    }
    Ok(())
}

//! The client: fio's NBD engine, over TCP. It turns fsync into NBD_CMD_FLUSH.

use crate::Error;
use crate::process::run;
use crate::workload::{Place, Workload};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// How long filling a device may take, in seconds.
const FILL_SECONDS: u64 = 300;
/// What fio may need beside its run time, in seconds.
const EXTRA_SECONDS: u64 = 30;

/// What one run of the client brought.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    /// Requests per second, of all connections; a flush is not counted as one.
    pub iops: f64,
    /// Millions of bytes per second.
    pub megabytes: f64,
    /// Median latency in microseconds; with flushes, that of the write plus that of the flush.
    pub p50: f64,
    /// 99th percentile in microseconds; with flushes, the sum of both percentiles.
    pub p99: f64,
    /// Requests in all.
    pub requests: u64,
}

/// Writes this part of the device once, and flushes: no contender may profit from holes.
pub(crate) fn fill(uri: &str, place: Place) -> Result<(), Error> {
    let work = Workload {
        name: "fill",
        pattern: "write",
        block: 1 << 20,
        jobs: 1,
        depth: 8,
        flush: false,
        place,
    };
    let mut more = vec!["--end_fsync=1".to_owned()];
    if let Place::Zones { zone, count, .. } = place {
        // fio would go round until it had written as much as the device has.
        more.push(format!("--io_size={}", zone * count));
    }
    let options = arguments("nbd", &[format!("--uri={uri}")], &work, &more);
    run(FILL_SECONDS, Path::new("fio"), &options)?;
    Ok(())
}

/// Writes so many blocks of 4 KiB, no two at the same place, somewhere in the first `size` bytes.
pub(crate) fn write_blocks(uri: &str, size: u64, count: u32) -> Result<(), Error> {
    let words = ["--name=blocks", "--ioengine=nbd", "--rw=randwrite", "--bs=4k", "--iodepth=32"];
    let mut words: Vec<_> = words.map(str::to_owned).into();
    words.extend(["--randrepeat=0".into(), format!("--uri={uri}")]);
    words.extend([format!("--size={size}"), format!("--number_ios={count}")]);
    run(FILL_SECONDS, Path::new("fio"), &words)?;
    Ok(())
}

/// Runs one piece of work for so many seconds, on each of these devices at the same time. With `below`, fio is run by
/// that command: words that come before it.
pub(crate) fn measure(
    uris: &[&str],
    work: &Workload,
    seconds: u64,
    below: &[String],
) -> Result<Measured, Error> {
    let devices: Vec<_> = uris.iter().map(|uri| format!("--uri={uri}")).collect();
    let fio = ["fio".to_owned()];
    let words = [below, &fio, &timed("nbd", &devices, work, seconds)].concat();
    let output = run(seconds + EXTRA_SECONDS, Path::new(&words[0]), &words[1..])?;
    read(&String::from_utf8_lossy(&output.stdout), work)
}

/// Arguments for one piece of work of so many seconds, with an engine that knows devices by such an option.
pub(crate) fn timed(
    engine: &str,
    devices: &[String],
    work: &Workload,
    seconds: u64,
) -> Vec<String> {
    let mut more = vec!["--time_based".into(), format!("--runtime={seconds}")];
    if work.flush {
        more.push("--fsync=1".into());
    }
    arguments(engine, devices, work, &more)
}

/// First what holds for all jobs, then the jobs, one for each device.
fn arguments(engine: &str, devices: &[String], work: &Workload, more: &[String]) -> Vec<String> {
    let mut arguments = vec![
        "--name=global".into(),
        format!("--ioengine={engine}"),
        format!("--rw={}", work.pattern),
        format!("--bs={}", work.block),
        format!("--numjobs={}", work.jobs),
        format!("--iodepth={}", work.depth),
        "--norandommap".into(),
        "--randrepeat=0".into(),
        // From submission to completion. fio's clat begins when the request was sent, which at depth 1 can be after the
        // reply is there.
        "--lat_percentiles=1".into(),
        "--clat_percentiles=0".into(),
        // One report for all jobs: rates added, percentiles over all requests.
        "--group_reporting".into(),
        "--output-format=json".into(),
    ];
    match work.place {
        Place::Whole => {}
        Place::First(bytes) => arguments.push(format!("--size={bytes}")),
        Place::Zones { zone, every, .. } => {
            arguments.push("--zonemode=strided".into());
            arguments.extend([format!("--zonesize={zone}"), format!("--zonerange={zone}")]);
            arguments.push(format!("--zoneskip={}", every - zone));
        }
    }
    arguments.extend_from_slice(more);
    for (job, device) in devices.iter().enumerate() {
        arguments.extend([format!("--name=client{job}"), device.clone()]);
    }
    arguments
}

/// fio's report.
pub(crate) fn read(report: &str, work: &Workload) -> Result<Measured, Error> {
    let nonsense = || Error::Nonsense { what: "fio", said: report.chars().take(500).collect() };
    figures(report, work.flush).ok_or_else(nonsense)
}

/// None if it is not a report, or tells of an error. fio may print warnings before it.
fn figures(report: &str, flush: bool) -> Option<Measured> {
    let report: Value = serde_json::from_str(&report[report.find('{')?..]).ok()?;
    let job = report["jobs"].get(0)?;
    if job["error"].as_i64()? != 0 {
        return None;
    }
    let reads = job["read"]["total_ios"].as_u64()? > 0;
    let side = if reads { &job["read"] } else { &job["write"] };
    let microseconds =
        |latency: &Value, percentile| Some(latency["percentile"][percentile].as_f64()? / 1000.0);
    let latency = |percentile| {
        let own = microseconds(&side["lat_ns"], percentile)?;
        let sync = if flush { microseconds(&job["sync"]["lat_ns"], percentile)? } else { 0.0 };
        Some(own + sync)
    };
    Some(Measured {
        iops: side["iops"].as_f64()?,
        megabytes: side["bw_bytes"].as_f64()? / 1e6,
        p50: latency("50.000000")?,
        p99: latency("99.000000")?,
        requests: side["total_ios"].as_u64().filter(|&n| n > 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"fio: a warning
{ "jobs": [ { "error": 0,
  "read": { "total_ios": 0 },
  "write": { "total_ios": 2000, "iops": 1000.5, "bw_bytes": 4098048,
    "lat_ns": { "percentile": { "50.000000": 10000, "99.000000": 50000 } } },
  "sync": { "lat_ns": { "percentile": { "50.000000": 30000, "99.000000": 70000 } } } } ] }"#;

    #[test]
    fn a_report_is_read_and_a_flush_adds_its_latency() {
        let plain = figures(REPORT, false).unwrap();
        assert_eq!((plain.requests, plain.p50, plain.p99), (2000, 10.0, 50.0));
        assert_eq!((plain.iops, plain.megabytes), (1000.5, 4.098048));
        let flushed = figures(REPORT, true).unwrap();
        assert_eq!((flushed.p50, flushed.p99), (40.0, 120.0));
    }

    #[test]
    fn an_error_or_an_empty_run_is_no_measurement() {
        assert!(figures(&REPORT.replace("\"error\": 0", "\"error\": 5"), false).is_none());
        assert!(figures(&REPORT.replace("2000", "0"), false).is_none());
        assert!(figures("fio: cannot connect", false).is_none());
    }
}

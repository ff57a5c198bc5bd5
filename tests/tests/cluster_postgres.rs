//! The cookbook's PostgreSQL: pgbench keeps a ledger of what was committed through the loss of the active host, and every committed
//! transaction is there afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tests::cluster::stack::ADDRESS;
use tests::cluster::{Host, NEEDS, Stack};
use tests::cookbook::Recipe;
use tests::real::{Need, lacks, seconds};

/// One transaction: some work of the kind pgbench knows, and a line in the ledger. `n` counts within one run and client.
const TRANSACTION: &str = r"\set n :n + 1
\set aid random(1, 100000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
INSERT INTO ledger (run, client, n) VALUES (:run, :client_id, :n);
END;
";

/// pgbench, again and again: a run ends when its connections break. It logs a transaction when its END was answered (client, number,
/// microseconds, script, seconds since 1970, microseconds), a failed one not.
const CLIENT: &str = r#"
run=0
while :; do
  run=$((run + 1))
  /usr/lib/postgresql/15/bin/pgbench -n -c 4 -j 2 -T 600 -D run=$run -D n=0 -f /mnt/lab/transaction.sql \
    -l --log-prefix=/mnt/lab/ledger/run.$run "$1"
  sleep 0.1
done
"#;

/// A transaction: run, client, number in that.
type Key = (u64, u64, u64);

/// What clients know to be committed, and when they knew. Whole lines only: the last may be half written.
fn acknowledged(stack: &Stack) -> Vec<(Key, SystemTime)> {
    let directory = stack.client.path("/mnt/lab/ledger");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let name = entry.file_name().into_string().expect("a simple name");
        // run.RUN.PID[.THREAD]
        let run = name.split('.').nth(1).and_then(|run| run.parse().ok()).expect("a run");
        let text = std::fs::read_to_string(entry.path()).expect("it can be read");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            let words: Vec<_> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
            let (Some(client), Some(count), Some(_), Some(second), Some(micro)) =
                (number(0), number(1), number(2), number(4), number(5))
            else {
                continue;
            };
            let at = UNIX_EPOCH + Duration::from_secs(second) + Duration::from_micros(micro);
            all.push(((run, client, count), at));
        }
    }
    all.sort_by_key(|(_, at)| *at);
    all
}

/// Runs a statement on the host that has the database.
fn sql(host: &Host, statement: &str) -> String {
    let line = format!("su postgres -c \"psql -p 5433 -d app -qAtc '{statement}'\"");
    let answer = host.shell(&line);
    assert!(answer.is_ok(), "{statement}: {}", answer.said);
    answer.out
}

fn wait_for_commits(stack: &Stack, count: usize) {
    let since = SystemTime::now();
    stack.client.wait("commits", seconds(90), || {
        acknowledged(stack).iter().filter(|(_, at)| *at > since).count() > count
    });
}

/// Every transaction that a client knows to be committed is in the table. How many.
fn assert_all_there(stack: &Stack, host: &Host) -> usize {
    // First what is acknowledged: meanwhile there may only be more in the table.
    let acknowledged = acknowledged(stack);
    let table = sql(host, "SELECT run, client, n FROM ledger");
    let there: BTreeSet<Key> = table
        .lines()
        .map(|line| {
            let mut numbers = line.split('|').map(|number| number.parse().expect("a number"));
            [(); 3].map(|()| numbers.next().expect("three")).into()
        })
        .collect();
    let missing: Vec<_> = acknowledged.iter().filter(|(key, _)| !there.contains(key)).collect();
    assert!(missing.is_empty(), "committed, and lost: {missing:?}");
    acknowledged.len()
}

/// The longest time without a commit since then.
fn longest_silence(stack: &Stack, since: SystemTime) -> Duration {
    let all = acknowledged(stack);
    let first = all.iter().rposition(|(_, at)| *at < since).unwrap_or(0);
    let gaps = all[first..].windows(2).filter_map(|pair| pair[1].1.duration_since(pair[0].1).ok());
    gaps.max().unwrap_or_default()
}

#[test]
fn no_committed_transaction_is_lost_with_the_active_host() {
    let more = [
        Need::File("/usr/lib/postgresql/15/bin/pgbench"),
        Need::File("/usr/lib/postgresql/15/bin/pg_amcheck"),
        Need::Program("pg_createcluster"),
        Need::File("/usr/libexec/heartbeat/heartbeat"),
    ];
    if lacks(&[NEEDS, &more].concat()) {
        return;
    }
    let stack = Stack::new("pg", 512);
    let (alpha, beta, client) = (&stack.alpha, &stack.beta, &stack.client);
    let page = Recipe::read("postgresql").with("/dev/vg/pg", "/mnt/disk/pg");
    page.play(&stack.nodes());
    // "Copy it to beta".
    let copy = "mkdir -p /etc/postgresql/15 && rm -rf /etc/postgresql/15/ha";
    beta.must(&["sh", "-euc", copy]);
    alpha.must(&["cp", "-a", "/etc/postgresql/15/ha", "/mnt/lab/ha"]);
    beta.must(&["cp", "-a", "/mnt/lab/ha", "/etc/postgresql/15/ha"]);
    page.later("alpha-then", alpha);
    stack.wait_until_in_sync();
    stack.start_heartbeat(&stack.nodes());
    stack.wait_for_service(alpha, seconds(60));

    sql(alpha, "CREATE TABLE ledger (run int, client int, n int)");
    sql(alpha, "GRANT ALL ON ledger TO app");
    let url = format!(
        "postgresql://app:secret@{ADDRESS}:5433/app?keepalives_idle=2&keepalives_interval=1&keepalives_count=3&\
         tcp_user_timeout=3000&connect_timeout=2"
    );
    client.must(&["/usr/lib/postgresql/15/bin/pgbench", "-i", "-q", "-s", "1", &url]);
    client.put("/mnt/lab/transaction.sql", 0o644, TRANSACTION);
    client.must(&["mkdir", "-p", "/mnt/lab/ledger"]);
    client.spawn("pgbench", &["stdbuf", "-oL", "sh", "-c", CLIENT, "sh", &url]);
    wait_for_commits(&stack, 200);

    let failed = SystemTime::now();
    let took = stack.fail_over(alpha, beta);
    wait_for_commits(&stack, 200);
    println!(
        "power off: the address was back after {took:?}, no commit for {:?}",
        longest_silence(&stack, failed)
    );
    let count = assert_all_there(&stack, beta);

    stack.rejoin(alpha);
    wait_for_commits(&stack, 50);
    let all = assert_all_there(&stack, beta);
    println!(
        "{all} transactions were committed, {count} of them before the lost host was back; none is missing"
    );
    let before = acknowledged(&stack).iter().filter(|(_, at)| *at < failed).count();
    assert!(before > 200 && all > before + 200, "{before} of {all} before the loss");
    page.later("check", beta);
    assert_eq!(sql(beta, "SHOW data_checksums").trim(), "on");
    assert_eq!(sql(beta, "SELECT sum(checksum_failures) FROM pg_stat_database").trim(), "0");
    page.assert_all_played(&stack.nodes());
}

//! The cookbook's NFS server: a client writes numbered, synced records through the loss of the active host, and finds all of them.

use std::time::SystemTime;
use tests::cluster::records::Writer;
use tests::cluster::stack::ADDRESS;
use tests::cluster::{NEEDS, Stack};
use tests::cookbook::Recipe;
use tests::real::{Need, lacks, seconds};

/// The client, in a host: whatever it dies of, it goes on behind the last number that was acknowledged.
const CLIENT: &str = r#"
log=$1 url=$2
while :; do
  next=$(awk 'END { print (NR ? $1 + 1 : 0) }' "$log")
  python3 /mnt/lab/nfs_writer.py "$url" /records "$next" | tee -a "$log"
  sleep 0.05
done
"#;

#[test]
fn nfs_clients_lose_nothing_when_the_server_loses_its_power() {
    let more = [
        Need::Program("ganesha.nfsd"),
        Need::Program("rpcbind"),
        Need::Program("nfs-ls"),
        Need::Program("python3"),
        Need::File("/usr/libexec/heartbeat/heartbeat"),
        Need::File("/usr/lib/x86_64-linux-gnu/libnfs.so.13"),
    ];
    if lacks(&[NEEDS, &more].concat()) {
        return;
    }
    let stack = Stack::new("nfs", 128);
    let (alpha, beta, client) = (&stack.alpha, &stack.beta, &stack.client);
    let page = Recipe::read("nfs").with("/dev/vg/nfs", "/mnt/disk/nfs");
    stack.set_up(&page);
    let boot = |host| {
        page.later("boot", host);
        stack.start_heartbeat(&[host]);
    };
    stack.nodes().into_iter().for_each(boot);
    println!(
        "from the start of Heartbeat to the service: {:?}",
        stack.wait_for_service(alpha, seconds(60))
    );

    client.put("/mnt/lab/nfs_writer.py", 0o644, include_str!("../src/cluster/nfs_writer.py"));
    let url = format!("nfs://{ADDRESS}/export?version=3");
    let log = "/mnt/lab/acknowledged";
    client.put(log, 0o644, "");
    client.spawn("writer", &["sh", "-c", CLIENT, "sh", log, &url]);
    let writer = Writer::of(client);
    writer.wait_for_more(100, seconds(30));

    let failed = SystemTime::now();
    let took = stack.fail_over(alpha, beta);
    writer.wait_for_more(100, seconds(60));
    println!(
        "power off: the address was back after {took:?}, the client was without service for {:?}",
        writer.longest_silence(failed)
    );
    let records = "/srv/nfs/export/records";
    let count = writer.assert_all_in(&beta.text(records));

    // Made good again, and back.
    stack.rejoin(alpha);
    boot(alpha);
    assert!(page.later("look", beta).out.contains("UpToDate"));
    alpha.wait("Heartbeat of alpha", seconds(60), || {
        beta.run(&["cl_status", "nodestatus", "alpha"]).out.contains("active")
            && alpha.run(&["cl_status", "nodestatus", "beta"]).out.contains("active")
    });
    let moved = SystemTime::now();
    page.later("standby", beta);
    stack.wait_for_service(alpha, seconds(60));
    writer.wait_for_more(100, seconds(60));
    println!(
        "moved by hand: the client was without service for {:?}",
        writer.longest_silence(moved)
    );
    let all = writer.assert_all_in(&alpha.text(records));
    println!("{all} records acknowledged, {count} of them before the move; none is missing");
    assert!(all > count && count > 200);
    page.assert_all_played(&stack.nodes());
}

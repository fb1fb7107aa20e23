//! How tasks end that do not end by themselves, and that all of them ends

use crate::cluster::{Cluster, Contained};
use crate::process::{is_alive, processes_of, until};

/// Shows that a task which uses more memory than it asked for is ended, and that limit and peak are said.
#[test]
fn out_of_memory() {
    let Some(cluster) = Cluster::contained(Contained::Cgroups) else { return };
    let report = cluster.text_path("report");
    let ran = cluster.launch(&["-R", "cpus=1,mem=32M", "--report", &report, "--", "sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"]).expect(137);
    assert!(ran.err.contains("ran out of memory: used ") && ran.err.contains(" of 32M"), "{}", ran.err);
    let line: serde_json::Value = serde_json::from_str(&cluster.lines_of("report")[0]).expect("it is JSON");
    assert_eq!((line["reason"].as_str(), line["code"].as_u64()), (Some("memory_limit"), Some(137)));
    assert!(line["mem_peak_bytes"].as_u64().is_some_and(|bytes| bytes > 24 << 20 && bytes <= 33 << 20), "{line}");
    // Enough of it is no trouble.
    cluster.launch(&["-R", "cpus=1,mem=600M", "--", "sh", "-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' x); [ ${#x} = 20000000 ]"]).expect_silent(0);
}

/// Shows that nothing a task started outlives it, not even a daemon that left its session twice, however it ends.
#[test]
fn descendants_end_too() {
    for contained in [Contained::Cgroups, Contained::Processes, Contained::Nobody] {
        let Some(cluster) = Cluster::contained(contained) else { continue };
        let daemon = |name: &str| {
            let path = cluster.text_path(name);
            format!("setsid sh -c 'setsid sh -c \"trap : TERM HUP INT; echo \\$\\$ >{path}; while :; do sleep 1000; done\" & ' </dev/null >/dev/null 2>&1 & until [ -s {path} ]; do sleep 0.02; done")
        };
        let pid = |name: &str| cluster.lines_of(name)[0].parse::<u32>().expect("it is a number");
        cluster.launch(&["-c", &format!("{}; exit 5", daemon("after"))]).expect_silent(5);
        assert!(!is_alive(pid("after")), "it outlived a task that ended, {contained:?}");
        cluster.launch(&["-c", &format!("{}; kill -9 $$", daemon("killed"))]).expect_silent(137);
        assert!(!is_alive(pid("killed")), "it outlived a task that was killed, {contained:?}");
        cluster.launch(&["--timeout", "1s", "--kill-grace", "200ms", "-c", &format!("{}; sleep 1000", daemon("late"))]).expect(124);
        assert!(!is_alive(pid("late")), "it outlived a task whose time was over, {contained:?}");
        let id = cluster.launch(&["-d", "-c", &format!("{}; sleep 1000", daemon("asked"))]).expect_silent(0).text();
        until("it runs", || !cluster.lines_of("asked").is_empty());
        cluster.tool("meso-kill", &["--grace", "200ms", id.trim()]).expect(0);
        cluster.tool("meso-wait", &["-q", id.trim()]);
        assert!(!is_alive(pid("asked")), "it outlived a task that was ended, {contained:?}");
        until("no supervisor is left", || processes_of(&cluster.containers_dir(0)).is_empty());
        cluster.until_idle();
    }
}

/// Shows that a task whose time is over is ended, with 124 whatever it makes of it, and that one in time is not.
#[test]
fn timeout() {
    let cluster = Cluster::start();
    let ran = cluster.launch(&["--timeout", "300ms", "--", "sleep", "1000"]).expect(124);
    assert!(ran.err.contains("time limit"), "{}", ran.err);
    cluster.launch(&["--timeout", "300ms", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]).expect(124);
    cluster.launch(&["--timeout", "300ms", "--kill-grace", "200ms", "-c", "trap '' TERM; while :; do sleep 0.05; done"]).expect(124);
    cluster.launch(&["--timeout", "1h", "--", "sh", "-c", "exit 4"]).expect_silent(4);
    cluster.launch(&["-n", "3", "--timeout", "300ms", "--", "sleep", "1000"]).expect(124);
}

/// Shows that a task which finds no room by its deadline is given up with 75, and that nothing of it is left.
#[test]
fn start_deadline() {
    let cluster = Cluster::start();
    let ran = cluster.launch(&["--start-deadline", "300ms", "-R", "cpus=1000", "--", "true"]).expect(75);
    assert!(ran.err.starts_with("meso-launch: no offer fitted"), "{}", ran.err);
    cluster.launch(&["--start-deadline", "300ms", "--where", "attr.none == \"such\"", "--", "true"]).expect(75);
    cluster.launch(&["--start-deadline", "300ms", "--on", "nohost", "--", "true"]).expect(75);
    cluster.launch(&["--start-deadline", "60s", "--on", "host0", "--", "true"]).expect_silent(0);
    cluster.until_idle();
}

/// Shows that a directory, a limit of processors and a name are kept to, and that what cannot be entered is said.
#[test]
fn what_a_task_is_given() {
    let cluster = Cluster::start();
    assert_eq!(cluster.launch(&["-w", "/usr", "--", "pwd"]).expect_silent(0).text(), "/usr\n");
    let ran = cluster.launch(&["-w", "/nonexistent", "--", "pwd"]);
    assert!((125..=127).contains(&ran.code) && ran.err.contains("/nonexistent"), "{}: {}", ran.code, ran.err);
    cluster.launch(&["--cpus-limit", "2", "--name", "a-name", "--", "true"]).expect_silent(0);
    assert_eq!(cluster.launch(&["-c", "cat; ls -l /proc/self/fd | wc -l"]).expect_silent(0).lines().len(), 1);
}

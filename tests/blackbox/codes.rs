//! What becomes of a task is what meso-launch exits with

use crate::cluster::{Cluster, Contained};

/// Runs every kind of end in a cluster that contains tasks in one way.
fn every_end(contained: Contained) {
    let Some(cluster) = Cluster::contained(contained) else { return };
    for code in [0, 1, 3, 123, 124, 126, 127, 255] {
        let ran = cluster.launch(&["--", "sh", "-c", &format!("echo out; echo err >&2; exit {code}")]);
        assert_eq!((ran.code, ran.text().as_str(), ran.err.as_str()), (code, "out\n", "err\n"));
    }
    for signal in [1, 2, 9, 13, 15] {
        cluster.launch(&["--", "sh", "-c", &format!("kill -{signal} $$")]).expect_silent(128 + signal);
    }
    let ran = cluster.launch(&["--", "/nonexistent/command"]).expect(127);
    assert!(ran.err.starts_with("meso-launch: ") && ran.err.contains("/nonexistent/command"), "{}", ran.err);
    let ran = cluster.launch(&["--", "/etc/passwd"]).expect(126);
    assert!(ran.err.starts_with("meso-launch: ") && ran.err.contains("/etc/passwd"), "{}", ran.err);
    cluster.launch(&["--", "/etc"]).expect(126);
    cluster.launch(&["--", "no-such-command-anywhere"]).expect(127);
    cluster.launch(&["-c", "no-such-command-anywhere 2>/dev/null"]).expect_silent(127);
    assert_eq!(cluster.launch(&["-c", "echo $((6 * 7))"]).expect_silent(0).text(), "42\n");
    cluster.until_idle();
}

/// Shows that codes and signals come back unchanged from tasks in cgroups.
#[test]
fn every_end_in_cgroups() {
    every_end(Contained::Cgroups);
}

/// Shows that codes and signals come back unchanged from tasks in process groups.
#[test]
fn every_end_in_processes() {
    every_end(Contained::Processes);
}

/// Shows that codes and signals come back unchanged from an agent that may nothing.
#[test]
fn every_end_as_nobody() {
    every_end(Contained::Nobody);
}

/// Shows that of several tasks the highest code counts, and that the report names each.
#[test]
fn the_highest_code_of_many() {
    let cluster = Cluster::start();
    let report = cluster.text_path("report");
    cluster.launch(&["-n", "9", "--report", &report, "-c", "exit $((MESO_INDEX % 5))"]).expect(4);
    let mut codes: Vec<(u64, u64)> = cluster
        .lines_of("report")
        .iter()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
            (value["index"].as_u64().expect("it is a number"), value["code"].as_u64().expect("it is a number"))
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, (1..=9).map(|index| (index, index % 5)).collect::<Vec<_>>());
}

/// Shows that a task sees the contract's variables and nothing of the environment of whoever launches it.
#[test]
fn what_a_task_sees() {
    let cluster = Cluster::start();
    let mut command = cluster.command("meso-launch", &["-e", "GIVEN=a b", "-e", "TAKEN", "--name", "seer", "--ports", "2", "-R", "cpus=0.5,mem=64M", "--", "env"]);
    let ran = crate::process::Running::start(command.env("TAKEN", "from here").env("SECRET", "stays here")).finish().expect_silent(0);
    let text = ran.text();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_else(|| panic!("no {key} in {text}"));
    assert!(value("MESO_TASK_ID").starts_with("task_"));
    assert!(value("MESO_AGENT").starts_with("agent_"));
    assert_eq!([value("GIVEN"), value("TAKEN"), value("MESO_TASK_NAME"), value("MESO_HOST"), value("MESO_CPUS"), value("MESO_MEM")], ["a b", "from here", "seer", "host0", "0.5", "64"]);
    assert_eq!([value("MESO_INDEX"), value("MESO_COUNT"), value("MESO_ATTEMPT")], ["1", "1", "1"]);
    assert!(value("PORT0").parse::<u16>().is_ok() && value("PORT1").parse::<u16>().is_ok() && value("PORT0") != value("PORT1"));
    assert!(!text.contains("SECRET") && !text.contains("PORT2"), "{text}");
    let here = cluster.launch(&["-c", "pwd; echo $MESO_SANDBOX"]).expect_silent(0).lines();
    assert_eq!(here[0], here[1]);
}

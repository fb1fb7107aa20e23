//! Agents and supervisors that die

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Contained, Gate, Shape};
use crate::process::{Ran, is_alive, parent_of, signal, until};

/// The exit codes in a report, by index.
fn codes_of(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).expect("it is JSON");
    let lines = cluster.lines_of("report");
    let codes: BTreeMap<u64, u64> = lines.iter().map(value).map(|line| (line["index"].as_u64().expect("a number"), line["code"].as_u64().expect("a number"))).collect();
    assert_eq!(codes.len(), lines.len(), "each once");
    codes
}

/// An agent dies under a hundred tasks; half of them end while it is away.
fn killed_under_load(contained: Contained) {
    if !contained.is_possible() {
        return;
    }
    const TASKS: u64 = 100;
    let mut cluster = Cluster::with(Shape { contained, agents: vec!["cpus=10,mem=4G,disk=1G"], ..Shape::default() });
    let (mut odd, mut even) = (Gate::new(&cluster, "gate1"), Gate::new(&cluster, "gate0"));
    let (report, pids) = (cluster.text_path("report"), cluster.text_path("pids"));
    let door = odd.text().strip_suffix('1').expect("it ends so").to_owned();
    let command = format!("echo $$ $MESO_INDEX >>{pids}; echo out $MESO_INDEX; : <{door}$((MESO_INDEX % 2)); exit $((MESO_INDEX % 50))");
    let run = cluster.launching(&["-n", &TASKS.to_string(), "-R", "cpus=0.1,mem=16M", "--report", &report, "-c", &command]);
    until("all tasks run", || cluster.lines_of("pids").len() == TASKS as usize);
    let pid_of = |line: &String| line.split_once(' ').and_then(|(pid, index)| Some((pid.parse::<u32>().ok()?, index.parse::<u64>().ok()?))).expect("two numbers");
    let before: Vec<(u32, u64)> = cluster.lines_of("pids").iter().map(pid_of).collect();

    cluster.kill_agent(0);
    odd.open();
    until("the half of them ended", || before.iter().filter(|(_, index)| index % 2 == 1).all(|(pid, _)| !is_alive(*pid)));
    cluster.start_agent(0);
    until("it says what it found", || cluster.agent_log(0).contains("found 100 tasks of before"));
    assert!(before.iter().filter(|(_, index)| index % 2 == 0).all(|(pid, _)| is_alive(*pid)), "those that run were left alone");
    even.open();
    let Ran { code, out, err } = run.finish();
    assert_eq!(code, 49, "{err}");
    assert_eq!(codes_of(&cluster), (1..=TASKS).map(|index| (index, index % 50)).collect());
    let mut numbers: Vec<u64> = String::from_utf8_lossy(&out).lines().map(|line| line.strip_prefix("out ").and_then(|number| number.parse().ok()).expect("a whole line")).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=TASKS).collect::<Vec<_>>(), "all of the output");
    assert_eq!(cluster.lines_of("pids").len(), TASKS as usize, "none ran twice");
    cluster.until_idle();
}

/// Shows that an agent killed under a hundred tasks in cgroups finds them again and reports what ended meanwhile.
#[test]
fn killed_under_load_in_cgroups() {
    killed_under_load(Contained::Cgroups);
}

/// Shows the same of tasks in process groups, of an agent that may nothing.
#[test]
fn killed_under_load_as_nobody() {
    killed_under_load(Contained::Nobody);
}

/// Shows that a task whose output is followed lives through its agent's death, and that not a byte of it is lost or repeated.
#[test]
fn output_across_a_restart() {
    let mut cluster = Cluster::start();
    let mut gate = Gate::new(&cluster, "gate");
    let mut run = cluster.launching(&["-c", &format!("seq 1 50000; echo half; : <{}; seq 50001 100000; exit 6", gate.text())]);
    run.until_line("half");
    cluster.kill_agent(0);
    gate.open();
    cluster.start_agent(0);
    let lines = run.finish().expect(6).lines();
    let numbers: Vec<u32> = lines.iter().filter(|line| *line != "half").map(|line| line.parse().expect("a whole line")).collect();
    assert_eq!(numbers, (1..=100_000).collect::<Vec<_>>());
}

/// Shows that a task which prints all the time is heard whole and in order, though its agent is killed again and again.
#[test]
fn output_across_many_restarts() {
    const KILLS: usize = 5;
    let mut cluster = Cluster::start();
    let stop = cluster.text_path("stop");
    let run = cluster.launching(&["-c", &format!("i=0; until [ -e {stop} ]; do i=$((i + 1)); echo $i; echo err $i >&2; done; echo last; exit 4")]);
    until("something is heard", || !run.out().is_empty());
    for _ in 0..KILLS {
        cluster.kill_agent(0);
        cluster.start_agent(0);
        until("it found the task", || cluster.agent_log(0).contains("found 1 tasks of before: 1 run on"));
    }
    std::fs::write(&stop, "").expect("it is ours");
    let ran = run.finish().expect(4);
    let lines = ran.lines();
    let (last, numbers) = lines.split_last().expect("it printed");
    assert_eq!(*last, "last");
    assert!(numbers.iter().map(|line| line.parse::<usize>().expect("a whole line")).eq(1..=numbers.len()), "a line is missing or twice");
    let errors: Vec<&str> = ran.err.lines().filter_map(|line| line.strip_prefix("err ")).collect();
    assert!(errors.iter().map(|line| line.parse::<usize>().expect("a whole line")).eq(1..=numbers.len()), "a line is missing or twice");
}

/// Shows that an agent without descriptors left refuses what it cannot start, for a reason of its own, and lives to serve again.
#[test]
fn no_descriptors_left() {
    const TASKS: usize = 60;
    let mut cluster = Cluster::with(Shape { agents: vec!["cpus=16,mem=4G,disk=1G"], ..Shape::default() });
    let limit = |files: &str| {
        let pid = cluster.agent_pid(0).to_string();
        assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status().expect("util-linux is everywhere").success());
    };
    let mut gate = Gate::new(&cluster, "gate");
    let (report, witness) = (cluster.text_path("report"), cluster.text_path("witness"));
    limit("64");
    let command = format!("echo $MESO_INDEX >>{witness}; : <{}", gate.text());
    let run = cluster.launching(&["-n", &TASKS.to_string(), "-R", "cpus=0.1,mem=16M", "--retries-lost", "0", "--report", &report, "-c", &command]);
    until("some were refused, and what was not runs", || cluster.lines_of("report").len() + cluster.lines_of("witness").len() == TASKS);
    gate.open();
    let ran = run.finish();
    assert_eq!(ran.code, 125, "{}", ran.err);
    let codes = codes_of(&cluster);
    assert_eq!(codes.values().filter(|code| **code == 0).count(), cluster.lines_of("witness").len(), "what ran ended well: {codes:?}");
    assert!(codes.values().all(|code| *code == 0 || *code == 125), "{codes:?}");
    assert!(cluster.lines_of("report").iter().any(|line| line.contains("agent_exhausted")), "{:?}", cluster.lines_of("report").first());
    limit("4096");
    cluster.launch(&["-n", "20", "-R", "cpus=0.1,mem=16M", "--", "true"]).expect_silent(0);
    cluster.expect_all_alive();
}

/// Shows that a task of which an agent knows nothing any more, its log being gone, is ended, and that the agent serves under a new id.
#[test]
fn a_lost_log() {
    let mut cluster = Cluster::start();
    let pids = cluster.text_path("pids");
    let _run = cluster.launching(&["-c", &format!("echo $$ >>{pids}; exec sleep 1000")]);
    until("it runs", || cluster.lines_of("pids").len() == 1);
    let task: u32 = cluster.lines_of("pids")[0].parse().expect("a number");
    let id = cluster.tool("meso-ps", &["agents", "-q"]).text();
    cluster.kill_agent(0);
    std::fs::remove_file(cluster.work_dir(0).join("journal")).expect("it is ours");
    cluster.start_agent(0);
    until("it says so", || cluster.agent_log(0).contains("removed 1 containers that belonged to nobody"));
    assert!(!is_alive(task));
    let mut other = String::new();
    until("another one serves", || {
        let agents = cluster.tool("meso-ps", &["agents", "-q"]).text();
        other = agents.lines().find(|line| *line != id.trim()).unwrap_or_default().to_owned();
        !other.is_empty()
    });
    // The one of before is only silent so far, and what it had is still offered.
    cluster.launch(&["--on", &other, "--", "true"]).expect(0);
}

/// Shows that what ended tasks left is removed after its time, whatever they made of it, and nothing beside it.
#[test]
fn collected() {
    let cluster = Cluster::with(Shape { agent_args: vec!["--gc-delay", "2s"], ..Shape::default() });
    let outside = cluster.path("outside");
    std::fs::write(&outside, "kept").expect("it is ours");
    let hostile = format!("mkdir -p a/b/c .cleared1; ln -s {} a/link; ln -s / root; mkfifo fifo a/b/fifo; echo x >'a/ -rf'; chmod 000 a/b a; echo said", outside.display());
    let id = cluster.tool("meso-launch", &["-d", "-c", &hostile]).expect(0).text();
    let sandboxes = cluster.work_dir(0).join("sandboxes");
    let is_empty = || std::fs::read_dir(&sandboxes).expect("it is there").next().is_none();
    cluster.tool("meso-wait", &[id.trim()]).expect(0);
    assert_eq!(cluster.tool("meso-logs", &[id.trim()]).expect(0).text(), "said\n");
    assert!(!is_empty());
    until("it was removed", is_empty);
    until("its output too", || std::fs::read_dir(cluster.work_dir(0).join("containers")).expect("it is there").flatten().all(|entry| entry.file_name() == ".control"));
    assert_eq!(std::fs::read(&outside).expect("it is there"), b"kept");
    assert!(cluster.tool("meso-logs", &[id.trim()]).err.contains("no longer kept"));
}

/// Shows that a task whose supervisor is killed dies with it, and is tried again, for that is no fault of its own.
#[test]
fn a_killed_supervisor() {
    for contained in [Contained::Cgroups, Contained::Processes] {
        let Some(cluster) = Cluster::contained(contained) else { continue };
        let pids = cluster.text_path("pids");
        let command = format!("echo $$ >>{pids}; [ $MESO_ATTEMPT = 2 ] || exec sleep 1000; echo done");
        let run = cluster.launching(&["-c", &command]);
        until("it runs", || cluster.lines_of("pids").len() == 1);
        let task: u32 = cluster.lines_of("pids")[0].parse().expect("a number");
        assert!(signal(parent_of(task), "KILL"));
        until("the task is gone", || !is_alive(task));
        assert_eq!(run.finish().expect(0).text(), "done\n", "{contained:?}");
        assert_eq!(cluster.lines_of("pids").len(), 2);

        std::fs::remove_file(&pids).expect("it was written");
        let run = cluster.launching(&["--retries-lost", "0", "-c", &command]);
        until("it runs", || cluster.lines_of("pids").len() == 1);
        let task: u32 = cluster.lines_of("pids")[0].parse().expect("a number");
        assert!(signal(parent_of(task), "KILL"));
        let ran = run.finish().expect(125);
        assert!(ran.err.contains("is dropped: ") && ran.err.contains("supervisor"), "{}", ran.err);
        assert!(!is_alive(task));
        cluster.until_idle();
    }
}

/// Shows that an agent which is asked to end leaves its tasks running, or ends them if told so, and then leaves nothing behind.
#[test]
fn asked_to_end() {
    let mut cluster = Cluster::start();
    let mut gate = Gate::new(&cluster, "gate");
    let mut run = cluster.launching(&["-c", &format!("echo ready; : <{}; exit 13", gate.text())]);
    run.until_line("ready");
    cluster.stop_agent(0);
    gate.open();
    cluster.start_agent(0);
    run.finish().expect(13);

    let mut cluster = Cluster::with(Shape { agent_args: vec!["--kill-tasks-on-exit"], ..Shape::default() });
    let mut run = cluster.launching(&["--retries-lost", "0", "-c", "trap 'exit 14' TERM; echo ready; while :; do sleep 0.05; done"]);
    run.until_line("ready");
    cluster.stop_agent(0);
    run.finish().expect(14);
    assert_eq!(cluster.cgroups_left(), Vec::<std::path::PathBuf>::new());
}

/// Shows that tasks are placed on the other agent while one is away, and on both when it is back.
#[test]
fn one_of_two() {
    let mut cluster = Cluster::with(Shape {
        agents: vec!["cpus=2,mem=1G,disk=1G"; 2],
        master_args: vec!["--agent-beat", "300ms", "--agent-timeout", "2s"],
        ..Shape::default()
    });
    cluster.kill_agent(1);
    until("it counts as unreachable", || cluster.tool("meso-ps", &["agents", "--state", "unreachable", "-q"]).lines().len() == 1);
    let hosts = cluster.launch(&["-n", "10", "-c", "echo $MESO_HOST"]).expect(0).lines();
    assert_eq!(hosts, vec!["host0"; 10]);
    cluster.start_agent(1);
    cluster.until_agents(2);
    let on = cluster.launch(&["--on", "host1", "-c", "echo $MESO_HOST"]).expect(0);
    assert_eq!(on.text(), "host1\n");
}

/// Shows that a task on an agent that is away is waited for, and that its end is known when the agent is back.
#[test]
fn a_task_on_an_unreachable_agent() {
    let mut cluster = Cluster::with(Shape { master_args: vec!["--agent-beat", "300ms", "--agent-timeout", "2s"], ..Shape::default() });
    let mut gate = Gate::new(&cluster, "gate");
    let mut run = cluster.launching(&["-c", &format!("echo ready; : <{}; exit 8", gate.text())]);
    run.until_line("ready");
    cluster.kill_agent(0);
    until("the task counts as unreachable", || cluster.tool("meso-ps", &["--state", "unreachable", "-q"]).lines().len() == 1);
    assert!(!run.has_ended());
    gate.open();
    cluster.start_agent(0);
    let ran = run.finish().expect(8);
    assert!(ran.err.contains("waiting for it"), "{}", ran.err);
}

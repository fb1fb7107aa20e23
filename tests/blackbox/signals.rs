//! Signals to meso-launch go through to the task; and what becomes of a task whose meso-launch is gone

use std::fs;

use crate::cluster::{Cluster, Contained, Shape};
use crate::process::{is_alive, signal, until};

/// A shell that answers signals with exit codes, says that it is ready, and waits.
fn answering(traps: &str) -> String {
    // What a shell says of a child that the signal ended is not ours.
    format!("exec 2>/dev/null; {traps}; echo $$; echo ready; while :; do sleep 0.05; done")
}

/// Shows that each signal that is forwarded reaches the task, whose own code comes back, however it is contained.
#[test]
fn forwarded() {
    for contained in [Contained::Cgroups, Contained::Processes, Contained::Nobody] {
        let Some(cluster) = Cluster::contained(contained) else { continue };
        for (name, code) in [("INT", 42), ("TERM", 43), ("HUP", 44), ("QUIT", 45), ("USR1", 46), ("USR2", 47)] {
            let mut run = cluster.launching(&["-c", &answering(&format!("trap 'exit {code}' {name}"))]);
            run.until_line("ready");
            run.signal(name);
            let ran = run.finish();
            assert_eq!((ran.code, ran.err.as_str()), (code, ""), "{name}, {contained:?}");
        }
        // A task that does not handle it dies of it.
        let mut run = cluster.launching(&["-c", "echo ready; exec sleep 1000"]);
        run.until_line("ready");
        run.signal("INT");
        run.finish().expect_silent(130);
        cluster.until_idle();
    }
}

/// Shows that signals which are only messages leave the task running.
#[test]
fn messages_to_the_task() {
    let cluster = Cluster::start();
    let mut run = cluster.launching(&["-c", &answering("trap 'echo one' USR1; trap 'echo two' USR2; trap 'echo end; exit 0' TERM")]);
    run.until_line("ready");
    run.signal("USR1");
    run.until_line("one");
    run.signal("USR2");
    run.until_line("two");
    run.signal("TERM");
    assert!(run.finish().expect_silent(0).text().ends_with("one\ntwo\nend\n"));
}

/// Shows that a second Ctrl-C asks the task to end, and that one that does not is killed after the grace.
#[test]
fn a_second_interrupt() {
    let cluster = Cluster::start();
    let mut run = cluster.launching(&["-c", &answering("trap 'echo int' INT; trap 'exit 43' TERM")]);
    run.until_line("ready");
    run.signal("INT");
    run.until_line("int");
    run.signal("INT");
    run.finish().expect_silent(43);

    let mut run = cluster.launching(&["--kill-grace", "500ms", "-c", &answering("trap 'echo int' INT; trap '' TERM")]);
    run.until_line("ready");
    run.signal("INT");
    run.until_line("int");
    run.signal("INT");
    run.finish().expect_silent(137);
    cluster.until_idle();
}

/// Shows that a task which ignores TERM is killed when the grace is over.
#[test]
fn a_task_that_ignores_term() {
    for contained in [Contained::Cgroups, Contained::Processes] {
        let Some(cluster) = Cluster::contained(contained) else { continue };
        let mut run = cluster.launching(&["--kill-grace", "500ms", "-c", &answering("trap '' TERM INT HUP")]);
        run.until_line("ready");
        run.signal("TERM");
        run.finish().expect_silent(137);
    }
}

/// Shows that an interrupt while it waits for an offer ends it at once, with nothing left at the master.
#[test]
fn before_any_offer() {
    let cluster = Cluster::start();
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let run = cluster.launching(&["-R", "cpus=1000", "--", "true"]);
        until("it is registered", || !cluster.tool("meso-ps", &["frameworks", "-q"]).out.is_empty());
        run.signal(name);
        run.finish().expect_silent(code);
        until("the framework is gone", || cluster.tool("meso-ps", &["frameworks", "-q"]).out.is_empty());
    }
    assert!(cluster.tool("meso-ps", &["-a", "-q"]).out.is_empty(), "no task was made");
}

/// Shows that an interrupt ends many tasks, those that run and those that wait.
#[test]
fn many_at_once() {
    let cluster = Cluster::start();
    let witness = cluster.text_path("witness");
    let run = cluster.launching(&["-n", "50", "-R", "cpus=1,mem=16M", "-c", &format!("echo $$ >>{witness}; exec sleep 1000")]);
    until("as many run as there is room for", || cluster.lines_of("witness").len() == 8);
    run.signal("INT");
    run.finish().expect(130);
    assert_eq!(cluster.lines_of("witness").len(), 8, "no more were started");
    cluster.until_idle();
}

/// A cluster that notices soon that a session is gone.
fn quick() -> Cluster {
    Cluster::with(Shape { master_args: vec!["--session-timeout", "3s"], ..Shape::default() })
}

/// Shows that a task dies with its meso-launch, also with one that is killed, unless it is to be kept.
#[test]
fn a_lost_launcher() {
    let cluster = quick();
    let alive = |name: &str| format!("echo $$ >{}; exec sleep 1000", cluster.text_path(name));
    let pid = |name: &str| fs::read_to_string(cluster.path(name)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let killed = cluster.launching(&["-c", &alive("killed")]);
    let kept = cluster.launching(&["--on-disconnect", "keep", "-c", &alive("kept")]);
    let detached = cluster.launch(&["-d", "-c", &alive("detached")]).expect_silent(0);
    until("all run", || ["killed", "kept", "detached"].iter().all(|name| pid(name).is_some()));
    killed.signal("KILL");
    kept.signal("KILL");
    killed.finish();
    kept.finish();
    let killed = pid("killed").expect("it was just there");
    until("the task is gone", || !is_alive(killed));
    // The others were lost before or at the same time: they would be gone too.
    until("the lost session is over", || !cluster.tool("meso-ps", &["-q", "--state", "killed"]).out.is_empty());
    for name in ["kept", "detached"] {
        assert!(is_alive(pid(name).expect("it was just there")), "{name}");
    }
    assert_eq!(cluster.tool("meso-ps", &["-q", "--state", "running"]).lines().len(), 2);
    let id = detached.text().trim().to_owned();
    cluster.tool("meso-kill", &[&id]).expect(0);
    cluster.tool("meso-wait", &[&id]).expect_silent(143);
}

/// Shows that a terminal which goes away ends the task, or leaves it to itself if it is to be kept.
#[test]
fn a_hang_up() {
    let cluster = Cluster::start();
    let pid = |name: &str| fs::read_to_string(cluster.path(name)).ok().and_then(|text| text.trim().parse::<u32>().ok());
    for (what, name) in [("kill", "ended"), ("keep", "kept")] {
        let run = cluster.launching(&["--on-disconnect", what, "-c", &format!("echo $$ >{}; exec sleep 1000", cluster.text_path(name))]);
        until("it runs", || pid(name).is_some());
        run.signal("HUP");
        run.finish().expect_silent(129);
    }
    assert!(!is_alive(pid("ended").expect("it was there")));
    assert!(is_alive(pid("kept").expect("it was there")));
    assert_eq!(cluster.tool("meso-ps", &["-q"]).lines().len(), 1);
}

/// Shows that a stopped meso-launch which is continued goes on as if nothing had been, while its session lives.
#[test]
fn a_stopped_launcher() {
    let cluster = Cluster::start();
    let mut run = cluster.launching(&["-c", "echo one; sleep 0.5; echo two; exit 9"]);
    run.until_line("one");
    run.signal("STOP");
    until("the task has ended", || !cluster.tool("meso-ps", &["-q", "--state", "failed"]).out.is_empty());
    run.signal("CONT");
    assert_eq!(run.finish().expect_silent(9).text(), "one\ntwo\n");
}

/// Shows that a detached task's id is printed, its code waited for, its output read while it runs and when it has ended.
#[test]
fn detached() {
    let cluster = Cluster::start();
    let mut gate = crate::cluster::Gate::new(&cluster, "gate");
    let id = cluster.launch(&["-d", "--name", "job", "-c", &format!("echo first; : <{}; echo second; echo third >&2; exit 7", gate.text())]).expect_silent(0).text();
    let id = id.strip_suffix('\n').expect("one line");
    assert!(id.starts_with("task_") && !id.contains('\n'), "{id}");
    until("it runs", || cluster.tool("meso-logs", &[id]).text() == "first\n");
    cluster.tool("meso-wait", &["--timeout", "200ms", id]).expect(124);
    gate.open();
    let logs = cluster.tool("meso-logs", &["-f", "job"]).expect(0);
    assert_eq!((logs.text().as_str(), logs.err.as_str()), ("first\nsecond\n", "third\n"));
    cluster.tool("meso-wait", &[id]).expect_silent(7);
    cluster.tool("meso-wait", &["@last"]).expect_silent(7);
    assert_eq!(cluster.tool("meso-logs", &["--stdout", id]).expect(0).text(), "first\nsecond\n");
    assert!(!signal(999_999_999, "TERM"), "the helper tells what is not there");
}

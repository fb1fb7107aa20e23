//! What every tool does while the bus or the master is away: for a short while nothing, and then it ends and says what is left

use std::thread;
use std::time::Duration;

use crate::cluster::{Cluster, Gate, Shape};
use crate::process::{Running, signal, until};

/// An absence that nobody is to notice
const SHORT: Duration = Duration::from_secs(5);
/// How long tools wait in these tests, where the absence is for good
const PATIENCE: &str = "2s";

/// Starts a tool that soon has enough of waiting.
fn impatient(cluster: &Cluster, name: &str, args: &[&str]) -> Running {
    Running::start(cluster.command(name, args).env("MESO_PATIENCE", PATIENCE))
}

/// Tools that ask once, and what they exit with.
const ASKING: [(&str, &[&str]); 8] = [
    ("meso-ps", &[]),
    ("meso-ps", &["agents"]),
    ("meso-role", &["set", "eng", "--weight", "2"]),
    ("meso-explain", &["-R", "cpus=1"]),
    ("meso-offer", &["--once"]),
    ("meso-offer", &["suppress", "lasting"]),
    ("meso-ps", &["roles"]),
    ("meso-launch", &["--", "true"]),
];

/// Shows that a bus which is away for a while is noticed by none of the tools that stay: all goes on where it was, and nothing is said.
#[test]
fn a_bus_that_comes_back() {
    let mut cluster = Cluster::start();
    let mut gate = Gate::new(&cluster, "gate");
    let command = format!("echo before; : <{}; echo after; exit 7", gate.text());
    let launched = cluster.launching(&["--name", "steady", "-R", "cpus=1", "-c", &command]);
    until("it runs", || launched.out() == "before\n");
    let mut pick = Running::start(&mut cluster.command("meso-offer", &["-R", "cpus=1", "-e", "offers,tasks", "-o", "tsv=kind"]));
    pick.until_line("synced");
    let stay = ["meso-wait", "meso-logs"].map(|tool| cluster.command(tool, if tool == "meso-logs" { &["-f", "steady"] } else { &["steady"] }));
    let [waited, followed] = stay.map(|mut command| Running::start(&mut command));
    let mut events = Running::start(&mut cluster.command("meso-events", &["-f", "--kind", "tasks"]));
    until("all listen", || followed.out() == "before\n" && !events.out().is_empty());
    cluster.bus.kill().expect("it runs");
    thread::sleep(SHORT);
    cluster.bus.restart().expect("it starts again");
    gate.open();
    launched.finish().expect_silent(7);
    waited.finish().expect_silent(7);
    let followed = followed.finish().expect_silent(0);
    assert_eq!(followed.text(), "before\nafter\n");
    until("the end is told", || events.out().lines().any(|line| line.contains("\"exit\":7")));
    assert!(!events.has_ended() && !pick.has_ended(), "{} {}", events.said(), pick.said());
    events.signal("INT");
    pick.signal("INT");
    assert_eq!((events.said().as_str(), pick.finish().err.as_str()), ("", ""));
}

/// Shows that tools which are started while master or bus stand still wait for them, and then do what they are for.
#[test]
fn a_master_that_comes_back() {
    let cluster = Cluster::start();
    cluster.launch(&["-d", "--framework", "lasting", "--", "sleep", "1000"]).expect(0);
    let ask_while_away = |away: &dyn Fn(&str)| {
        away("STOP");
        let asking = ASKING.map(|(tool, args)| (tool, args, Running::start(&mut cluster.command(tool, args))));
        thread::sleep(SHORT);
        away("CONT");
        for (tool, args, running) in asking {
            let ran = running.finish();
            assert_eq!(ran.code, 0, "{tool} {args:?}: {}", ran.err);
        }
    };
    ask_while_away(&|name| assert!(signal(cluster.master_pid(0), name)));
    ask_while_away(&|name| assert!(signal(cluster.bus.pid().expect("it runs"), name)));
    let stays = cluster.tool("meso-ps", &["-q"]).lines().remove(0);
    assert!(signal(cluster.master_pid(0), "STOP"));
    let killed = Running::start(&mut cluster.command("meso-kill", &["--wait", &stays]));
    thread::sleep(Duration::from_secs(1));
    assert!(signal(cluster.master_pid(0), "CONT"));
    assert_eq!(killed.finish().expect(0).text().trim(), stays);
}

/// Shows how each tool ends when the bus does not come back: with its code, with the tasks that it leaves, and with the way back to them,
/// which leads there once the bus is back after all.
#[test]
fn a_bus_that_stays_away() {
    let mut cluster = Cluster::with(Shape { master_args: vec!["--session-timeout", "3s"], ..Shape::default() });
    let mut gate = Gate::new(&cluster, "gate");
    let command = format!("echo ready; : <{}; exit 5", gate.text());
    let kept = impatient(&cluster, "meso-launch", &["--name", "kept", "--on-disconnect", "keep", "-c", &command]);
    let ended = impatient(&cluster, "meso-launch", &["--name", "ended", "--report", &cluster.text_path("report"), "-n", "2", "-j", "1", "-c", &command]);
    let many = || cluster.tool("meso-ps", &["--state", "running", "-q"]).lines().len();
    until("both run", || kept.out() == "ready\n" && many() == 2);
    let calls = impatient(&cluster, "meso-offer", &["-R", "cpus=1", "--exec", "head -n 1000"]);
    let waited = impatient(&cluster, "meso-wait", &["kept"]);
    let followed = impatient(&cluster, "meso-logs", &["-f", "kept"]);
    let events = impatient(&cluster, "meso-events", &["-f"]);
    until("all listen", || followed.out() == "ready\n" && !events.out().is_empty());
    let id_of = |name: &str| cluster.tool("meso-ps", &["-o", "tsv=id,name"]).lines().iter().find_map(|line| line.strip_suffix(&format!("\t{name}")).map(str::to_owned)).expect("it runs");
    let (kept_id, ended_id) = (id_of("kept"), id_of("ended"));

    cluster.bus.kill().expect("it runs");
    let gone = format!("the bus has been away for 2 s: {}", cluster.bus.url());
    let kept = kept.finish().expect(125);
    assert!(kept.err.contains(&gone) && kept.err.contains(&format!("{kept_id} runs on: meso-wait {kept_id}")), "{}", kept.err);
    let ended = ended.finish().expect(125);
    let expected = [gone.as_str(), &format!("{ended_id} runs on, and is ended once a master misses us"), "one task was not launched"];
    assert!(expected.iter().all(|words| ended.err.contains(words)), "{}", ended.err);
    let report = cluster.lines_of("report").join("\n");
    assert!(report.contains(&format!("\"task\":\"{ended_id}\"")) && report.contains("\"reason\":\"unreachable\"") && report.lines().count() == 2, "{report}");
    for (running, code, words) in [(waited, 125, kept_id.as_str()), (followed, 69, ""), (events, 69, "try: --after "), (calls, 69, "")] {
        let ran = running.finish().expect(code);
        assert!(ran.err.contains(&gone) && ran.err.contains(words), "{}", ran.err);
    }
    for (tool, args) in ASKING {
        let ran = cluster.tool(tool, args);
        assert!(matches!(ran.code, 69 | 125) && ran.err.contains("no bus at"), "{tool}: {} {}", ran.code, ran.err);
    }

    cluster.bus.restart().expect("it starts again");
    cluster.tool("meso-wait", &[&ended_id]).expect(143);
    gate.open();
    cluster.tool("meso-wait", &[&kept_id]).expect(5);
}

/// Shows how tools end that need a master and hear of none, and that a task which runs needs none.
#[test]
fn a_master_that_stays_away() {
    let mut cluster = Cluster::start();
    let mut gate = Gate::new(&cluster, "gate");
    let runs = impatient(&cluster, "meso-launch", &["-c", &format!("echo ready; : <{}; echo end; exit 3", gate.text())]);
    let waits = impatient(&cluster, "meso-launch", &["-R", "cpus=1000", "--", "true"]);
    let offers = impatient(&cluster, "meso-offer", &["-e", "all"]);
    until("it runs", || runs.out() == "ready\n" && !offers.out().is_empty());
    cluster.kill_master(0);
    waits.finish().expect(125);
    offers.finish().expect(69);
    for (tool, args) in ASKING {
        let ran = impatient(&cluster, tool, args).finish();
        assert!(matches!(ran.code, 69 | 125) && ran.err.contains("no master "), "{tool}: {} {}", ran.code, ran.err);
    }
    gate.open();
    // Its agent and the record tell how it ended.
    assert_eq!(runs.finish().expect(3).text(), "ready\nend\n");
}

/// Shows that a signal reaches a task while no master leads, and that a task which is left to itself ends without harm to
/// whoever left it.
#[test]
fn signals_need_no_master() {
    let mut cluster = Cluster::start();
    let told = cluster.launching(&["-c", "trap 'echo told; exit 4' INT; echo ready; while :; do sleep 0.05; done"]);
    let mut gate = Gate::new(&cluster, "gate");
    let left = cluster.launching(&["--on-disconnect", "keep", "-c", &format!("echo ready; : <{}", gate.text())]);
    until("both run", || told.out() == "ready\n" && left.out() == "ready\n");
    cluster.kill_master(0);
    thread::sleep(SHORT);
    told.signal("INT");
    assert_eq!(told.finish().expect(4).text(), "ready\ntold\n");
    left.signal("HUP");
    gate.open();
    let left = left.finish().expect(129);
    assert!(!left.err.contains("internal error"), "{}", left.err);
}

/// Shows that Ctrl-C ends every tool at once while the bus is away, and that meso-launch says what it leaves.
#[test]
fn ctrl_c() {
    let cluster = Cluster::start();
    let launched = cluster.launching(&["--on-disconnect", "keep", "--name", "left", "-c", "echo ready; sleep 1000"]);
    until("it runs", || launched.out() == "ready\n");
    let rest = [("meso-offer", &["-e", "all"][..]), ("meso-wait", &["left"]), ("meso-logs", &["-f", "left"]), ("meso-events", &["-f"])].map(|(tool, args)| Running::start(&mut cluster.command(tool, args)));
    until("they listen", || rest.iter().filter(|tool| !tool.out().is_empty()).count() == 3);
    cluster.bus.pause().expect("it runs");
    // The connection itself is to be missed first, which takes some seconds; until then a signal is one for the task.
    thread::sleep(2 * SHORT);
    for tool in &rest {
        tool.signal("INT");
    }
    launched.signal("INT");
    let launched = launched.finish().expect(130);
    assert!(launched.err.contains("interrupted while") && launched.err.contains("runs on: meso-wait task_"), "{}", launched.err);
    for tool in rest {
        tool.finish().expect(130);
    }
    cluster.bus.resume().expect("it is stopped");
}

//! Agents out of reach, and agents that are gone

use crate::cluster::{Cluster, Gate, Shape};
use crate::process::{is_alive, signal, until};

/// A leader that soon takes agents for unreachable.
fn hasty() -> Cluster {
    Cluster::with(Shape { master_args: vec!["--agent-beat", "200ms", "--agent-timeout", "2s"], ..Shape::default() })
}

fn state_of(cluster: &Cluster, agent: &str) -> String {
    cluster.tool("meso-ps", &["agents", "-o", "tsv=id,state"]).expect(0).lines().iter().find_map(|line| line.strip_prefix(&format!("{agent}\t")).map(str::to_owned)).unwrap_or_default()
}

fn ends_of(cluster: &Cluster) -> Vec<String> {
    let mut ends = cluster.tool("meso-ps", &["-a", "-o", "tsv=name,state,reason"]).expect(0).lines();
    ends.sort();
    ends
}

/// Shows that an agent whose master dies ends the tasks that are not to run on out of reach, and no others, and that a
/// later master is told the truth of both.
#[test]
fn alone() {
    let mut cluster = hasty();
    let mut gate = Gate::new(&cluster, "gate");
    let pids = cluster.text_path("pids");
    for (name, policy) in [("stays", "keep"), ("goes", "kill")] {
        let command = format!("echo {name} $$ >>{pids}; : <{}", gate.text());
        cluster.launch(&["-d", "--name", name, "--on-unreachable", policy, "-R", "cpus=0.1,mem=32M", "-c", &command]).expect(0);
    }
    until("both run", || cluster.lines_of("pids").len() == 2);
    let pid_of = |wanted: &str| cluster.lines_of("pids").iter().find_map(|line| line.strip_prefix(&format!("{wanted} "))?.parse::<u32>().ok()).expect("it said so");
    let (stays, goes) = (pid_of("stays"), pid_of("goes"));
    cluster.kill_master(0);
    until("the one is ended", || !is_alive(goes));
    assert!(is_alive(stays), "the other runs on");
    cluster.start_master(0);
    let live = || cluster.tool("meso-ps", &["-o", "tsv=name,state"]).expect(0).lines();
    until("the other is all that lives", || live() == ["stays\trunning"]);
    assert_eq!(ends_of(&cluster), ["goes\tkilled\tagent_unreachable", "stays\trunning\t-"]);
    assert!(is_alive(stays));
    gate.open();
    until("the other ends by itself", || live().is_empty());
    assert_eq!(ends_of(&cluster), ["goes\tkilled\tagent_unreachable", "stays\tfinished\t-"]);
    assert_eq!(cluster.lines_of("pids").len(), 2, "each ran once");
}

/// Shows that an agent is declared gone only when it is away, that its tasks end as gone, and that it is refused when it
/// comes back, also by another master and in another process: it ends what it runs and itself, and what it says then
/// changes nothing; and that with an empty work directory it is a new agent.
#[test]
fn gone() {
    let mut cluster = hasty();
    let gate = Gate::new(&cluster, "gate");
    let pids = cluster.text_path("pids");
    let mut run = cluster.launching(&["--name", "lost", "--retries-lost", "0", "-c", &format!("echo $$ >>{pids}; : <{}", gate.text())]);
    until("the task runs", || cluster.lines_of("pids").len() == 1);
    let pid: u32 = cluster.lines_of("pids")[0].parse().expect("a number");
    let agent = cluster.tool("meso-ps", &["agents", "-q"]).expect(0).lines().remove(0);

    let refused = cluster.tool("meso-kill", &["--gone", "host0"]).expect(1);
    assert!(refused.err.contains("is there") && refused.err.contains("--force"), "{}", refused.err);
    assert!(signal(cluster.agent_pid(0), "STOP"));
    until("it is unreachable", || state_of(&cluster, &agent) == "unreachable");
    assert!(!run.has_ended());
    assert_eq!(cluster.tool("meso-kill", &["--gone", "host0"]).expect(0).lines(), [agent.as_str()]);
    let ran = run.finish().expect(125);
    assert!(ran.err.contains("gone"), "{}", ran.err);
    assert_eq!((state_of(&cluster, &agent).as_str(), ends_of(&cluster)), ("gone", vec!["lost\tgone\tagent_gone".to_owned()]));
    assert!(is_alive(pid), "nobody could end it yet");

    // Another leader keeps to it.
    cluster.kill_master(0);
    cluster.start_master(0);
    assert!(signal(cluster.agent_pid(0), "CONT"));
    assert_eq!(cluster.agent_code(0), Some(78));
    assert!(!is_alive(pid), "it ended what it ran");
    let log = cluster.agent_log(0);
    assert!(log.contains("was declared gone") && log.contains("start it with an empty --work-dir to bring it back as a new agent"), "{log}");
    cluster.start_agent(0);
    assert_eq!(cluster.agent_code(0), Some(78), "once more on the same directory");
    assert_eq!(ends_of(&cluster), ["lost\tgone\tagent_gone"]);
    assert_eq!(cluster.tool("meso-kill", &["--gone", &agent]).expect(0).lines(), [agent.as_str()], "it may be said again");

    std::fs::remove_dir_all(cluster.work_dir(0)).expect("it is ours");
    cluster.start_agent(0);
    cluster.until_agents(1);
    assert_eq!(state_of(&cluster, &agent), "gone");
    cluster.launch(&["--", "true"]).expect(0);
}

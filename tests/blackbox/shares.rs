//! Frameworks beside each other: each gets its share

use crate::cluster::{Cluster, Shape};
use crate::process::{Running, until};

fn tasks(cluster: &Cluster, name: &str, count: u32, more: &[&str]) -> Running {
    let command = format!("echo {name} >>{}; sleep 0.1", cluster.text_path("witness"));
    cluster.launching(&[&["-n", &count.to_string(), "-R", "cpus=1,mem=64M"][..], more, &["-c", &command]].concat())
}

/// Shows that of two frameworks on one agent each gets about half, whoever came first.
#[test]
fn two_share_one_agent() {
    let cluster = Cluster::with(Shape { agents: vec!["cpus=4,mem=1G,disk=1G"], ..Shape::default() });
    let first = tasks(&cluster, "first", 120, &[]);
    until("the first has the agent to itself", || cluster.lines_of("witness").len() >= 8);
    let second = tasks(&cluster, "second", 120, &[]);
    first.finish().expect(0);
    second.finish().expect(0);
    let order = cluster.lines_of("witness");
    // While both wanted more: from the first task of the later one to the last of the one that was through first.
    let from = order.iter().position(|name| name == "second").expect("it ran");
    let to = ["first", "second"].iter().filter_map(|name| order.iter().rposition(|ran| ran == name)).min().expect("both ran");
    let both = &order[from..=to];
    let firsts = both.iter().filter(|name| *name == "first").count();
    let seconds = both.len() - firsts;
    assert!(both.len() >= 40, "they were hardly there together: {order:?}");
    assert!(firsts <= 2 * seconds && seconds <= 2 * firsts, "{firsts} and {seconds} are no fair shares");
}

/// Shows that a framework which is offered resources and does not answer starves nobody, and goes on when it wakes.
#[test]
fn one_that_does_not_answer() {
    let cluster = Cluster::with(Shape { agents: vec!["cpus=2,mem=1G,disk=1G"], master_args: vec!["--offer-timeout", "1s"], ..Shape::default() });
    let sleeper = tasks(&cluster, "sleeper", 20, &[]);
    until("it has begun", || cluster.lines_of("witness").len() >= 2);
    sleeper.signal("STOP");
    tasks(&cluster, "other", 10, &[]).finish().expect(0);
    assert_eq!(cluster.lines_of("witness").iter().filter(|name| *name == "other").count(), 10);
    sleeper.signal("CONT");
    sleeper.finish().expect(0);
    assert_eq!(cluster.lines_of("witness").iter().filter(|name| *name == "sleeper").count(), 20);
    cluster.until_idle();
}

/// Shows that one framework that wants what nobody has does not keep others from what there is.
#[test]
fn one_that_wants_too_much() {
    let cluster = Cluster::start();
    let greedy = cluster.launching(&["-R", "cpus=9,mem=64M", "--", "true"]);
    until("it is registered", || !cluster.tool("meso-ps", &["frameworks", "-q"]).out.is_empty());
    tasks(&cluster, "modest", 20, &[]).finish().expect_silent(0);
    greedy.signal("INT");
    greedy.finish().expect_silent(130);
}

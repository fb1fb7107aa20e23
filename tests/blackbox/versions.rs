//! Releases that meet: what speaks the protocol before is served, and what nobody can read is refused in words

use serde_json::{Value, json};

use crate::cluster::{Cluster, Gate, Shape};
use crate::process::until;
use crate::raw::Raw;

/// A leader, and somebody on its bus who speaks for himself.
struct Scene {
    cluster: Cluster,
    raw: Raw,
    asked: u32,
}

impl Scene {
    fn new(shape: Shape) -> Scene {
        let cluster = Cluster::with(shape);
        let mut raw = Raw::connect(cluster.bus.port());
        raw.subscribe("meso.default.m2a.>");
        raw.subscribe("_INBOX.>");
        Scene { cluster, raw, asked: 0 }
    }

    /// Asks the leader, and waits for its answer.
    fn ask(&mut self, subject: &str, who: &str, what: &Value) -> Value {
        self.asked += 1;
        let inbox = format!("_INBOX.{who}.ask{}", self.asked);
        self.raw.publish(subject, Some(&inbox), what.to_string().as_bytes());
        let mut answer = None;
        until("the leader answers", || {
            answer = self.raw.heard().into_iter().find(|heard| heard.subject == inbox);
            answer.is_some()
        });
        serde_json::from_slice(&answer.expect("it was just found").payload).expect("it is JSON")
    }

    fn register(&mut self, agent: &str, v: u32, max_epoch: u64) -> Value {
        let hello = json!({
            "v": v, "agent": agent, "incarnation": "1".repeat(32), "secret": "2".repeat(32), "generation": 1, "host": "older", "total": {"cpus": 1, "mem": 64},
            "max_epoch": max_epoch, "boot_id": "b", "isolation": "processes", "version": "0.0.0", "status_seq": 0, "tasks": [],
        });
        self.ask(&format!("meso.default.a2m.{agent}.hello"), agent, &hello)
    }

    fn subscribe(&mut self, v: u32) -> Value {
        let call = json!({"meso": "subscribe/1", "v": v, "framework": format!("fw_raw000000{v}"), "session": format!("{v}").repeat(32), "role": "default", "who": "raw", "key_of_tomorrow": [1]});
        self.ask("meso.default.f2m.default.call", "default", &call)
    }
}

/// Shows that agents and tools of the protocol before are taken in, one that is older or newer than that is refused with
/// both versions and what has to be newer, and that the leader lives through all of them.
#[test]
fn protocols() {
    let mut scene = Scene::new(Shape::default());
    let welcome = scene.register("agent_raw0000001", 1, 0);
    assert_eq!(welcome["meso"], "welcome/1", "{welcome}");
    let epoch = welcome["epoch"].as_u64().expect("a number");
    let welcome = scene.register("agent_raw0000001", 1, epoch);
    assert_eq!(welcome["meso"], "welcome/1", "{welcome}");
    scene.cluster.until_agents(2);
    let beat = json!({"agent": "agent_raw0000001", "incarnation": "1".repeat(32), "epoch": epoch, "status_seq": 0});
    let beaten = scene.ask("meso.default.a2m.agent_raw0000001.beat", "agent_raw0000001", &beat);
    assert_eq!(beaten["known"], true, "{beaten}");
    assert_eq!(scene.subscribe(1)["meso"], "subscribed/1");
    assert_eq!(scene.subscribe(2)["meso"], "subscribed/1");

    for (v, agent, old) in [(0, "agent_raw0000002", ["the agent", "the tool"]), (3, "agent_raw0000003", ["the master", "the master"])] {
        let answers = [scene.register(agent, v, 0), scene.subscribe(v)];
        for ((answer, who), old) in answers.iter().zip(["agent", "tool"]).zip(old) {
            let message = format!("the {who} speaks protocol {v}, the master 1 to 2: a newer release of {old} is needed");
            assert_eq!((answer["meso"].as_str(), answer["code"].as_str(), answer["message"].as_str()), (Some("refused/1"), Some("version"), Some(message.as_str())));
        }
    }
    scene.cluster.until_agents(2);
    scene.cluster.expect_all_alive();
}

/// Shows that calls, operations and questions of a later release are refused in words and not with silence, and that an
/// agent refuses an order that it does not know and goes on.
#[test]
fn words_of_tomorrow() {
    let mut scene = Scene::new(Shape::default());
    for (subject, what) in [("f2m.default.call", json!({"meso": "freeze/1", "depth": 3})), ("o2m.default.operate", json!({"meso": "thaw/1"})), ("q.default.ask", json!({"of": "weather"}))] {
        let answer = scene.ask(&format!("meso.default.{subject}"), "default", &what);
        let code = answer["code"].as_str().or(answer["refusal"]["code"].as_str());
        assert_eq!(code, Some("bad_request"), "{answer}");
    }
    let mut gate = Gate::new(&scene.cluster, "gate");
    let run = scene.cluster.launching(&["-c", &format!(": <{}; exit 21", gate.text())]);
    let mut launch = None;
    until("a task is launched", || {
        launch = scene.raw.heard().into_iter().find(|heard| heard.subject.contains(".m2a."));
        launch.is_some()
    });
    let launch = launch.expect("it was just found");
    let mut command: Value = serde_json::from_slice(&launch.payload).expect("it is JSON");
    command["order"] = json!({"order": "hibernate", "until": "spring"});
    scene.raw.publish(&launch.subject, None, command.to_string().as_bytes());
    until("the order is refused", || scene.cluster.agent_log(0).contains("refused an order that a later release knows"));
    gate.open();
    run.finish().expect(21);
    scene.cluster.expect_all_alive();
}

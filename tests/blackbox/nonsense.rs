//! Messages that nobody should send: nothing changes, everybody lives

use serde_json::{Value, json};

use crate::cluster::{Cluster, Gate};
use crate::process::{Running, is_alive, until};
use crate::raw::{Heard, Raw};

/// A cluster in which a task runs, and all that was said on its bus until then.
struct Scene {
    cluster: Cluster,
    gate: Gate,
    run: Running,
    task: u32,
    raw: Raw,
    heard: Vec<Heard>,
    agents: String,
}

impl Scene {
    fn new() -> Scene {
        let cluster = Cluster::start();
        let mut raw = Raw::connect(cluster.bus.port());
        raw.subscribe("meso.>");
        let gate = Gate::new(&cluster, "gate");
        let run = cluster.launching(&["-c", &format!("echo $$ >>{}; : <{}; exit 21", cluster.text_path("pids"), gate.text())]);
        until("the task runs", || cluster.lines_of("pids").len() == 1);
        let task = cluster.lines_of("pids")[0].parse().expect("a number");
        cluster.launch(&["-n", "3", "--", "echo", "seen"]).expect_silent(0);
        cluster.tool("meso-logs", &["@last"]).expect(0);
        cluster.tool("meso-role", &["set", "default", "--weight", "2"]).expect(0);
        let heard = raw.heard();
        assert!(heard.len() > 20, "{}", heard.len());
        let mut scene = Scene { cluster, gate, run, task, raw, heard, agents: String::new() };
        scene.agents = scene.agents_now();
        scene
    }

    /// The agents as they are listed, without what time changes.
    fn agents_now(&self) -> String {
        self.cluster.tool("meso-ps", &["agents", "-o", "tsv=id,state,total.cpus,free.cpus,used.cpus,tasks"]).expect(0).text()
    }

    /// Everything is as it was, and goes on.
    fn check(mut self) {
        assert!(is_alive(self.task), "the task was ended");
        assert_eq!(self.agents_now(), self.agents);
        self.cluster.expect_all_alive();
        assert_eq!(self.cluster.launch(&["-n", "3", "--", "echo", "more"]).expect(0).text(), "more\nmore\nmore\n");
        self.gate.open();
        self.run.finish().expect(21);
        assert_eq!(self.cluster.lines_of("pids").len(), 1, "it ran once");
        self.cluster.until_idle();
        let logs = self.cluster.logs();
        assert!(!logs.contains("panicked"), "{logs}");
        assert!(!logs.chars().any(|c| c.is_control() && c != '\n'), "something raw reached a log");
    }

    /// A message of which the subject has a word.
    fn one_of(&self, word: &str) -> Heard {
        self.heard.iter().find(|heard| heard.subject.contains(word)).unwrap_or_else(|| panic!("no message on {word}")).clone()
    }

    /// Every subject on which something was said, once.
    fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<String> = self.heard.iter().map(|heard| heard.subject.clone()).collect();
        subjects.sort();
        subjects.dedup();
        subjects
    }
}

/// Shows that what is no message at all is passed over on every subject: empty, binary, cut short, deep, huge.
#[test]
fn garbage() {
    let mut scene = Scene::new();
    let deep = "[".repeat(100_000);
    let deep_object = "{\"a\":".repeat(50_000);
    let huge = format!("{{\"task\":\"{}\"}}", "x".repeat(900_000));
    let texts: [&[u8]; 12] = [
        b"", b"\0\xff\xfe\x80", b"null", b"[]", b"{}", b"\"text\"", b"1e999999", b"{\"epoch\":-1}", b"{\"epoch\":1,\"epoch\":2}\n\n", deep.as_bytes(), deep_object.as_bytes(), huge.as_bytes(),
    ];
    for subject in scene.subjects() {
        for text in texts {
            scene.raw.publish(&subject, None, text);
            scene.raw.publish(&subject, Some("_INBOX.nobody.1"), text);
        }
    }
    for subject in ["meso.default", "meso.default.", "meso.default.a2m.x.hello", "meso.default.f2m.x.nonesuch", "meso.default.o2m.x.y", "meso.default.q.x.y", "meso.default.lead", "meso.default.ev._master.-.boo", "meso.default.m2a.agent_x.y.cmd"] {
        scene.raw.publish(subject, Some("_INBOX.x.1"), b"{\"meso\":\"subscribe/1\"}");
    }
    scene.raw.heard();
    scene.check();
}

/// Shows that messages once said, said again, cut short or with flipped bytes, change nothing and start nothing twice.
#[test]
fn echoes_and_flaws() {
    let mut scene = Scene::new();
    // What ends a task or a session is believed, as it should be: without permissions anybody is anybody.
    let is_harmless = |heard: &Heard| {
        let text = String::from_utf8_lossy(&heard.payload);
        !["leave/1", "kill", "teardown", "write", "signal", "\"ask\""].iter().any(|word| text.contains(word))
    };
    let said: Vec<Heard> = scene.heard.iter().filter(|heard| is_harmless(heard)).cloned().collect();
    for heard in &said {
        if heard.subject.contains(".m2a.") || heard.subject.contains(".ev.") || heard.subject.contains(".a2m.") {
            scene.raw.publish(&heard.subject, None, &heard.payload);
        }
    }
    // A seed of our own, so that each run is the same.
    let mut seed: u64 = 0x5eed;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below.max(1)
    };
    for heard in &said {
        for _ in 0..5 {
            let cut = random(heard.payload.len());
            scene.raw.publish(&heard.subject, None, &heard.payload[..cut]);
            let mut flawed = heard.payload.clone();
            // The structure, not the values: a status with another number in it is a lie, not a flaw.
            let marks: Vec<usize> = flawed.iter().enumerate().filter(|(_, byte)| b"{}[]:,\"".contains(byte)).map(|(at, _)| at).collect();
            if let Some(at) = marks.get(random(marks.len())) {
                flawed[*at] = 0x80 | random(128) as u8;
                scene.raw.publish(&heard.subject, None, &flawed);
            }
        }
    }
    scene.raw.heard();
    scene.check();
}

/// Shows that an agent obeys no lower epoch, no command for another process, and nothing without its secret.
#[test]
fn commands_of_others() {
    let mut scene = Scene::new();
    let launch = scene.heard.iter().find(|heard| heard.subject.contains(".m2a.") && String::from_utf8_lossy(&heard.payload).contains("launch")).expect("tasks were launched").clone();
    let text = String::from_utf8(launch.payload.clone()).expect("it is JSON");
    let command: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let evil = scene.cluster.text_path("evil");
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut command = command.clone();
        change(&mut command);
        serde_json::to_vec(&command).expect("it is plain data")
    };
    let spawn = |command: &mut serde_json::Value| {
        command["order"]["launches"][0]["task"] = "task_evil000000".into();
        command["order"]["launches"][0]["no"] = 999_999.into();
        command["order"]["launches"][0]["spec"]["id"] = "task_evil000000".into();
        command["order"]["launches"][0]["spec"]["argv"] = serde_json::json!([]);
        command["order"]["launches"][0]["spec"]["cmd"] = format!("echo ran >>{evil}").into();
    };
    let lower = changed(&|command| {
        spawn(command);
        command["epoch"] = 0.into();
    });
    let other_process = changed(&|command| {
        spawn(command);
        command["incarnation"] = "0".repeat(26).into();
    });
    let other_secret = launch.subject.replace(".cmd", "x.cmd");
    let too_large = changed(&|command| {
        spawn(command);
        command["order"]["launches"][0]["resources"]["cpus"] = serde_json::json!(1_000_000);
    });
    scene.raw.publish(&launch.subject, None, &lower);
    scene.raw.publish(&launch.subject, None, &other_process);
    scene.raw.publish(&other_secret, None, &changed(&spawn));
    scene.raw.publish(&launch.subject, None, &too_large);
    // Said again just as it was: it is known.
    scene.raw.publish(&launch.subject, None, &launch.payload);
    scene.raw.heard();
    // Whatever was to happen has happened when a later launch is through.
    scene.cluster.launch(&["--", "true"]).expect(0);
    assert_eq!(scene.cluster.lines_of("evil"), Vec::<String>::new());
    scene.check();
}

/// Shows that no number in what is asked of a task's output, input and process ends its agent, and that one which nobody can
/// have counted to is refused.
#[test]
fn numbers_of_readers() {
    let mut scene = Scene::new();
    scene.raw.subscribe("_INBOX.>");
    let ids = scene.cluster.tool("meso-ps", &["-q"]).text();
    let task = ids.trim();
    let io = scene.heard.iter().find(|heard| heard.subject.contains(".io.") && String::from_utf8_lossy(&heard.payload).contains(task)).expect("its output is followed").subject.clone();
    let (mut asked, mut impossible) = (0, 0);
    let mut ask = |what: Value, is_possible: bool| {
        asked += 1;
        impossible += usize::from(!is_possible);
        scene.raw.publish(&io, Some(&format!("_INBOX.default.number{asked}")), json!({"task": task, "what": what}).to_string().as_bytes());
    };
    for number in [0, 1, u64::from(u32::MAX), 1 << 53, (1 << 53) + 1, i64::MAX as u64, u64::MAX] {
        let is_possible = number <= 1 << 53;
        for follow in [false, true] {
            ask(json!({"ask": "read", "stream": "stdout", "offset": number, "max": 1, "wait_ms": 0, "follow": follow}), is_possible);
            ask(json!({"ask": "follow", "stream": "stderr", "offset": number, "credit": number, "follow": follow}), is_possible);
            ask(json!({"ask": "follow", "stream": "stderr", "offset": 0, "credit": number, "follow": follow}), true);
        }
        ask(json!({"ask": "read", "stream": "stdout", "offset": 0, "max": u32::MAX, "wait_ms": number}), true);
        ask(json!({"ask": "more", "inbox": "_INBOX.default.number2", "upto": number}), true);
        ask(json!({"ask": "write", "offset": number}), is_possible);
    }
    for signal in [0, 65, i32::MAX, -1, i32::MIN] {
        ask(json!({"ask": "signal", "signal": signal}), false);
    }
    let mut refused = 0;
    until("what cannot be is refused", || {
        let heard = scene.raw.heard();
        refused += heard.iter().filter(|heard| heard.subject.starts_with("_INBOX.") && String::from_utf8_lossy(&heard.payload).contains("bad_request")).count();
        refused >= impossible
    });
    assert_eq!(refused, impossible);
    scene.check();
}

/// Shows that nobody is answered at an address that is not its own: answers cannot be led where the asker may not write.
#[test]
fn foreign_reply_subjects() {
    let mut scene = Scene::new();
    scene.raw.subscribe("victim.>");
    let requests: Vec<Heard> = scene.heard.iter().filter(|heard| heard.reply.is_some()).cloned().collect();
    assert!(requests.iter().any(|heard| heard.subject.contains(".f2m.")) && requests.iter().any(|heard| heard.subject.contains(".io.")));
    // What registers is believed whoever says it, and what asks for an end too.
    let kinds = ["subscribe/1", "demand/1", "leave/1", "kill", "write", "signal"];
    let mut asked = 0;
    for heard in &requests {
        let text = String::from_utf8_lossy(&heard.payload);
        if heard.subject.contains(".m2a.") || heard.subject.contains(".ev.") || kinds.iter().any(|word| text.contains(word)) {
            continue;
        }
        asked += 1;
        scene.raw.publish(&heard.subject, Some("victim.inbox"), &heard.payload);
        scene.raw.publish(&heard.subject, Some("meso.default.lead"), &heard.payload);
    }
    assert!(asked > 3, "{asked}");
    scene.cluster.launch(&["--", "true"]).expect(0);
    let heard = scene.raw.heard();
    let answers: Vec<&Heard> = heard.iter().filter(|heard| heard.subject.starts_with("victim.")).collect();
    assert!(answers.is_empty(), "{answers:?}");
    let lead = scene.one_of(".f2m.").subject;
    assert!(!heard.iter().any(|heard| heard.subject == "meso.default.lead" && !String::from_utf8_lossy(&heard.payload).contains("\"master\"")), "somebody led from {lead}");
    scene.check();
}

/// Shows that an agent which pretends to be another, or many that do not exist, take nothing away from those that do.
#[test]
fn false_agents() {
    let mut scene = Scene::new();
    let hello = scene.one_of(".m2a.").subject.split('.').nth(3).expect("an agent").to_owned();
    for number in 0..50 {
        let beat = format!("{{\"agent\":\"agent_false{number:05}\",\"incarnation\":\"{}\",\"epoch\":1,\"status_seq\":99}}", "a".repeat(26));
        scene.raw.publish(&format!("meso.default.a2m.agent_false{number:05}.beat"), None, beat.as_bytes());
        // One that speaks for another on its own subject.
        scene.raw.publish(&format!("meso.default.a2m.agent_false{number:05}.beat"), None, beat.replace(&format!("agent_false{number:05}"), &hello).as_bytes());
        let beat = beat.replace(&format!("agent_false{number:05}"), &hello);
        scene.raw.publish(&format!("meso.default.a2m.{hello}.beat"), None, beat.as_bytes());
    }
    scene.raw.heard();
    scene.check();
}

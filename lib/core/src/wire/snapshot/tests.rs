use proptest::prelude::*;

use super::*;
use crate::allocate::{Rule, allocate};
use crate::condition::parse_attrs;
use crate::resources::{parse_request, parse_total};

/// The line of the contract, byte for byte, but for what is the same without it.
const CONTRACT: &str = r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":9,"mem":18432,"free":{"cpus":9,"mem":18432},"attrs":{}}],"roles":[{"role":"eng","weight":2,"priority":0,"guarantee":{"cpus":4},"limit":{"cpus":8}}],"frameworks":[{"framework":"f1","role":"eng","weight":1,"priority":0,"used":{},"demand":{"cpus":1,"mem":4096,"count":100},"where":"","refused":[]}]}"#;

fn read(line: &str) -> Result<Snapshot, BadSnapshot> {
    Snapshot::read(line.as_bytes())
}

fn set(text: &str) -> Resources {
    parse_total(text).expect(text)
}

/// Shows that the contract's line is read and written as it stands there, and what the allocator makes of it.
#[test]
fn the_line_of_the_contract() {
    let snapshot = read(CONTRACT).expect("a snapshot");
    assert_eq!(serde_json::to_string(&snapshot).expect("it has a JSON form"), CONTRACT);
    let zeros = CONTRACT.replace(r#""used":{}"#, r#""used":{"cpus":0,"mem":0}"#);
    assert_eq!(read(&zeros).expect("a snapshot"), snapshot);
    let grants = snapshot.with_view(&Rule::Drf, 0, allocate);
    assert_eq!(grants.len(), 1);
    assert_eq!((grants[0].tasks, &grants[0].resources), (4, &set("cpus=4,mem=16G")), "all the memory there is");
}

/// Shows what may be left out, that unknown keys are ignored, and that what is not active counts in the whole only.
#[test]
fn what_may_be_left_out() {
    let line = r#"{"meso":"snapshot/1","later":{"x":[1]},"agents":[{"agent":"a1","cpus":4,"free":{"cpus":4},"heard_ms":7},{"agent":"a2","cpus":4,"free":{"cpus":4},"active":false}],"frameworks":[{"framework":"f1"}]}"#;
    let snapshot = read(line).expect("a snapshot");
    let framework = &snapshot.frameworks[0];
    assert_eq!((framework.role.as_str(), framework.weight, framework.priority, framework.suppressed), ("default", Milli::units(1), 0, false));
    assert_eq!((snapshot.total().get("cpus"), snapshot.free().get("cpus")), (Milli::units(8), Milli::units(8)));
    let grants = snapshot.with_view(&Rule::Drf, 0, allocate);
    assert_eq!(grants.iter().map(|grant| grant.agent.as_str()).collect::<Vec<_>>(), ["a1"]);
    assert_eq!(read(&serde_json::to_string(&snapshot).expect("it has a JSON form")), Ok(snapshot));
    assert!(read(r#"{"meso":"snapshot/1","agents":[],"frameworks":[]}"#).expect("an empty cluster").with_view(&Rule::Drf, 9, allocate).is_empty());
}

/// Shows each way in which a line is refused, with words that say what and where.
#[test]
fn bad_lines() {
    let agents = |agents: &str| format!(r#"{{"meso":"snapshot/1","agents":[{agents}],"frameworks":[]}}"#);
    let frameworks = |frameworks: &str| format!(r#"{{"meso":"snapshot/1","agents":[{{"agent":"a1","cpus":1,"free":{{}}}}],"frameworks":[{frameworks}]}}"#);
    let huge = format!("{},{}", r#"{"agent":"a1","cpus":1000000000000,"free":{}}"#, r#"{"agent":"a2","cpus":0.001,"free":{}}"#);
    let table = [
        ("".to_owned(), "empty"),
        ("[]".to_owned(), "not an object"),
        ("nonsense".to_owned(), "not an object"),
        (r#"{"meso":"snapshot/1","#.to_owned(), "ends in the middle"),
        (r#"{"meso":"offer/1","agents":[]}"#.to_owned(), "the kind \"offer/1\" is not snapshot/1"),
        (r#"{"meso":"snapshot/2","agents":[],"frameworks":[]}"#.to_owned(), "the kind \"snapshot/2\" is not snapshot/1"),
        (r#"{"agents":[],"frameworks":[]}"#.to_owned(), "missing key `meso`"),
        (r#"{"meso":"snapshot/1","frameworks":[]}"#.to_owned(), "missing key `agents`"),
        (r#"{"meso":"snapshot/1","agents":[]}"#.to_owned(), "missing key `frameworks`"),
        (r#"{"meso":"snapshot/1","agents":{},"frameworks":[]}"#.to_owned(), "expected a sequence"),
        (r#"{"meso":"snapshot/1","meso":"snapshot/1","agents":[],"frameworks":[]}"#.to_owned(), "the key \"meso\" stands twice"),
        (agents(r#"{"cpus":1,"free":{}}"#), "missing key `agent`"),
        (agents(r#"{"agent":"a1","cpus":1}"#), "missing key `free`"),
        (agents(r#"{"agent":"a b","free":{}}"#), "\"a b\" is not an agent id"),
        (agents(r#"{"agent":7,"free":{}}"#), "expected a string"),
        (agents(r#"{"agent":"a1","cpus":-1,"free":{}}"#), "the amount -1 is negative"),
        (agents(r#"{"agent":"a1","cpus":NaN,"free":{}}"#), "expected"),
        (agents(r#"{"agent":"a1","cpus":1e999,"free":{}}"#), "number out of range"),
        (agents(r#"{"agent":"a1","cpus":1e13,"free":{}}"#), "is not between 0 and 10^12"),
        (agents(r#"{"agent":"a1","cpus":0.0001,"free":{}}"#), "more than 3 decimals"),
        (agents(r#"{"agent":"a1","gpus":0.5,"free":{}}"#), "gpus are whole"),
        (agents(r#"{"agent":"a1","cpus":true,"free":{}}"#), "expected an amount"),
        (agents(r#"{"agent":"a1","cpus":1,"free":{"cpus":2}}"#), "agent a1: free is not a part of what it has: cpus 2 of 1"),
        (agents(r#"{"agent":"a1","cpus":1,"free":{"cpus":-2}}"#), "negative"),
        (agents(r#"{"agent":"a1","port_ranges":[[1,2]],"free":{"port_ranges":[[2,3]]}}"#), "ports [2-3] of [1-2]"),
        (agents(r#"{"agent":"a1","other":{"cpus":1},"free":{}}"#), "cpus"),
        (agents(r#"{"agent":"a1","attrs":{"rack":[]},"free":{}}"#), "expected a string, a number or a boolean"),
        (agents(r#"{"agent":"a1","free":{}},{"agent":"a1","free":{}}"#), "agent a1 stands twice"),
        (agents(&huge), "with agent a2 the cluster is larger than can be counted"),
        (frameworks(r#"{"framework":"f1"},{"framework":"f1"}"#), "framework f1 stands twice"),
        (frameworks(r#"{"framework":"f1","role":"a//b"}"#), "is not a role"),
        (frameworks(r#"{"framework":"f1","role":"../x"}"#), "is not a role"),
        (frameworks(r#"{"framework":"f1","weight":0}"#), "framework f1: a weight is above 0"),
        (frameworks(r#"{"framework":"f1","weight":-1}"#), "negative"),
        (frameworks(r#"{"framework":"f1","priority":0.5}"#), "expected a whole number"),
        (frameworks(r#"{"framework":"f1","demand":{"cpus":1}}"#), "missing key `count`"),
        (frameworks(r#"{"framework":"f1","demand":{"cpus":1,"count":-1}}"#), "expected a whole number"),
        (frameworks(r#"{"framework":"f1","demand":{"cpus":1,"count":4294967296}}"#), "expected a whole number"),
        (frameworks(r#"{"framework":"f1","where":"cpus >"}"#), "a value is missing here"),
        (frameworks(r#"{"framework":"f1","where":7}"#), "expected a string"),
        (frameworks(r#"{"framework":"f1","refused":[{"cpus":1}]}"#), "missing key `agent`"),
        (frameworks(r#"{"framework":"f1","refused":[{"agent":"a9","cpus":1}]}"#), "framework f1 refused agent a9, which is not in the snapshot"),
        (frameworks(r#"{"framework":"f1","suppressed":"no"}"#), "expected a boolean"),
        (r#"{"meso":"snapshot/1","agents":[],"frameworks":[],"roles":[{"role":"eng","limit":{"a b":1}}]}"#.to_owned(), "cannot name a kind"),
        (r#"{"meso":"snapshot/1","agents":[],"frameworks":[],"roles":[{"role":"eng"},{"role":"eng"}]}"#.to_owned(), "role eng stands twice"),
        (r#"{"meso":"snapshot/1","agents":[],"frameworks":[],"roles":[{"role":"eng","weight":0}]}"#.to_owned(), "role eng: a weight is above 0"),
    ];
    for (line, words) in table {
        let why = match read(&line) {
            Err(why) => why.to_string(),
            Ok(_) => panic!("{line} was read"),
        };
        assert!(why.contains(words), "{line}: {why}, not {words}");
        assert!(!why.contains('\n') && why.len() < 400, "{why:?}");
    }
}

/// Shows that a cluster larger than an ordinary line may be is read whole.
#[test]
fn a_large_cluster() {
    let agents = (0..20_000).map(|number| Agent { agent: AgentId::fresh(number), host: format!("host{number}"), total: set("cpus=8,mem=32G,ports=[31000-32000]"), free: set("cpus=8,mem=32G"), attrs: BTreeMap::new(), active: true, kept_for: None });
    let snapshot = Snapshot { agents: agents.collect(), ..Snapshot::default() };
    let line = serde_json::to_string(&snapshot).expect("it has a JSON form");
    assert!(line.len() > Limits::default().bytes);
    assert_eq!(read(&line), Ok(snapshot));
}

/// Shows that parts become one again, a framework that is cut in the middle of its refusals too, and that a refusal of
/// an agent that has gone meanwhile is left out.
#[test]
fn parts_become_one() {
    let line = r#"{"meso":"snapshot/1","agents":[{"agent":"a1","free":{}},{"agent":"a2","free":{}}],"frameworks":[{"framework":"f1","refused":[{"agent":"a1","cpus":1},{"agent":"a2","cpus":2}]},{"framework":"f2"}]}"#;
    let whole = read(line).expect("a snapshot");
    let mut first = Snapshot { agents: whole.agents.clone(), frameworks: vec![whole.frameworks[0].clone()], ..Snapshot::default() };
    first.frameworks[0].refused.pop();
    let mut second = Snapshot { frameworks: whole.frameworks.clone(), ..Snapshot::default() };
    second.frameworks[0].refused.remove(0);
    second.frameworks[0].refused.push(Refusal { agent: AgentId::parse("gone").expect("an id"), resources: set("cpus=1") });
    first.extend(second);
    assert!(first.check().is_err());
    first.drop_strangers();
    assert_eq!(first, whole);
}

fn some_snapshot() -> impl Strategy<Value = Snapshot> {
    let agent = (0..9_000i64, 0..9u64, 0..3u64, 0..9u64, any::<bool>(), any::<bool>());
    let framework = (proptest::option::of((0..4u64, 0..4u64, 0..3u32, 0..9u32)), 0..4usize, 1..3_000i64, -2..3i64, 0..9u64, proptest::collection::vec(0..9u64, 0..3), any::<bool>());
    let role = (1..3_000i64, -2..3i64, proptest::option::of(0..9u64), proptest::option::of(0..9u64));
    let roles = ["default", "eng", "eng/x", "ops"];
    (proptest::collection::vec(agent, 0..5), proptest::collection::vec(framework, 0..5), proptest::collection::vec(role, 0..4), any::<bool>()).prop_map(move |(agents, frameworks, policies, weights)| {
        let milli = |thousandths| Milli::from_milli(thousandths).expect("small");
        let agents = agents.into_iter().enumerate().map(|(number, (cpus, mem, gpus, licenses, active, has_attrs))| {
            let mut total = set(&format!("mem={},gpus={gpus},licenses={licenses},ports=[1-9]", mem * 64));
            total.cpus = milli(cpus);
            let free = Resources { cpus: milli(cpus / 2), mem: total.mem, ..Resources::default() };
            let attrs = parse_attrs(if has_attrs { "rack=r1,ssd=true,gen=3" } else { "" }).expect("attributes");
            Agent { agent: AgentId::parse(&format!("a{number}")).expect("an id"), host: format!("h{}", number / 2), total, free, attrs, active, kept_for: (gpus == 2).then(|| FrameworkId::parse("f1").expect("an id")) }
        });
        let agents: Vec<Agent> = agents.collect();
        let frameworks = frameworks.into_iter().enumerate().map(|(number, (demand, role, weight, priority, used, refused, suppressed))| Framework {
            framework: FrameworkId::parse(&format!("f{number}")).expect("an id"),
            role: Role::parse(roles[role]).expect("a role"),
            weight: milli(weight),
            priority,
            guarantee: (used == 3).then(|| Quantities::of(&set("cpus=2"))),
            limit: (used == 5).then(|| BTreeMap::from([("mem".to_owned(), Milli::ZERO)])),
            open: (used == 7).then_some(1),
            served: used / 2,
            used: Quantities::of(&set(&format!("cpus={used},licenses=1"))),
            demand: demand.map(|(cpus, mem, ports, count)| Demand { request: parse_request(&format!("cpus={cpus},mem={},ports={ports}", mem * 64)).expect("a request"), count }),
            condition: Condition::parse(if used > 4 { "attr.rack == r1 && cpus > 0" } else { "" }).expect("a condition"),
            on: (used == 0).then(|| "h0".to_owned()),
            refused: refused.into_iter().filter_map(|cpus| Some(Refusal { agent: agents.get(cpus as usize % 4)?.agent.clone(), resources: set(&format!("cpus={cpus}")) })).collect(),
            suppressed,
        });
        let frameworks = frameworks.collect();
        let policies = policies.into_iter().zip(roles).map(|((weight, priority, guarantee, limit), role)| RolePolicy {
            role: Role::parse(role).expect("a role"),
            weight: milli(weight),
            priority,
            guarantee: guarantee.map(|cpus| Quantities::of(&set(&format!("cpus={cpus}")))),
            limit: limit.map(|cpus| BTreeMap::from([("cpus".to_owned(), Milli::units(cpus))])),
        });
        let policy = if weights { Rule::Fair { resource: "mem".to_owned() } } else { Rule::Drf };
        Snapshot { meso: SnapshotKind::V1, policy, agents, roles: policies.collect(), frameworks }
    })
}

proptest! {
    /// Shows that what is written is read as the same snapshot, and that both get the same grants.
    #[test]
    fn lines_come_back(snapshot in some_snapshot(), seed in any::<u64>()) {
        let line = serde_json::to_string(&snapshot).expect("it has a JSON form");
        let back = read(&line);
        prop_assert_eq!(back.as_ref(), Ok(&snapshot));
        prop_assert_eq!(back.expect("just seen").with_view(&Rule::Drf, seed, allocate), snapshot.with_view(&Rule::Drf, seed, allocate));
    }

    /// Shows that a line with any piece cut out, doubled or changed is read or refused with a short reason, and never worse.
    #[test]
    fn broken_lines_do_no_harm(snapshot in some_snapshot(), from in 0..2_000usize, length in 0..20usize, with in ".{0,4}") {
        let line = serde_json::to_string(&snapshot).expect("it has a JSON form");
        let from = from % (line.len() + 1);
        let until = (from + length).min(line.len());
        let broken = [&line.as_bytes()[..from], with.as_bytes(), &line.as_bytes()[until..]].concat();
        match Snapshot::read(&broken) {
            Ok(snapshot) => drop(snapshot.with_view(&Rule::Drf, 1, allocate)),
            Err(why) => prop_assert!(why.to_string().len() < 1_000),
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::allocate::{Rule, allocate};
use crate::wire::pass::{GrantLine, Said};
use crate::wire::snapshot::Snapshot as Line;

/// Two agents; `jobs` wants 5 tasks of 1 cpu and 1 GB, and `whole` whatever there is.
const CLUSTER: &str = r#"{"meso":"snapshot/1",
    "agents":[{"agent":"a1","host":"h1","cpus":4,"mem":4096,"port_ranges":[[1,9]],"free":{"cpus":4,"mem":4096,"port_ranges":[[1,9]]},"attrs":{"rack":"r1"}},
              {"agent":"a2","host":"h2","cpus":8,"mem":8192,"free":{"cpus":2,"mem":8192}},
              {"agent":"a3","cpus":8,"free":{"cpus":8},"active":false}],
    "frameworks":[{"framework":"jobs","demand":{"cpus":1,"mem":1024,"count":5}},{"framework":"whole"},{"framework":"quiet","suppressed":true}]}"#;

fn line(text: &str) -> Line {
    Line::read(text.as_bytes()).expect("a snapshot")
}

/// The proposals in lines, each without its tag.
fn proposals(lines: &[&str]) -> Vec<Proposal> {
    let read = |line: &&str| match Said::read(format!(r#"{{"meso":"grant/1",{line}}}"#).as_bytes()) {
        Ok(Said::Grant(proposal)) => proposal,
        other => panic!("{other:?} of {line}"),
    };
    lines.iter().map(read).collect()
}

/// What passes of some proposals, shortly, and the first reason why something does not.
fn checked(cluster: &str, lines: &[&str]) -> (Vec<String>, u64, String) {
    let Checked { grants, refused, why } = line(cluster).with_view(&Rule::Drf, 0, |view| check(view, &proposals(lines)));
    let shown = grants.iter().map(|grant| format!("{} {} {} x{}", grant.framework, grant.agent, grant.resources, grant.tasks)).collect();
    (shown, refused, why.map(|why| why.to_string()).unwrap_or_default())
}

fn passes(cluster: &str, lines: &[&str], wanted: &[&str]) {
    assert_eq!(checked(cluster, lines), (wanted.iter().map(|&grant| grant.to_owned()).collect(), 0, String::new()), "{lines:?}");
}

/// Shows what one may leave out: the amounts where tasks are counted, and the tasks where there are amounts; and that parts
/// of one grant, in several lines, are one grant.
#[test]
fn what_passes() {
    passes(CLUSTER, &[r#""framework":"jobs","role":"x","agent":"a1","cpus":3,"mem":3072,"tasks":3,"comment":"mine""#], &["jobs a1 cpus=3,mem=3072 x3"]);
    passes(CLUSTER, &[r#""framework":"jobs","agent":"a1","tasks":2"#], &["jobs a1 cpus=2,mem=2048 x2"]);
    passes(CLUSTER, &[r#""framework":"jobs","agent":"a1","cpus":2.5,"mem":4096"#], &["jobs a1 cpus=2,mem=2048 x2"]);
    passes(CLUSTER, &[r#""framework":"jobs","agent":"a2""#], &["jobs a2 cpus=2,mem=2048 x2"]);
    let one = r#""framework":"jobs","agent":"a1","tasks":1"#;
    passes(CLUSTER, &[one, r#""framework":"jobs","agent":"a2","tasks":1"#, one], &["jobs a1 cpus=2,mem=2048 x2", "jobs a2 cpus=1,mem=1024 x1"]);
    // More tasks than are wanted are cut to what is.
    passes(CLUSTER, &[r#""framework":"jobs","agent":"a1","tasks":4"#, r#""framework":"jobs","agent":"a2","tasks":4"#], &["jobs a1 cpus=4,mem=4096 x4", "jobs a2 cpus=1,mem=1024 x1"]);
    passes(CLUSTER, &[r#""framework":"whole","agent":"a1""#], &["whole a1 cpus=4,mem=4096,ports=[1-9] x0"]);
    passes(CLUSTER, &[r#""framework":"whole","agent":"a1","cpus":1,"ports":2"#], &["whole a1 cpus=1,ports=[1-2] x0"]);
    passes(CLUSTER, &[r#""framework":"whole","agent":"a1","cpus":1,"ports":2,"port_ranges":[[8,9]]"#], &["whole a1 cpus=1,ports=[8-9] x0"]);
    passes(CLUSTER, &[], &[]);
}

/// Shows each proposal that does not pass, with its reason, and that those beside it do.
#[test]
fn what_does_not_pass() {
    let fine = r#""framework":"jobs","agent":"a2","tasks":1"#;
    for (bad, why) in [
        (r#""framework":"ghost","agent":"a1","tasks":1"#, "framework ghost is not known"),
        (r#""framework":"quiet","agent":"a1","cpus":1"#, "framework quiet wants nothing more"),
        (r#""framework":"jobs","agent":"ghost","tasks":1"#, "agent ghost has nothing to give"),
        (r#""framework":"jobs","agent":"a3","tasks":1"#, "agent a3 has nothing to give"),
        (r#""framework":"jobs","agent":"a1","cpus":5,"mem":1024"#, "agent a1 has too little left: cpus 4 of 5"),
        (r#""framework":"whole","agent":"a1","cpus":1,"port_ranges":[[9,10]]"#, "agent a1 has too little left: port_ranges 1 of 2"),
        (r#""framework":"whole","agent":"a1","cpus":1,"other":{"licenses":1}"#, "agent a1 has too little left: licenses 0 of 1"),
        (r#""framework":"jobs","agent":"a1","cpus":4,"mem":1023"#, "what framework jobs is to get of agent a1 is not one task's worth"),
        (r#""framework":"whole","agent":"a1","cpus":0.001"#, "what framework whole is to get of agent a1 is next to nothing"),
    ] {
        assert_eq!(checked(CLUSTER, &[bad, fine]), (vec!["jobs a2 cpus=1,mem=1024 x1".to_owned()], 1, why.to_owned()), "{bad}");
    }
}

/// Shows that nothing is given twice: neither to two frameworks nor twice to one, and no task more than is wanted.
#[test]
fn nothing_twice() {
    let all = r#""framework":"whole","agent":"a1""#;
    assert_eq!(checked(CLUSTER, &[all, all]), (vec!["whole a1 cpus=4,mem=4096,ports=[1-9] x0".to_owned()], 1, "what framework whole is to get of agent a1 is next to nothing".to_owned()));
    let jobs = r#""framework":"jobs","agent":"a1","cpus":4,"mem":4096"#;
    assert_eq!(checked(CLUSTER, &[jobs, all]), (vec!["jobs a1 cpus=4,mem=4096 x4".to_owned()], 1, "what framework whole is to get of agent a1 is next to nothing".to_owned()));
    let enough = checked(CLUSTER, &[r#""framework":"jobs","agent":"a1","tasks":4"#, r#""framework":"jobs","agent":"a2","tasks":1"#, r#""framework":"jobs","agent":"a2","tasks":1"#]);
    assert_eq!((enough.0.len(), enough.1, enough.2.as_str()), (2, 1, "framework jobs wants nothing more"));
}

/// Shows that conditions, a named agent, refusals, what is kept, and the number of agents bind a program as they bind the
/// built-in policy.
#[test]
fn wishes_bind() {
    let with = |key: &str| CLUSTER.replace(r#""framework":"whole""#, &format!(r#""framework":"whole",{key}"#));
    let (a1, a2) = (r#""framework":"whole","agent":"a1""#, r#""framework":"whole","agent":"a2""#);
    for (key, why) in [
        (r#""where":"attr.rack == \"r1\"""#, "the condition of framework whole does not hold on agent a2"),
        (r#""on":"h1""#, "framework whole wants no other agent than h1"),
        (r#""refused":[{"agent":"a2","cpus":2,"mem":8192}]"#, "framework whole has refused as much of agent a2"),
        (r#""open":1"#, "framework whole wants nothing more"),
    ] {
        assert_eq!(checked(&with(key), &[a1, a2]), (vec!["whole a1 cpus=4,mem=4096,ports=[1-9] x0".to_owned()], 1, why.to_owned()), "{key}");
    }
    let kept = CLUSTER.replace(r#""host":"h2""#, r#""host":"h2","kept_for":"jobs""#);
    assert_eq!(checked(&kept, &[a2, r#""framework":"jobs","agent":"a2","tasks":1"#]), (vec!["jobs a2 cpus=1,mem=1024 x1".to_owned()], 1, "agent a2 is kept for framework jobs".to_owned()));
    // Two parts, each smaller than what was refused, are refused together, and a larger whole passes.
    let refused = CLUSTER.replace(r#""count":5}"#, r#""count":5},"refused":[{"agent":"a1","cpus":2,"mem":2048}]"#);
    let one = r#""framework":"jobs","agent":"a1","tasks":1"#;
    assert_eq!(checked(&refused, &[one, one]), (vec![], 1, "framework jobs has refused as much of agent a1".to_owned()));
    passes(&refused, &[one, one, one], &["jobs a1 cpus=3,mem=3072 x3"]);
}

/// Shows that a limit cuts a grant to the whole tasks, or to the part, that it leaves, over all frameworks of the role and
/// over agents; and that what another role is guaranteed stays.
#[test]
fn quotas_bind() {
    let with = |role: &str| CLUSTER.replace(r#""frameworks":"#, &format!(r#""roles":[{role}],"frameworks":"#));
    let limited = with(r#"{"role":"default","limit":{"cpus":3.5}}"#);
    let (a1, a2) = (r#""framework":"jobs","agent":"a1","tasks":2"#, r#""framework":"jobs","agent":"a2","tasks":2"#);
    passes(&limited, &[a1, a2], &["jobs a1 cpus=2,mem=2048 x2", "jobs a2 cpus=1,mem=1024 x1"]);
    passes(&limited, &[a1, r#""framework":"whole","agent":"a2""#], &["jobs a1 cpus=2,mem=2048 x2", "whole a2 cpus=1.5,mem=8192 x0"]);
    let none = with(r#"{"role":"default","limit":{"cpus":0.5,"mem":0}}"#);
    assert_eq!(checked(&none, &[a1]), (vec![], 1, "limits and guarantees leave framework jobs nothing of agent a1".to_owned()));
    let guaranteed = with(r#"{"role":"vip","guarantee":{"cpus":11}}"#);
    passes(&guaranteed, &[a1, a2], &["jobs a1 cpus=2,mem=2048 x2", "jobs a2 cpus=1,mem=1024 x1"]);
}

/// Shows which lines are no grant at all, so that a program that says them is not believed.
#[test]
fn nonsense() {
    for bad in [
        "", "hello", "[]", "{}", r#"{"meso":"grant/2"}"#, r#"{"meso":"offer/1","id":"x"}"#, r#"{"meso":"grant/1"}"#, r#"{"meso":"grant/1","framework":"f","agent":"../a"}"#,
        r#"{"meso":"grant/1","framework":"f","agent":"a","cpus":-1}"#, r#"{"meso":"grant/1","framework":"f","agent":"a","cpus":1000000000000000000}"#,
        r#"{"meso":"grant/1","framework":"f","agent":"a","cpus":"NaN"}"#, r#"{"meso":"grant/1","framework":"f","agent":"a","gpus":0.5}"#,
        r#"{"meso":"grant/1","framework":"f","agent":"a","tasks":-1}"#, r#"{"meso":"grant/1","framework":"f","agent":"a","tasks":1e18}"#,
        r#"{"meso":"grant/1","framework":"f","agent":"a","other":{"cpus":1}}"#, r#"{"meso":"grant/1","framework":"f","framework":"g","agent":"a"}"#,
    ] {
        assert!(Said::read(bad.as_bytes()).is_err(), "{bad} was taken");
    }
    assert_eq!(Said::read(br#"{"meso":"allocated/1","policy":"x","grants":0}"#), Ok(Said::Closed));
    assert_eq!(Said::read(br#"{"meso":"step/1","step":1,"cpus":-1}"#), Ok(Said::Step));
}

/// A cluster as a line, made of a few numbers.
fn some_cluster() -> impl Strategy<Value = Line> {
    let agents = proptest::collection::vec((1..6u32, 1..6u32), 1..5);
    let frameworks = proptest::collection::vec((0..3u32, 0..3u32, 0..6u32, 0..3usize, 0..3u32), 1..5);
    (agents, frameworks, proptest::option::of(0..6u32), proptest::option::of(0..4u32)).prop_map(|(agents, frameworks, limit, guarantee)| {
        let agents: Vec<String> = agents.iter().enumerate().map(|(number, (cpus, mem))| format!(r#"{{"agent":"a{number}","cpus":{cpus},"mem":{0},"free":{{"cpus":{cpus},"mem":{0}}}}}"#, mem * 64)).collect();
        let roles = ["x", "x/y", "z"];
        let frameworks: Vec<String> = frameworks
            .iter()
            .enumerate()
            .map(|(number, (cpus, mem, count, role, open))| {
                let demand = if cpus + mem > 0 { format!(r#""demand":{{"cpus":{cpus},"mem":{},"count":{count}}},"#, mem * 64) } else { String::new() };
                format!(r#"{{"framework":"f{number}",{demand}"role":"{}","open":{}}}"#, roles[*role], open + 1)
            })
            .collect();
        let policy = |role: &str, key: &str, cpus: Option<u32>| cpus.map(|cpus| format!(r#"{{"role":"{role}","{key}":{{"cpus":{cpus}}}}}"#));
        let roles: Vec<String> = [policy("x", "limit", limit), policy("z", "guarantee", guarantee)].into_iter().flatten().collect();
        line(&format!(r#"{{"meso":"snapshot/1","agents":[{}],"roles":[{}],"frameworks":[{}]}}"#, agents.join(","), roles.join(","), frameworks.join(",")))
    })
}

fn some_proposal() -> impl Strategy<Value = Proposal> {
    (0..6u32, 0..6u32, 0..8u32, 0..8u32, 0..5u32).prop_map(|(framework, agent, cpus, mem, tasks)| Proposal {
        framework: FrameworkId::parse(&format!("f{framework}")).expect("an id"),
        agent: AgentId::parse(&format!("a{agent}")).expect("an id"),
        amounts: Request { cpus: Milli::units(cpus.into()), mem: Milli::units(u64::from(mem) * 50), ..Request::default() },
        tasks,
    })
}

proptest! {
    /// Shows that whatever is proposed, what passes is free, wanted, in whole tasks, on no more agents than may be, and
    /// within the limit; and that nothing of it is lost count of.
    #[test]
    fn whatever_is_said(cluster in some_cluster(), said in proptest::collection::vec(some_proposal(), 0..40)) {
        let checked = cluster.with_view(&Rule::Drf, 0, |view| check(view, &said));
        prop_assert_eq!(checked.why.is_some(), checked.refused > 0);
        let mut left: BTreeMap<&AgentId, Resources> = cluster.agents.iter().map(|agent| (&agent.agent, agent.free.clone())).collect();
        let mut served: BTreeMap<&FrameworkId, (u32, u32)> = BTreeMap::new();
        let mut limited = Milli::ZERO;
        for grant in &checked.grants {
            let rest = left[&grant.agent].checked_sub(&grant.resources);
            prop_assert!(rest.is_some(), "{:?} is not free", grant);
            left.insert(&cluster.agents.iter().find(|agent| agent.agent == grant.agent).expect("it is there").agent, rest.unwrap_or_default());
            let framework = cluster.frameworks.iter().find(|framework| framework.framework == grant.framework).expect("it is there");
            let (tasks, agents) = served.entry(&framework.framework).or_default();
            *tasks += grant.tasks;
            *agents += 1;
            prop_assert!(*agents <= framework.open.unwrap_or(u32::MAX));
            if let Some(demand) = &framework.demand {
                prop_assert!(grant.tasks > 0 && *tasks <= demand.count);
                prop_assert_eq!(demand.request.times(grant.tasks.into()).and_then(|tasks| tasks.take(&grant.resources)), Some(grant.resources.clone()));
            }
            if framework.role.as_str().starts_with('x') {
                limited = limited.checked_add(grant.resources.cpus).expect("small amounts");
            }
        }
        let limit = cluster.roles.iter().find_map(|role| role.limit.as_ref()?.get("cpus").copied());
        prop_assert!(limit.is_none_or(|limit| limited <= limit), "{} of {:?}", limited, limit);
    }

    /// Shows that all that the built-in policy grants passes, as it is, on its way over the line.
    #[test]
    fn the_built_in_policy_passes(cluster in some_cluster(), seed in 0..9u64) {
        let (grants, checked) = cluster.with_view(&Rule::Drf, seed, |view| {
            let grants = allocate(view);
            let said: Vec<Proposal> = grants.iter().map(|grant| match Said::read(serde_json::to_string(&GrantLine(grant.clone())).expect("it has a JSON form").as_bytes()) {
                Ok(Said::Grant(proposal)) => proposal,
                other => panic!("{other:?}"),
            }).collect();
            (grants, check(view, &said))
        });
        prop_assert_eq!(checked, Checked { grants, refused: 0, why: None });
    }
}

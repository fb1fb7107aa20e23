use super::*;
use crate::filter::Refusals;
use crate::ledger::Ledger;
use crate::policy::{Change, Subject};
use crate::resources::{parse_request, parse_total};
use crate::wire::explain::{Kept, Miss};

/// Id, host, attributes, and why it is away.
type Host = (AgentId, String, BTreeMap<String, Attr>, Option<Reason>);

/// A cluster written by hand.
struct World {
    ledger: Ledger,
    hosts: Vec<Host>,
    refusals: Refusals,
    policies: Policies,
    /// Id, role, and name.
    frameworks: Vec<(FrameworkId, Role, Option<Name>)>,
    kept_for: Option<FrameworkId>,
    spoiled: fn(&mut Seeker<'_>),
}

/// Names are `name_of_ID`; offers are as many seconds old as their number says, tasks as many minutes.
struct ByNumber;

impl Books for ByNumber {
    fn shares_of(&self, _: &FrameworkId) -> (Milli, Milli) {
        (Milli::ZERO, Milli::units(1))
    }

    fn name_of(&self, framework: &FrameworkId) -> Option<Name> {
        Name::parse(&format!("name_of_{framework}")).ok()
    }

    fn offer_age_ms(&self, offer: &OfferId) -> u64 {
        1_000 * number(offer.as_str())
    }

    fn task_age_ms(&self, task: &TaskId) -> u64 {
        60_000 * number(task.as_str())
    }
}

fn number(id: &str) -> u64 {
    id.trim_start_matches(char::is_alphabetic).parse().expect(id)
}

fn framework(id: &str) -> FrameworkId {
    FrameworkId::parse(id).expect(id)
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).expect(id)
}

fn wish(request: &str, count: u32, condition: &str) -> Demand {
    let request = if request.is_empty() { Request::default() } else { parse_request(request).expect(request) };
    Demand { request, count, condition: condition.to_owned(), ..Demand::default() }
}

impl World {
    /// Agents are `ID TOTAL ATTRS`; the host of `a1` is `h1`.
    fn new(agents: &[&str]) -> World {
        let mut ledger = Ledger::default();
        let mut hosts = Vec::new();
        for line in agents {
            let mut words = line.split(' ');
            let id = agent(words.next().expect("an id"));
            ledger.admit(id.clone(), parse_total(words.next().expect("a total")).expect(line)).expect("it is new");
            let attrs = words.next().map(|text| crate::condition::parse_attrs(text).expect(text)).unwrap_or_default();
            hosts.push((id.clone(), id.as_str().replace('a', "h"), attrs, None));
        }
        World { ledger, hosts, refusals: Refusals::default(), policies: Policies::default(), frameworks: Vec::new(), kept_for: None, spoiled: |_| {} }
    }

    fn task(mut self, task: &str, on: &str, of: &str, holds: &str) -> World {
        self.ledger.charge(&agent(on), TaskId::parse(task).expect(task), framework(of), parse_total(holds).expect(holds)).expect("it fits");
        self
    }

    fn offer(mut self, offer: &str, on: &str, to: &str, holds: &str) -> World {
        self.ledger.offer(&agent(on), OfferId::parse(offer).expect(offer), framework(to), parse_total(holds).expect(holds)).expect("it fits");
        self
    }

    fn framework(mut self, id: &str, role: &str) -> World {
        self.frameworks.push((framework(id), Role::parse(role).expect(role), None));
        self
    }

    fn policy(mut self, subject: &str, guarantee: &str, limit: &str) -> World {
        let amounts = |text: &str| (!text.is_empty()).then(|| Quantities::of(&parse_total(text).expect(text)));
        let limit = amounts(limit).map(|amounts| amounts.iter().map(|(name, amount)| (name.to_owned(), amount)).collect());
        let change = Change { guarantee: amounts(guarantee), limit, ..Change::default() };
        self.policies = self.policies.with(&Subject::parse(subject).expect(subject), &change).expect("no contradiction");
        self
    }

    /// Explains the wish of `me`, who is in the role `default` unless it is among the frameworks.
    fn explain(&self, demand: Option<&Demand>) -> Explanation {
        self.explain_to(demand, LINES_MAX)
    }

    fn explain_to(&self, demand: Option<&Demand>, lines_max: usize) -> Explanation {
        let me = framework("me");
        let role = self.frameworks.iter().find(|(id, ..)| *id == me).map_or_else(Role::default, |(_, role, _)| role.clone());
        let condition = demand.map(|demand| Condition::parse(&demand.condition).expect("a condition"));
        let mut seeker = Seeker {
            framework: &me,
            name: None,
            gone_ms: None,
            is_suppressed: false,
            is_sated: false,
            tasks: 7,
            offers: 0,
            offers_max: 16,
            offered_tasks: 0,
            offer_age_ms: 0,
            refused: self.refusals.of(&me),
        };
        (self.spoiled)(&mut seeker);
        let agents = self.hosts.iter().map(|(id, host, attrs, away)| Place { agent: id, host, away: *away, account: self.ledger.account(id), lent: None, attrs, kept_for: self.kept_for.as_ref() }).collect();
        let stakes = self.frameworks.iter().map(|(id, role, name)| Stake { framework: id, name: name.as_ref(), role, held: self.ledger.held_by(id) }).collect();
        let case = Case {
            now_ms: 1_000,
            role: &role,
            demand,
            condition: condition.as_ref(),
            seeker: Some(seeker),
            agents,
            policies: &self.policies,
            stakes,
            held: Vec::new(),
            free: self.ledger.cluster_free(),
            books: &ByNumber,
        };
        explain(&case, lines_max)
    }
}

/// The reasons, agent by agent.
fn reasons(explanation: &Explanation) -> String {
    let mut words = Vec::new();
    for line in &explanation.agents {
        words.push(serde_json::to_string(&line.reason).expect("a word").trim_matches('"').to_owned());
    }
    words.join(" ")
}

/// Shows each reason of an agent, and that of two the earlier one is told: a clause before size, size before what is held.
#[test]
fn one_reason_for_each_agent() {
    let mut world = World::new(&[
        "a1 cpus=1,mem=1G rack=r1",
        "a2 cpus=8,mem=8G rack=r2",
        "a3 cpus=2,mem=8G rack=r1",
        "a4 cpus=8,mem=8G rack=r1",
        "a5 cpus=8,mem=8G rack=r1",
        "a6 cpus=8,mem=8G rack=r1",
        "a7 cpus=8,mem=8G rack=r1",
        "a8 cpus=8,mem=8G rack=r1",
    ])
    .task("t3", "a4", "f1", "cpus=6,mem=1G")
    .offer("o5", "a5", "f2", "cpus=6,mem=1G");
    world.refusals.add(&framework("me"), &agent("a6"), parse_total("cpus=8,mem=8G").expect("a total"), 9_000, 500);
    world.hosts[0].3 = Some(Reason::Unreachable);
    world.hosts[7].3 = Some(Reason::Recovering);
    let explanation = world.explain(Some(&wish("cpus=4,mem=512M", 3, "attr.rack == r1")));
    assert_eq!(reasons(&explanation), "unreachable condition too_small busy offered refused fits recovering");
    let at = |place: usize| &explanation.agents[place];
    assert_eq!(at(1).clause, "attr.rack == r1");
    assert_eq!(at(2).lacks, [Shortfall { name: "cpus".to_owned(), need: Milli::units(4), have: Milli::units(2) }]);
    let held = |amount: u64| Quantities::of(&parse_total(&format!("cpus={amount}")).expect("a total"));
    let name = |id: &str| Name::parse(&format!("name_of_{id}")).ok();
    assert_eq!(at(3).holders, [Holder { framework: framework("f1"), name: name("f1"), offered: false, count: 1, held: held(6), age_ms: 180_000 }]);
    assert_eq!(at(4).holders, [Holder { framework: framework("f2"), name: name("f2"), offered: true, count: 1, held: held(6), age_ms: 5_000 }]);
    assert_eq!(at(5).refused_ms, 8_500);
    assert_eq!(explanation.obstacles, [Obstacle::Turn { share: Milli::ZERO, fair_share: Milli::units(1) }]);
    let on = Demand { on: Some("h7".to_owned()), ..wish("cpus=4,mem=512M", 3, "attr.rack == r2") };
    assert_eq!(reasons(&world.explain(Some(&on))), "unreachable other_agent other_agent other_agent other_agent other_agent condition recovering");
    world.kept_for = Some(framework("f9"));
    assert_eq!(world.explain(Some(&wish("cpus=4", 3, ""))).agents[6].reason, Reason::KeptFor);
    world.kept_for = Some(framework("me"));
    assert_eq!(world.explain(Some(&wish("cpus=4", 3, ""))).agents[6].reason, Reason::Fits);
}

/// Shows the counts: the largest first, where it fits last, each kind that is missing with the nearest miss.
#[test]
fn counts_and_the_nearest_miss() {
    let world = World::new(&["a1 cpus=4,mem=16G", "a2 cpus=4,mem=48G", "a3 cpus=64,mem=8G", "a4 cpus=64,mem=64G", "a5 cpus=64,mem=64G rack=r1"]);
    let explanation = world.explain(Some(&wish("cpus=8,mem=60G", 1, "")));
    let shown: Vec<(Reason, u32)> = explanation.counts.iter().map(|count| (count.reason, count.agents)).collect();
    assert_eq!(shown, [(Reason::TooSmall, 3), (Reason::Fits, 2)]);
    let miss = |name: &str, agents, need: &str, most: &str, id: &str| {
        let amount = |text: &str| crate::resources::parse_size(text).expect(text);
        let (need, most) = if name == "mem" { (amount(need), amount(most)) } else { (Milli::parse(need).expect(need), Milli::parse(most).expect(most)) };
        Miss { name: name.to_owned(), agents, need, most, agent: agent(id), host: id.replace('a', "h") }
    };
    assert_eq!(explanation.counts[0].lacks, [miss("mem", 3, "60G", "48G", "a2"), miss("cpus", 2, "8", "4", "a1")]);
    let explanation = world.explain(Some(&wish("cpus=1", 1, "cpus >= 32 && attr.rack == r1")));
    let shown: Vec<(&str, u32)> = explanation.counts.iter().map(|count| (count.clause.as_str(), count.agents)).collect();
    assert_eq!(shown, [("attr.rack == r1", 2), ("cpus >= 32", 2), ("", 1)]);
}

/// Shows that one who takes all that is free is told of agents with nothing worth an offer, and of none else.
#[test]
fn whole_agents() {
    let world = World::new(&["a1 cpus=4,mem=1G", "a2 cpus=4,mem=1G"]).task("t1", "a1", "f1", "cpus=4,mem=1000M");
    let explanation = world.explain(Some(&wish("", 1, "")));
    assert_eq!(reasons(&explanation), "busy fits");
    assert_eq!(explanation.agents[0].lacks.len(), 2);
}

/// Shows what concerns the framework itself, and that the agents are looked at only where that could help.
#[test]
fn the_framework_itself() {
    let demand = wish("cpus=1", 3, "");
    type Case = (fn(&mut Seeker<'_>), Obstacle, usize);
    let cases: [Case; 7] = [
        (|seeker| seeker.gone_ms = Some(5), Obstacle::NotConnected { age_ms: 5 }, 0),
        (|seeker| seeker.is_suppressed = true, Obstacle::Suppressed {}, 1),
        (|seeker| seeker.is_sated = true, Obstacle::Sated {}, 1),
        (|seeker| (seeker.offers, seeker.offer_age_ms) = (16, 9), Obstacle::OpenMax { offers: 16, age_ms: 9 }, 1),
        (|seeker| (seeker.offers, seeker.offered_tasks, seeker.offer_age_ms) = (2, 3, 9), Obstacle::Offered { offers: 2, age_ms: 9 }, 0),
        (|seeker| (seeker.offers, seeker.offered_tasks) = (2, 2), Obstacle::Turn { share: Milli::ZERO, fair_share: Milli::units(1) }, 1),
        (|_| {}, Obstacle::Turn { share: Milli::ZERO, fair_share: Milli::units(1) }, 1),
    ];
    for (spoiled, obstacle, lines) in cases {
        let world = World { spoiled, ..World::new(&["a1 cpus=4,mem=1G"]) };
        let explanation = world.explain(Some(&demand));
        assert_eq!((explanation.obstacles, explanation.agents.len()), (vec![obstacle], lines));
    }
    let idle = World::new(&["a1 cpus=4,mem=1G"]).explain(None);
    assert_eq!((idle.obstacles, idle.agents.len(), idle.agents_left_out), (vec![Obstacle::WantsNothing { tasks: 7 }], 0, 0));
    assert_eq!(World::new(&[]).explain(Some(&demand)).obstacles, [Obstacle::NoAgents {}]);
}

/// Shows that a limit at any level is told with its holder, and counts what the whole subtree holds, offered or used.
#[test]
fn limits() {
    let world = World::new(&["a1 cpus=16,mem=16G"])
        .framework("me", "eng/x")
        .framework("f1", "eng/y")
        .framework("f2", "engine")
        .task("t1", "a1", "f1", "cpus=3")
        .offer("o1", "a1", "f1", "cpus=2")
        .task("t2", "a1", "f2", "cpus=5")
        .policy("eng", "", "cpus=8,gpus=1")
        .policy("eng/x:me", "", "mem=1G");
    let limit = |subject: &str, name: &str, held, limit, need| Obstacle::Limit {
        subject: Subject::parse(subject).expect(subject),
        name: name.to_owned(),
        held: Milli::units(held),
        limit: Milli::units(limit),
        need: Milli::units(need),
    };
    assert_eq!(world.explain(Some(&wish("cpus=4,mem=2G", 1, ""))).obstacles, [limit("eng", "cpus", 5, 8, 4), limit("eng/x:me", "mem", 0, 1024, 2048)]);
    assert!(matches!(world.explain(Some(&wish("cpus=3,mem=1G", 1, ""))).obstacles[..], [Obstacle::Turn { .. }]));
    // Who takes what there is takes memory where there are no cpus left.
    assert!(matches!(world.explain(Some(&wish("", 1, ""))).obstacles[..], [Obstacle::Turn { .. }]));
    let narrow = world.policy("eng", "", "cpus=5").policy("eng/x:me", "", "mem=16M");
    assert_eq!(narrow.explain(Some(&wish("", 1, ""))).obstacles.len(), 2);
}

/// Shows that what is free and kept back for others is told with whom it is kept for, and not told to these.
#[test]
fn guarantees() {
    let world = World::new(&["a1 cpus=16,mem=16G"])
        .framework("me", "ops")
        .framework("f1", "vip/a")
        .task("t1", "a1", "f1", "cpus=1")
        .task("t2", "a1", "me", "cpus=5")
        .policy("vip", "cpus=8", "")
        .policy("vip/a", "cpus=3", "")
        .policy("lab/b", "cpus=1", "");
    // Of the 10 free cpus 7 are kept for vip, of which vip/a is a part, and 1 for lab.
    let kept = |subject: &str, amount| Kept { subject: Subject::parse(subject).expect(subject), amount: Milli::units(amount) };
    let expected = Obstacle::Guaranteed { name: "cpus".to_owned(), free: Milli::units(10), kept_back: Milli::units(8), need: Milli::units(3), subjects: vec![kept("vip", 7), kept("lab", 1)] };
    assert_eq!(world.explain(Some(&wish("cpus=3", 1, ""))).obstacles, [expected]);
    assert!(matches!(world.explain(Some(&wish("cpus=2", 1, ""))).obstacles[..], [Obstacle::Turn { .. }]));
    let insider = World { frameworks: vec![(framework("me"), Role::parse("vip/c").expect("a role"), None), world.frameworks[1].clone()], ..world };
    let obstacles = insider.explain(Some(&wish("cpus=8", 1, ""))).obstacles;
    let [Obstacle::Guaranteed { kept_back, subjects, .. }] = &obstacles[..] else { panic!("{obstacles:?}") };
    assert_eq!((*kept_back, subjects.clone()), (Milli::units(3), vec![kept("vip/a", 2), kept("lab", 1)]));
    // A task larger than all that is free is none of their doing.
    let plain = World::new(&["a1 cpus=2,mem=1G"]).framework("me", "ops").explain(Some(&wish("cpus=9", 1, "")));
    assert!(!plain.obstacles.iter().any(|obstacle| matches!(obstacle, Obstacle::Guaranteed { .. })), "{:?}", plain.obstacles);
}

/// Shows that an answer about a large cluster stays bounded and counts what it does not tell, and that it survives being written and read.
#[test]
fn bounded() {
    let names: Vec<String> = (0..1_200).map(|place| format!("a{place:05} cpus=1,mem=1G")).collect();
    let world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let demand = wish("cpus=4,mem=2G,disk=1G,gpus=1,ports=2,licenses=3", 1, "");
    let explanation = world.explain(Some(&demand));
    assert_eq!((explanation.agents.len(), explanation.agents_left_out, explanation.counts[0].agents), (LINES_MAX, 700, 1_200));
    let text = serde_json::to_string(&explanation).expect("it has a JSON form");
    assert!(text.starts_with(r#"{"meso":"explain/1","about":"framework","framework":"me""#) && text.len() < crate::wire::MESSAGE_BYTES_MAX, "{} bytes", text.len());
    assert_eq!(serde_json::from_str::<Explanation>(&text).expect("it is read"), explanation);
    let short = world.explain_to(Some(&demand), 0);
    assert_eq!((short.agents.len(), short.agents_left_out), (0, 1_200));
}

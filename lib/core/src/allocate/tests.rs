mod laws;
mod room;

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::condition::parse_attrs;
use crate::resources::{parse_request, parse_total};

/// A snapshot that owns what it is made of.
#[derive(Clone, Debug, Default)]
struct World {
    rule: Rule,
    total: Option<Resources>,
    agents: Vec<Agent>,
    roles: Vec<Policy>,
    frameworks: Vec<Framework>,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Agent {
    id: AgentId,
    host: String,
    total: Resources,
    free: Resources,
    attrs: BTreeMap<String, Attr>,
    kept_for: Option<FrameworkId>,
}

#[derive(Clone, Debug, Default)]
struct Policy {
    role: Role,
    weight: Milli,
    priority: i64,
    guarantee: Option<Quantities>,
    limit: Option<BTreeMap<String, Milli>>,
}

#[derive(Clone, Debug)]
struct Framework {
    id: FrameworkId,
    role: Role,
    weight: Milli,
    priority: i64,
    guarantee: Option<Quantities>,
    limit: Option<BTreeMap<String, Milli>>,
    open: u32,
    served: u64,
    used: Quantities,
    demand: Option<Request>,
    count: u32,
    condition: Option<Condition>,
    on: Option<String>,
    refused: Refused,
    suppressed: bool,
}

impl World {
    /// Shows what it is to the allocator, or to whoever else wants to see it.
    fn shown<T>(&self, see: impl FnOnce(&Snapshot<'_>) -> T) -> T {
        let views = self.agents.iter().map(|agent| AgentView {
            place: Place { agent: &agent.id, total: &agent.total, free: &agent.free, kept_for: agent.kept_for.as_ref() },
            about: About { host: &agent.host, attrs: &agent.attrs },
        });
        let agents = in_order(views.collect());
        let mut total = Quantities::default();
        self.agents.iter().for_each(|agent| total.add(&agent.total).expect("small agents"));
        let roles = self.roles.iter().map(|policy| RoleView {
            role: &policy.role,
            weight: policy.weight,
            priority: policy.priority,
            guarantee: policy.guarantee.as_ref(),
            limit: policy.limit.as_ref(),
        });
        let frameworks = self.frameworks.iter().map(|framework| FrameworkView {
            framework: &framework.id,
            role: &framework.role,
            weight: framework.weight,
            priority: framework.priority,
            guarantee: framework.guarantee.as_ref(),
            limit: framework.limit.as_ref(),
            open: framework.open,
            served: framework.served,
            used: framework.used.clone(),
            demand: framework.demand.as_ref().map(|request| Demand { request, count: framework.count }),
            condition: framework.condition.as_ref(),
            on: framework.on.as_deref(),
            refused: Some(&framework.refused),
            suppressed: framework.suppressed,
            is_new: true,
        });
        let mut snapshot = Snapshot::of(&self.rule, &agents, roles.collect(), frameworks.collect(), self.seed).expect("small agents");
        snapshot.total = self.total.as_ref().map_or(total, Quantities::of);
        see(&snapshot)
    }

    /// Reads one line of `vectors.txt`.
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (kind, name) = (words.next().expect("a kind"), words.next().expect("a name"));
        let set = |text: &str| parse_total(text).expect(text);
        let pairs = words.map(|word| word.split_once('=').unwrap_or((word, "")));
        match kind {
            "total" => self.total = Some(set(name)),
            "rule" => self.rule = serde_json::from_value(name.into()).expect(name),
            "seed" => self.seed = name.parse().expect("a number"),
            "agent" => {
                let text = line.split(' ').nth(2).expect("resources");
                let mut agent = Agent { id: AgentId::parse(name).expect(name), host: String::new(), total: set(text), free: set(text), attrs: BTreeMap::new(), kept_for: None };
                for (key, value) in pairs.skip(1) {
                    match key {
                        "free" => agent.free = set(value),
                        "host" => agent.host = value.to_owned(),
                        "attrs" => agent.attrs = parse_attrs(value).expect(value),
                        "kept_for" => agent.kept_for = Some(FrameworkId::parse(value).expect(value)),
                        _ => panic!("{line}"),
                    }
                }
                self.agents.push(agent);
            }
            "role" => {
                let mut policy = Policy { role: Role::parse(name).expect(name), weight: Milli::units(1), ..Policy::default() };
                for (key, value) in pairs {
                    match key {
                        "weight" => policy.weight = Milli::parse(value).expect(value),
                        "priority" => policy.priority = value.parse().expect(value),
                        "guarantee" => policy.guarantee = Some(Quantities::of(&set(value))),
                        "limit" => policy.limit = Some(limits(value)),
                        _ => panic!("{line}"),
                    }
                }
                self.roles.push(policy);
            }
            "framework" => {
                let mut framework = idle(name);
                let mut refused = Vec::new();
                for (key, value) in pairs {
                    match key {
                        "role" => framework.role = Role::parse(value).expect(value),
                        "weight" => framework.weight = Milli::parse(value).expect(value),
                        "priority" => framework.priority = value.parse().expect(value),
                        "used" => framework.used = Quantities::of(&set(value)),
                        "demand" => framework.demand = Some(parse_request(value).expect(value)),
                        "count" => framework.count = value.parse().expect(value),
                        "where" => framework.condition = Some(Condition::parse(value).expect(value)),
                        "on" => framework.on = Some(value.to_owned()),
                        "served" => framework.served = value.parse().expect(value),
                        "open" => framework.open = value.parse().expect(value),
                        "guarantee" => framework.guarantee = Some(Quantities::of(&set(value))),
                        "limit" => framework.limit = Some(limits(value)),
                        "suppressed" => framework.suppressed = true,
                        "refused" => {
                            let (agent, what) = value.split_once(':').expect("agent:resources");
                            refused.push((AgentId::parse(agent).expect(agent), set(what)));
                        }
                        _ => panic!("{line}"),
                    }
                }
                framework.refused = refused.into_iter().collect();
                self.frameworks.push(framework);
            }
            _ => panic!("{line}"),
        }
    }
}

fn idle(name: &str) -> Framework {
    Framework {
        id: FrameworkId::parse(name).expect(name),
        role: Role::default(),
        weight: Milli::units(1),
        priority: 0,
        guarantee: None,
        limit: None,
        open: u32::MAX,
        served: 0,
        used: Quantities::default(),
        demand: None,
        count: 0,
        condition: None,
        on: None,
        refused: Refused::default(),
        suppressed: false,
    }
}

fn limits(text: &str) -> BTreeMap<String, Milli> {
    text.split(',').map(|item| item.split_once('=').expect(item)).map(|(kind, amount)| (kind.to_owned(), Milli::parse(amount).expect(amount))).collect()
}

/// What the allocator says, in the form of `vectors.txt`; the turns only if they are wanted.
fn said(world: &World, with_steps: bool) -> String {
    let (grants, steps) = world.shown(trace);
    let mut text = String::new();
    for step in steps.iter().filter(|_| with_steps) {
        let _ = writeln!(text, "{} {} {}", step.framework, step.agent, step.after);
    }
    for grant in grants {
        let _ = writeln!(text, "= {} {} {} {}", grant.framework, grant.agent, grant.tasks, grant.resources);
    }
    text
}

/// Shows, on the examples of the DRF paper and on one small cluster per rule, who is served in which
/// order and what everybody ends up with.
#[test]
fn vectors() {
    for case in include_str!("vectors.txt").split("\n\n").skip(1) {
        let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>();
        let (given, wanted) = case.split_once("----").expect(case);
        let mut world = World::default();
        lines(given).lines().for_each(|line| world.read(line));
        let wanted = lines(wanted.trim_start());
        let (wanted, with_steps) = wanted.strip_prefix("...\n").map_or((wanted.as_str(), true), |grants| (grants, false));
        assert_eq!(said(&world, with_steps), wanted, "{given}");
    }
}

/// Shows that a demand for crumbs on a large cluster ends at the bound of turns instead of holding up the rest.
#[test]
fn a_pass_is_bounded() {
    let mut world = World::default();
    world.read("agent a1 cpus=1000000");
    world.read(&format!("framework A demand=cpus=0.001 count={}", u32::MAX));
    let grants = world.shown(allocate);
    assert_eq!(grants.len(), 1);
    assert_eq!(grants[0].tasks as usize, TURNS_MAX);
}

/// Shows that amounts at the edge of what can be counted neither overflow nor upset the order.
#[test]
fn huge_amounts_are_exact() {
    let mut world = World::default();
    world.read("agent a1 cpus=4,mem=1000000000000");
    world.read("framework A demand=cpus=1,mem=333333333333.333 count=9 weight=100000");
    world.read("framework B demand=cpus=1,mem=333333333333.333 count=9 weight=0.001");
    assert_eq!(said(&world, false), "= A a1 2 cpus=2,mem=666666666666.666\n= B a1 1 cpus=1,mem=333333333333.333\n");
}

fn some_world() -> impl Strategy<Value = World> {
    let agent = (1..9u64, 0..9u64, 0..9u64, 0..9u64, 0..5u16);
    let request = (0..4u64, 0..4u64, 0..3u32, prop_oneof![4 => Just(""), 1 => Just(",port_ranges=[2]")]);
    let framework = (proptest::option::weighted(0.8, (request, 0..6u32)), 0..4usize, 0..5u64, 1..4u64, 0..2i64, proptest::collection::vec((0..6u8, 0..4u64), 0..3), 0..9u8);
    let policy = (1..4u64, proptest::option::of(0..9u64), proptest::option::of(0..9u64));
    let agents = proptest::collection::vec(agent, 0..6);
    let frameworks = proptest::collection::vec(framework, 0..6);
    (agents, frameworks, proptest::option::of(proptest::collection::vec(policy, 4)), any::<u64>()).prop_map(|(agents, frameworks, policies, seed)| {
        let roles = ["default", "eng", "eng/x", "ops"];
        let mut world = World { seed, ..World::default() };
        for (number, (cpus, mem, free_cpus, free_mem, ports)) in agents.into_iter().enumerate() {
            world.read(&format!("agent a{number} cpus={cpus},mem={},ports=[1-9] free=cpus={},mem={},ports=[{}-9]", mem * 20, free_cpus.min(cpus), free_mem.min(mem) * 20, ports + 1));
        }
        for (role, (weight, limit, guarantee)) in roles.iter().zip(policies.into_iter().flatten()) {
            let limit = limit.map_or(String::new(), |limit| format!(" limit=cpus={limit}"));
            let guarantee = guarantee.map_or(String::new(), |guarantee| format!(" guarantee=cpus={guarantee}"));
            world.read(&format!("role {role} weight={weight}{limit}{guarantee}"));
        }
        for (number, (demand, role, used, weight, priority, refused, state)) in frameworks.into_iter().enumerate() {
            let demand = demand.map_or(String::new(), |((cpus, mem, ports, named), count)| format!(" demand=cpus={cpus},mem={},ports={ports}{named} count={count}", mem * 20));
            let refused: String = refused.into_iter().map(|(agent, cpus)| format!(" refused=a{agent}:cpus={cpus},mem=40,ports=[1-5]")).collect();
            let suppressed = match state {
                0 => " suppressed",
                1 => " limit=cpus=3",
                _ => "",
            };
            world.read(&format!("framework f{number} role={} used=cpus={used} weight={weight} priority={priority}{demand}{refused}{suppressed}", roles[role]));
        }
        world
    })
}

/// What a role and all below it hold, of one kind, after the grants.
fn held(world: &World, grants: &[Grant], role: &Role, kind: &str) -> u64 {
    let within = |other: &Role| other == role || other.as_str().starts_with(&format!("{role}/"));
    let used = world.frameworks.iter().filter(|framework| within(&framework.role)).map(|framework| share::thousandths(framework.used.get(kind)));
    let given = grants.iter().filter(|grant| within(&grant.role)).map(|grant| tree::amount_of(&grant.resources, kind));
    used.chain(given).sum()
}

proptest! {
    /// Shows what holds for every snapshot: grants are part of what is free, nothing is given twice,
    /// tasks are whole, at most as many as asked for, none is given to who does not want or refused it,
    /// no limit is passed, and the same snapshot gives the same grants.
    #[test]
    fn every_grant_is_sound(world in some_world()) {
        let grants = world.shown(allocate);
        prop_assert_eq!(&grants, &world.shown(allocate));
        let mut free: BTreeMap<&AgentId, Resources> = world.agents.iter().map(|agent| (&agent.id, agent.free.clone())).collect();
        let mut pairs = BTreeSet::new();
        let mut tasks: BTreeMap<&FrameworkId, u32> = BTreeMap::new();
        for grant in &grants {
            let left = free[&grant.agent].checked_sub(&grant.resources);
            prop_assert!(left.is_some(), "{:?} is not free", grant);
            free.extend(world.agents.iter().filter(|agent| agent.id == grant.agent).map(|agent| &agent.id).zip(left));
            prop_assert!(pairs.insert((&grant.framework, &grant.agent)), "two grants of one agent");
            let framework = world.frameworks.iter().find(|framework| framework.id == grant.framework).expect("known");
            prop_assert!(!framework.suppressed && !framework.refused.covers(&grant.agent, &grant.resources));
            prop_assert_eq!(&framework.role, &grant.role);
            match &framework.demand {
                None => prop_assert_eq!(grant.tasks, 0),
                Some(request) => {
                    let whole = request.times(grant.tasks.into()).expect("as many were given");
                    prop_assert_eq!(Quantities::of(&grant.resources), Quantities::of(&whole.take(&world.agents.iter().find(|agent| agent.id == grant.agent).expect("known").free).expect("it was free")));
                    *tasks.entry(&grant.framework).or_default() += grant.tasks;
                    prop_assert!(grant.tasks > 0 && tasks[&grant.framework] <= framework.count);
                }
            }
        }
        for policy in &world.roles {
            let Some(limit) = policy.limit.as_ref().map(|limit| share::thousandths(limit["cpus"])) else { continue };
            let (before, after) = (held(&world, &[], &policy.role, "cpus"), held(&world, &grants, &policy.role, "cpus"));
            prop_assert!(after <= limit.max(before), "{} holds {after} of {limit}", policy.role);
        }
        for framework in &world.frameworks {
            let Some(limit) = framework.limit.as_ref().map(|limit| share::thousandths(limit["cpus"])) else { continue };
            let before = share::thousandths(framework.used.get("cpus"));
            let given: u64 = grants.iter().filter(|grant| grant.framework == framework.id).map(|grant| share::thousandths(grant.resources.cpus)).sum();
            prop_assert!(before + given <= limit.max(before), "{} holds {} of {limit}", framework.id, before + given);
        }
    }

    /// Shows that what is guaranteed to others is never given away: what is free in the end covers what
    /// the top-level roles still lack, or no less than before.
    #[test]
    fn guarantees_are_kept_back(world in some_world()) {
        let grants = world.shown(allocate);
        let lacks = |grants: &[Grant]| -> u64 {
            let top = world.roles.iter().filter(|policy| !policy.role.as_str().contains('/'));
            top.map(|policy| {
                let lack = |policy: &Policy| policy.guarantee.as_ref().map_or(0, |amounts| share::thousandths(amounts.get("cpus")).saturating_sub(held(&world, grants, &policy.role, "cpus")));
                let below: u64 = world.roles.iter().filter(|sub| sub.role.as_str().starts_with(&format!("{}/", policy.role))).map(lack).sum();
                lack(policy).max(below)
            }).sum()
        };
        let free: u64 = world.agents.iter().map(|agent| share::thousandths(agent.free.cpus)).sum();
        let given: u64 = grants.iter().map(|grant| share::thousandths(grant.resources.cpus)).sum();
        let short = |lacking: u64, free: u64| lacking.saturating_sub(free);
        prop_assert!(short(lacks(&grants), free - given) <= short(lacks(&[]), free));
    }

    /// Shows fairness turn by turn, among frameworks of one role and priority: whoever is served, nobody
    /// with less share over weight could have been; and in the end nobody is left who could be.
    #[test]
    fn the_poorest_who_fits_is_served(mut world in some_world()) {
        world.roles.clear();
        for framework in &mut world.frameworks {
            framework.role = Role::default();
            framework.priority = 0;
            framework.limit = None;
            framework.refused = Refused::default();
        }
        let whole = world.shown(|snapshot| share::Tally::of(&snapshot.total));
        let mut free: Vec<Resources> = world.agents.iter().map(|agent| agent.free.clone()).collect();
        let mut held: Vec<share::Tally> = world.frameworks.iter().map(|framework| share::Tally::of(&framework.used)).collect();
        let mut left: Vec<u32> = world.frameworks.iter().map(|framework| framework.count).collect();
        let share = |place: usize, held: &[share::Tally]| held[place].share(&whole, share::thousandths(world.frameworks[place].weight));
        let could_be_served = |place: usize, free: &[Resources], left: &[u32]| {
            let framework = &world.frameworks[place];
            !framework.suppressed && match &framework.demand {
                Some(request) => left[place] > 0 && !request.is_empty() && free.iter().any(|free| request.fits(free)),
                None => free.iter().any(is_worth_offering),
            }
        };
        let (_, steps) = world.shown(trace);
        for step in steps {
            let served = world.frameworks.iter().position(|framework| framework.id == step.framework).expect("known");
            let agent = world.agents.iter().position(|agent| agent.id == step.agent).expect("known");
            for other in 0..world.frameworks.len() {
                let passed_over = could_be_served(other, &free, &left) && share(other, &held) < share(served, &held);
                prop_assert!(!passed_over, "{} was served before {}", step.framework, world.frameworks[other].id);
            }
            free[agent] = free[agent].checked_sub(&step.resources).expect("free");
            held[served].add(&step.resources);
            left[served] = left[served].saturating_sub(1);
        }
        for place in 0..world.frameworks.len() {
            prop_assert!(!could_be_served(place, &free, &left), "{} was left out", world.frameworks[place].id);
        }
    }

    /// Shows that the order of the agents, roles and frameworks in the snapshot does not matter, only their names.
    #[test]
    fn the_order_of_lines_does_not_matter(world in some_world()) {
        let mut turned = world.clone();
        turned.agents.reverse();
        turned.roles.reverse();
        turned.frameworks.reverse();
        prop_assert_eq!(world.shown(allocate), turned.shown(allocate));
    }
}

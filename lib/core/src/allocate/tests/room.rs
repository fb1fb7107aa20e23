//! Whom [`plan`] may choose, on random clusters: checked without the search's own arithmetic.

use proptest::prelude::*;

use super::*;

/// Somebody's task of some cpus on the one agent.
#[derive(Clone, Debug)]
struct Task {
    id: crate::id::TaskId,
    framework: usize,
    resources: Resources,
    age: u64,
    revocable: bool,
    ending: bool,
}

fn some_tenancy() -> impl Strategy<Value = (World, Vec<Task>, u64)> {
    let task = (0..4usize, 1..4u64, 0..100u64, proptest::bool::weighted(0.15), proptest::bool::weighted(0.1));
    let framework = (0..4usize, 1..4u64, 0..3u32, proptest::option::weighted(0.3, 1..8u64));
    let guarantees = proptest::collection::vec(proptest::option::weighted(0.3, 1..8u64), 4);
    (proptest::collection::vec(task, 0..8), proptest::collection::vec(framework, 4), guarantees, 1..8u64).prop_map(|(tasks, frameworks, guarantees, wants)| {
        let roles = ["default", "eng", "eng/x", "ops"];
        let mut world = World::default();
        let tasks: Vec<Task> = tasks
            .into_iter()
            .enumerate()
            .map(|(number, (framework, cpus, age, revocable, ending))| Task {
                id: crate::id::TaskId::fresh(number as u64),
                framework,
                resources: parse_total(&format!("cpus={cpus}")).expect("cpus"),
                age,
                revocable,
                ending,
            })
            .collect();
        let used = |framework: usize| tasks.iter().filter(|task| task.framework == framework).map(|task| task.resources.cpus.whole_units()).sum::<u64>();
        let all: u64 = (0..4).map(used).sum();
        world.read(&format!("agent a1 cpus={} free=cpus={}", all.max(10), all.max(10) - all));
        for (role, guarantee) in roles.iter().zip(guarantees) {
            if let Some(guarantee) = guarantee {
                world.read(&format!("role {role} guarantee=cpus={guarantee}"));
            }
        }
        for (number, (role, weight, count, guarantee)) in frameworks.into_iter().enumerate() {
            let request = if number == 0 { wants } else { 1 };
            let guarantee = guarantee.map_or(String::new(), |guarantee| format!(" guarantee=cpus={guarantee}"));
            let count = if number == 0 { count + 1 } else { count };
            world.read(&format!("framework f{number} role={} weight={weight} used=cpus={} demand=cpus={request} count={count}{guarantee}", roles[role], used(number)));
        }
        (world, tasks, wants)
    })
}

/// What the first framework is to have done for it.
fn planned(world: &World, tasks: &[Task], may_revoke: bool) -> Option<Plan> {
    world.shown(|snapshot| {
        let tenants = tasks.iter().map(|task| Tenant {
            kind: TenantKind::Task(&task.id),
            framework: task.framework,
            resources: &task.resources,
            age: task.age,
            revocable: task.revocable,
            ending: task.ending,
        });
        let agent = &world.agents[0];
        let view = AgentView { place: Place { agent: &agent.id, total: &agent.total, free: &agent.free, kept_for: None }, about: About { host: &agent.host, attrs: &agent.attrs } };
        plan(snapshot, 0, &[(view, tenants.collect())], may_revoke)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Shows that those who go make the room that is wanted and no more of them go than need to; that nobody who was at
    /// its guarantee falls below it; that a framework's tasks that are to end are its newest; that without leave only
    /// revocable ones go; and that nobody goes for what cannot be.
    #[test]
    fn only_who_may_goes((world, tasks, wants) in some_tenancy(), may_revoke in any::<bool>()) {
        let Some(plan) = planned(&world, &tasks, may_revoke) else { return Ok(()) };
        let goes = |task: &&Task| plan.tasks.contains(&task.id) || plan.revocable.contains(&task.id);
        let gone: Vec<&Task> = tasks.iter().filter(goes).collect();
        prop_assert!(may_revoke || plan.tasks.is_empty());
        prop_assert!(gone.iter().all(|task| !task.ending));
        prop_assert!(gone.iter().all(|task| task.revocable == plan.revocable.contains(&task.id)));
        prop_assert!(plan.tasks.iter().all(|id| tasks.iter().any(|task| task.id == *id && task.framework != 0)));
        let cpus = |tasks: &mut dyn Iterator<Item = &Task>| tasks.map(|task| task.resources.cpus.whole_units()).sum::<u64>();
        let comes = world.agents[0].free.cpus.whole_units() + cpus(&mut tasks.iter().filter(|task| task.ending));
        let room = comes + cpus(&mut gone.iter().copied());
        if gone.is_empty() {
            prop_assert!(plan.missing_ppm == 0 || room < wants);
        } else {
            prop_assert!(plan.missing_ppm == 0 && room >= wants);
            prop_assert!(gone.iter().all(|task| room - task.resources.cpus.whole_units() < wants), "somebody went for nothing");
        }
        // Every role and framework that the starving one is not part of.
        let guaranteed = |amount: &Option<Quantities>| amount.as_ref().map(|amounts| amounts.get("cpus").whole_units());
        let within = |framework: usize, role: &Role| { let own = &world.frameworks[framework].role; own == role || own.as_str().starts_with(&format!("{role}/")) };
        let lost = |is_part: &dyn Fn(usize) -> bool| cpus(&mut tasks.iter().filter(|task| plan.tasks.contains(&task.id) && is_part(task.framework)));
        let used = |is_part: &dyn Fn(usize) -> bool| (0..4).filter(|framework| is_part(*framework)).map(|framework| world.frameworks[framework].used.get("cpus").whole_units()).sum::<u64>();
        for policy in &world.roles {
            let part = |framework: usize| within(framework, &policy.role);
            let Some(promised) = guaranteed(&policy.guarantee).filter(|_| !part(0)) else { continue };
            prop_assert!(lost(&part) == 0 || used(&part) - lost(&part) >= promised, "{} falls below {promised}", policy.role);
        }
        for framework in 1..4 {
            let part = |other: usize| other == framework;
            let Some(promised) = guaranteed(&world.frameworks[framework].guarantee) else { continue };
            prop_assert!(lost(&part) == 0 || used(&part) - lost(&part) >= promised, "f{framework} falls below {promised}");
        }
    }
}

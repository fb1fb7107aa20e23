//! A cluster made up for one pass of the policy: agents with two thirds of their processors in use, and frameworks.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use meso_core::allocate::{About, AgentView, Demand, FrameworkView, Place, Rule, Snapshot, allocate};
use meso_core::condition::Attr;
use meso_core::filter::Refused;
use meso_core::id::{AgentId, FrameworkId};
use meso_core::resources::{Milli, Quantities, Request, Resources, parse_request, parse_total};
use meso_core::role::Role;
use meso_core::wire::pass::GrantLine;

use crate::clock::{median, ms_since};

/// What each agent has.
pub const TOTAL: &str = "cpus=24,mem=4096,disk=4096,ports=[31000-32000]";
/// What tasks leave of it.
const FREE: &str = "cpus=8,mem=4096,disk=4096,ports=[31000-32000]";
/// What tasks hold on each agent, processors.
const USED_CPUS: u64 = 16;
/// How often each pass is measured.
const ROUNDS: u64 = 9;
/// The demand of those who have one, and how many tasks of it are a backlog that ends.
const TASK: &str = "cpus=1";
const BACKLOG: u32 = 10;
/// Beyond this many refusals a pass is not measured with them: it is twice what Mesos's allocator reached in ten minutes,
/// and four times what a leader keeps.
const REFUSALS_MAX: u64 = 2_000_000;

/// See the module.
pub struct Prepared {
    agents: Vec<AgentId>,
    total: Resources,
    free: Resources,
    attrs: BTreeMap<String, Attr>,
    frameworks: Vec<(FrameworkId, Role, Quantities)>,
    refused: Vec<Refused>,
    task: Request,
}

/// Whether all frameworks are of one role, or each of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    One,
    Each,
}

/// What all frameworks want.
#[derive(Clone, Copy)]
enum Wish {
    /// All that is left of an agent.
    Remainders,
    /// So many tasks.
    Tasks(u32),
}

/// What one pass took, medians, milliseconds.
#[derive(serde::Serialize)]
pub struct Passes {
    pub agents: u64,
    pub frameworks: u64,
    pub roles: &'static str,
    /// Whole agents for everybody.
    pub pass_ms: f64,
    /// The grants of that pass as JSON lines.
    pub json_ms: f64,
    pub json_bytes: usize,
    pub grants: usize,
    /// Ten tasks for everybody.
    pub backlog_ms: f64,
    /// As many tasks as there is room for, or as one pass makes.
    pub endless_ms: f64,
    pub endless_tasks: u64,
    /// Whole agents for everybody, and everybody refused every agent: nothing to offer.
    pub refused_ms: Option<f64>,
}

impl Roles {
    pub fn name(self) -> &'static str {
        match self {
            Roles::One => "one",
            Roles::Each => "each",
        }
    }
}

impl Prepared {
    pub fn new(agents: u64, frameworks: u64, roles: Roles) -> Prepared {
        let framework = |number: u64| {
            let held = (0..agents).filter(|agent| agent % frameworks == number).count() as u64 * USED_CPUS;
            let mut used = Quantities::default();
            used.set("cpus", Milli::units(held));
            let role = if roles == Roles::One { "default".to_owned() } else { format!("role{number}") };
            (framework_id(number), Role::parse(&role).expect("a role"), used)
        };
        Prepared {
            agents: (0..agents).map(agent_id).collect(),
            total: parse_total(TOTAL).expect("resources"),
            free: parse_total(FREE).expect("resources"),
            attrs: BTreeMap::new(),
            frameworks: (0..frameworks).map(framework).collect(),
            refused: Vec::new(),
            task: parse_request(TASK).expect("a request"),
        }
    }

    /// Measures all kinds of passes.
    pub fn measure(mut self, roles: Roles) -> Passes {
        let pairs = (self.agents.len() * self.frameworks.len()) as u64;
        let (pass_ms, json_ms, json_bytes, grants, _) = self.rounds(Wish::Remainders);
        let (backlog_ms, ..) = self.rounds(Wish::Tasks(BACKLOG));
        let (endless_ms, .., endless_tasks) = self.rounds(Wish::Tasks(u32::MAX));
        let refused_ms = (pairs <= REFUSALS_MAX).then(|| {
            self.refuse_all();
            let (ms, _, _, grants, _) = self.rounds(Wish::Remainders);
            assert_eq!(grants, 0, "what was refused is not offered");
            ms
        });
        Passes {
            agents: self.agents.len() as u64,
            frameworks: self.frameworks.len() as u64,
            roles: roles.name(),
            pass_ms,
            json_ms,
            json_bytes,
            grants,
            backlog_ms,
            endless_ms,
            endless_tasks,
            refused_ms,
        }
    }

    /// Milliseconds of a pass and of its lines, bytes of these, grants, tasks.
    fn rounds(&self, wish: Wish) -> (f64, f64, usize, usize, u64) {
        let order = (0..self.agents.len()).map(|at| self.agent(at)).collect::<Vec<_>>();
        let rule = Rule::Drf;
        let (mut passes, mut lines) = (Vec::new(), Vec::new());
        let (mut bytes, mut count, mut tasks) = (0, 0, 0);
        for seed in 0..ROUNDS {
            let frameworks = (0..self.frameworks.len()).map(|at| self.framework(at, wish)).collect();
            let snapshot = Snapshot::of(&rule, &order, Vec::new(), frameworks, seed * 1_000).expect("it can be counted");
            let begun = Instant::now();
            let grants = allocate(black_box(&snapshot));
            passes.push(ms_since(begun));
            (count, tasks) = (grants.len(), grants.iter().map(|grant| u64::from(grant.tasks)).sum());
            let begun = Instant::now();
            let mut text = Vec::new();
            for grant in grants {
                serde_json::to_writer(&mut text, &GrantLine(grant)).expect("a grant has a JSON form");
                text.push(b'\n');
            }
            lines.push(ms_since(begun));
            bytes = black_box(text).len();
        }
        (median(passes), median(lines), bytes, count, tasks)
    }

    /// Each framework has refused all that each agent has, each in a list of its own.
    fn refuse_all(&mut self) {
        let all = || self.agents.iter().map(|agent| (agent.clone(), self.total.clone())).collect();
        self.refused = self.frameworks.iter().map(|_| all()).collect();
    }

    fn agent(&self, at: usize) -> AgentView<'_> {
        let agent = &self.agents[at];
        AgentView { place: Place { agent, total: &self.total, free: &self.free, kept_for: None }, about: About { host: agent.as_str(), attrs: &self.attrs } }
    }

    fn framework(&self, at: usize, wish: Wish) -> FrameworkView<'_> {
        let (framework, role, used) = &self.frameworks[at];
        FrameworkView {
            framework,
            role,
            weight: Milli::units(1),
            priority: 0,
            guarantee: None,
            limit: None,
            served: 0,
            used: used.clone(),
            demand: match wish {
                Wish::Remainders => None,
                Wish::Tasks(count) => Some(Demand { request: &self.task, count }),
            },
            condition: None,
            on: None,
            refused: self.refused.get(at),
            open: u32::MAX,
            suppressed: false,
            is_new: true,
        }
    }
}

pub fn agent_id(number: u64) -> AgentId {
    AgentId::parse(&format!("agent_{number:010}")).expect("an id")
}

pub fn framework_id(number: u64) -> FrameworkId {
    FrameworkId::parse(&format!("fw_{number:010}")).expect("an id")
}

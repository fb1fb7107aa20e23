//! What a policy says to one snapshot: `step/1` for each turn, `grant/1` for each grant, and `allocated/1` to close it

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::allocate::{self, Grant, Proposal, Rule, Share, Step};
use crate::id::{AgentId, FrameworkId};
use crate::json::{BadJson, Limits, read_within};
use crate::resources::{Milli, Quantities, Resources};
use crate::role::Role;
use crate::wire::snapshot::{Snapshot, lean_entries};

/// The longest line of a policy that is a program, in bytes: room for an `allocated/1` with some 50,000 frameworks.
pub const SAID_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most JSON values in such a line, as [`Limits::elements`] counts them.
pub const SAID_ELEMENTS_MAX: usize = 2_000_000;

/// Shares are shown as decimals of this many parts of one.
const SHARE_PARTS: f64 = 1_000_000.0;

/// One pass of a policy over one snapshot, told.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The turns, if they were wanted.
    pub steps: Vec<StepLine>,
    /// Who is given what, in the order in which it was decided.
    pub grants: Vec<GrantLine>,
    /// The end of it.
    pub closing: Allocated,
}

/// `step/1`: one turn, in which one framework is given one task's worth, or all that is left of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct StepLine {
    /// From 1.
    pub step: usize,
    /// Who was served.
    pub framework: FrameworkId,
    /// Its role.
    pub role: Role,
    /// Where.
    pub agent: AgentId,
    /// With what; in JSON `cpus`, `mem` and so on, beside the other keys.
    pub resources: Resources,
    /// How the framework stood before.
    pub before: Standing,
    /// How it stands now.
    pub after: Standing,
    /// What all frameworks hold together now.
    pub allocated: Quantities,
    /// What there is.
    pub total: Quantities,
}

/// `grant/1`: resources of one agent for one framework.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantLine(pub Grant);

/// A line of a policy that is a program, read; keys that are not known are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "meso")]
pub enum Said {
    /// It would give something.
    #[serde(rename = "grant/1")]
    Grant(Proposal),
    /// How it came to that; means nothing here.
    #[serde(rename = "step/1")]
    Step,
    /// That was all to the last snapshot.
    #[serde(rename = "allocated/1")]
    Closed,
}

impl Said {
    /// Reads one line.
    ///
    /// # Errors
    /// It is not one of these lines, or too large.
    pub fn read(line: &[u8]) -> Result<Said, BadJson> {
        read_within(line, Limits { bytes: SAID_BYTES_MAX, elements: SAID_ELEMENTS_MAX, ..Limits::default() })
    }
}

/// How much of the cluster somebody holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// What that is.
    pub used: Quantities,
    /// By kind, which part of all that there is, from 0 to 1; ports, and what there is nothing of, are left out.
    pub shares: BTreeMap<String, f64>,
    /// The kind of the largest share; none if all are 0.
    pub dominant: Option<String>,
    /// The largest share.
    pub share: f64,
    /// The largest share over the weight, as a fraction such as `2/9`: by this, exactly, who is next is chosen.
    pub weighted: String,
}

/// `allocated/1`: how everybody stands after a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Allocated {
    /// Always `allocated/1`.
    pub meso: &'static str,
    /// The policy's name.
    pub policy: String,
    /// How many grants there were.
    pub grants: usize,
    /// How many tasks these are; a grant without a demand counts as none.
    pub tasks: u64,
    /// What there is.
    pub total: Quantities,
    /// What all frameworks hold together.
    pub allocated: Quantities,
    /// What is still free.
    pub free: Quantities,
    /// Each framework of the snapshot, in its order there.
    pub frameworks: Vec<FrameworkStanding>,
    /// Each role of the snapshot or of a framework, and each above one of these, by name.
    pub roles: Vec<RoleStanding>,
}

/// How a framework stands after a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FrameworkStanding {
    /// Its id.
    pub framework: FrameworkId,
    /// Its role.
    pub role: Role,
    /// Its weight.
    pub weight: Milli,
    /// How many tasks it was given.
    pub tasks: u64,
    /// How many more it asked for.
    pub unmet: u64,
    /// How it stands.
    pub standing: Standing,
}

/// How a role, with all below it, stands after a pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleStanding {
    /// Its path.
    pub role: Role,
    /// Its weight.
    pub weight: Milli,
    /// How it stands.
    pub standing: Standing,
}

impl Pass {
    /// Runs one of the master's own policies over a snapshot.
    ///
    /// `seed` says where in the order of the agents to begin, and where lots come from.
    pub fn run(snapshot: &Snapshot, rule: &Rule, seed: u64, with_steps: bool) -> Pass {
        let (grants, steps) = snapshot.with_view(rule, seed, |view| if with_steps { allocate::trace(view) } else { (allocate::allocate(view), Vec::new()) });
        Pass::told(snapshot, rule.name(), grants, &steps)
    }

    /// Tells what a policy of that name decided on a snapshot.
    pub fn told(snapshot: &Snapshot, policy: &str, grants: Vec<Grant>, steps: &[Step]) -> Pass {
        let total = snapshot.total();
        let steps = tell_steps(snapshot, steps, &total);
        let closing = Allocated::after(snapshot, policy, &grants, total);
        Pass { steps, grants: grants.into_iter().map(GrantLine).collect(), closing }
    }
}

/// Goes through the turns again, and notes how everybody stands on the way.
fn tell_steps(snapshot: &Snapshot, steps: &[Step], total: &Quantities) -> Vec<StepLine> {
    let known: BTreeMap<&FrameworkId, (&Role, Milli)> = snapshot.frameworks.iter().map(|framework| (&framework.framework, (&framework.role, framework.weight))).collect();
    let mut held: BTreeMap<&FrameworkId, Quantities> = snapshot.frameworks.iter().map(|framework| (&framework.framework, framework.used.clone())).collect();
    let mut allocated = Quantities::default();
    held.values().for_each(|used| raise(&mut allocated, used));
    let mut lines = Vec::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        let (Some(used), Some((role, weight))) = (held.get_mut(&step.framework), known.get(&step.framework)) else { continue };
        let given = Quantities::of(&step.resources);
        let before = Standing::of(used.clone(), total, *weight);
        raise(used, &given);
        raise(&mut allocated, &given);
        lines.push(StepLine {
            step: place + 1,
            framework: step.framework.clone(),
            role: (*role).clone(),
            agent: step.agent.clone(),
            resources: step.resources.clone(),
            before,
            after: Standing::of(used.clone(), total, *weight),
            allocated: allocated.clone(),
            total: total.clone(),
        });
    }
    lines
}

impl Allocated {
    fn after(snapshot: &Snapshot, policy: &str, grants: &[Grant], total: Quantities) -> Allocated {
        let mut given: BTreeMap<&FrameworkId, (Quantities, u64)> = BTreeMap::new();
        let mut free = snapshot.free();
        let mut allocated = Quantities::default();
        for grant in grants {
            let (sum, tasks) = given.entry(&grant.framework).or_default();
            raise(sum, &Quantities::of(&grant.resources));
            *tasks += u64::from(grant.tasks);
            // A grant is part of what is free; a policy that gave more than that is not told so here.
            free.sub(&grant.resources).unwrap_or_default();
        }
        let mut roles: BTreeMap<Role, (Milli, Quantities)> = snapshot.roles.iter().map(|role| (role.role.clone(), (role.weight, Quantities::default()))).collect();
        let mut frameworks = Vec::with_capacity(snapshot.frameworks.len());
        for framework in &snapshot.frameworks {
            let (sum, tasks) = given.remove(&framework.framework).unwrap_or_default();
            let mut used = framework.used.clone();
            raise(&mut used, &sum);
            raise(&mut allocated, &used);
            for role in line_of(&framework.role) {
                raise(&mut roles.entry(role).or_insert_with(|| (Milli::units(1), Quantities::default())).1, &used);
            }
            let wanted = framework.demand.as_ref().filter(|_| !framework.suppressed).map_or(0, |demand| u64::from(demand.count));
            frameworks.push(FrameworkStanding {
                framework: framework.framework.clone(),
                role: framework.role.clone(),
                weight: framework.weight,
                tasks,
                unmet: wanted.saturating_sub(tasks),
                standing: Standing::of(used, &total, framework.weight),
            });
        }
        let roles = roles.into_iter().map(|(role, (weight, used))| RoleStanding { role, weight, standing: Standing::of(used, &total, weight) }).collect();
        let tasks = grants.iter().map(|grant| u64::from(grant.tasks)).sum();
        Allocated { meso: "allocated/1", policy: policy.to_owned(), grants: grants.len(), tasks, total, allocated, free, frameworks, roles }
    }
}

impl Standing {
    fn of(used: Quantities, total: &Quantities, weight: Milli) -> Standing {
        let part = |kind: &str, amount: Milli| Share::dominant(&Quantities::from_iter([(kind.to_owned(), used.get(kind))]), &Quantities::from_iter([(kind.to_owned(), amount)]));
        let mut most = (None, Share::NONE);
        let mut shares = BTreeMap::new();
        for (kind, amount) in total.iter().filter(|(kind, _)| *kind != "ports") {
            let share = part(kind, amount);
            shares.insert(kind.to_owned(), decimal(share));
            if share > most.1 {
                most = (Some(kind.to_owned()), share);
            }
        }
        Standing { used, shares, dominant: most.0, share: decimal(most.1), weighted: most.1.over(weight).to_string() }
    }
}

/// A role and all above it, the deepest first.
fn line_of(role: &Role) -> impl Iterator<Item = Role> {
    std::iter::successors(Some(role.clone()), |role| {
        let (above, _) = role.as_str().rsplit_once('/')?;
        Role::parse(above).ok()
    })
}

/// Beyond what can be counted a sum stays at the most there can be.
fn raise(sum: &mut Quantities, more: &Quantities) {
    for (kind, amount) in more.iter() {
        sum.set(kind, sum.get(kind).checked_add(amount).unwrap_or(Milli::MAX));
    }
}

fn decimal(share: Share) -> f64 {
    (share.as_f64() * SHARE_PARTS).round() / SHARE_PARTS
}

impl Serialize for StepLine {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        map.serialize_entry("meso", "step/1")?;
        map.serialize_entry("step", &self.step)?;
        map.serialize_entry("framework", &self.framework)?;
        map.serialize_entry("role", &self.role)?;
        map.serialize_entry("agent", &self.agent)?;
        lean_entries(&mut map, &self.resources)?;
        map.serialize_entry("before", &self.before)?;
        map.serialize_entry("after", &self.after)?;
        map.serialize_entry("allocated", &self.allocated)?;
        map.serialize_entry("total", &self.total)?;
        map.end()
    }
}

impl Serialize for GrantLine {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        map.serialize_entry("meso", "grant/1")?;
        map.serialize_entry("framework", &self.0.framework)?;
        map.serialize_entry("role", &self.0.role)?;
        map.serialize_entry("agent", &self.0.agent)?;
        lean_entries(&mut map, &self.0.resources)?;
        map.serialize_entry("tasks", &self.0.tasks)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper: A's tasks take 1 cpu and 4 GB, B's 3 cpus and 1 GB, of 9 cpus and 18 GB.
    const PAPER: &str = r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":9,"mem":18432,"free":{"cpus":9,"mem":18432},"attrs":{}}],"frameworks":[
        {"framework":"A","role":"eng","demand":{"cpus":1,"mem":4096,"count":100}},{"framework":"B","role":"eng","demand":{"cpus":3,"mem":1024,"count":100}}]}"#;

    fn text(line: &impl Serialize) -> String {
        serde_json::to_string(line).expect("it has a JSON form")
    }

    /// Shows the table of the DRF paper (NSDI 2011, section 4.2): each turn with the shares and the sums, and the grants
    /// in the form of the contract.
    #[test]
    fn the_table_of_the_paper() {
        let snapshot = Snapshot::read(PAPER.as_bytes()).expect("a snapshot");
        let pass = Pass::run(&snapshot, &Rule::Drf, 0, true);
        let turns: Vec<String> = pass
            .steps
            .iter()
            .map(|step| {
                let kind = step.after.dominant.as_deref().unwrap_or("-");
                format!("{} {} {} {} | {} {}", step.step, step.framework, step.after.weighted, kind, step.allocated.get("cpus"), step.allocated.get("mem"))
            })
            .collect();
        assert_eq!(turns, ["1 A 2/9 mem | 1 4096", "2 B 1/3 cpus | 4 5120", "3 A 4/9 mem | 5 9216", "4 B 2/3 cpus | 8 10240", "5 A 2/3 mem | 9 14336"]);
        assert_eq!((pass.steps[2].before.share, pass.steps[2].after.share), (0.222_222, 0.444_444));
        let grants: Vec<String> = pass.grants.iter().map(text).collect();
        assert_eq!(
            grants,
            [
                r#"{"meso":"grant/1","framework":"A","role":"eng","agent":"a1","cpus":3,"mem":12288,"tasks":3}"#,
                r#"{"meso":"grant/1","framework":"B","role":"eng","agent":"a1","cpus":6,"mem":2048,"tasks":2}"#
            ]
        );
        let closing = text(&pass.closing);
        for part in [
            r#"{"meso":"allocated/1","policy":"drf","grants":2,"tasks":5,"total":{"cpus":9,"mem":18432},"allocated":{"cpus":9,"mem":14336},"free":{"mem":4096},"#,
            r#"{"framework":"A","role":"eng","weight":1,"tasks":3,"unmet":97,"standing":{"used":{"cpus":3,"mem":12288},"shares":{"cpus":0.333333,"mem":0.666667},"dominant":"mem","share":0.666667,"weighted":"2/3"}}"#,
            r#""roles":[{"role":"eng","weight":1,"standing":{"used":{"cpus":9,"mem":14336},"shares":{"cpus":1.0,"mem":0.777778},"dominant":"cpus","share":1.0,"weighted":"1"}}]"#,
        ] {
            assert!(closing.contains(part), "{part} in {closing}");
        }
        assert!(text(&pass.steps[0]).starts_with(r#"{"meso":"step/1","step":1,"framework":"A","role":"eng","agent":"a1","cpus":1,"mem":4096,"before":{"used":{},"#));
    }

    /// Shows that a role stands for all below it, that a role above that nobody named is there, and that weights are in
    /// the fraction and not in the share.
    #[test]
    fn roles_are_sums() {
        let line = r#"{"meso":"snapshot/1","agents":[{"agent":"a1","cpus":10,"free":{"cpus":4}}],"roles":[{"role":"eng/x","weight":2},{"role":"idle"}],"frameworks":[
            {"framework":"f1","role":"eng/x","weight":4,"used":{"cpus":2},"suppressed":true},{"framework":"f2","role":"eng","used":{"cpus":4,"licenses":3}}]}"#;
        let pass = Pass::run(&Snapshot::read(line.as_bytes()).expect("a snapshot"), &Rule::Drf, 0, false);
        let roles: Vec<String> = pass.closing.roles.iter().map(|role| format!("{} {} {}", role.role, role.standing.share, role.standing.weighted)).collect();
        assert_eq!(roles, ["eng 1 1", "eng/x 0.2 1/10", "idle 0 0"]);
        assert_eq!(pass.closing.frameworks[0].standing.weighted, "1/20");
        assert!(pass.steps.is_empty());
        assert_eq!(pass.grants.iter().map(|grant| grant.0.tasks).collect::<Vec<_>>(), [0], "all that is free, to who named no demand");
    }
}

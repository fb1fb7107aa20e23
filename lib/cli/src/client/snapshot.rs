//! A snapshot of the cluster as people see it: what is free where, and who wants how much
use crate::{Column, Listing, Row};
use meso_core::resources::{Milli, Quantities};
use meso_core::wire::snapshot::{Agent, Framework, RolePolicy, Snapshot};

const AGENT_COLUMNS: [Column; 10] = [
    Column::id("AGENT", "agent"),
    Column::text("HOST", "host"),
    Column::text("ACTIVE", "active"),
    Column::number("CPUS", "cpus"),
    Column::number("FREE", "free_cpus"),
    Column::mib("MEM", "mem"),
    Column::mib("FREE", "free_mem"),
    Column::text("TOTAL", "total").wide(),
    Column::text("FREE", "free").wide(),
    Column::text("ATTRS", "attrs").wide(),
];

const ROLE_COLUMNS: [Column; 5] =
    [Column::id("ROLE", "role"), Column::number("WEIGHT", "weight"), Column::number("PRIORITY", "priority"), Column::text("GUARANTEE", "guarantee"), Column::text("LIMIT", "limit")];

const FRAMEWORK_COLUMNS: [Column; 11] = [
    Column::id("FRAMEWORK", "framework"),
    Column::text("ROLE", "role"),
    Column::number("WEIGHT", "weight"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::number("WANTS", "wants"),
    Column::text("EACH", "each"),
    Column::number("REFUSED", "refused"),
    Column::number("PRIORITY", "priority").wide(),
    Column::text("WHERE", "where").wide(),
    Column::text("ON", "on").wide(),
];

/// The tables of a snapshot: its agents, its roles if somebody gave one a policy, its frameworks.
pub fn snapshot_listings(snapshot: &Snapshot) -> Vec<Listing> {
    let agents = Listing { columns: AGENT_COLUMNS.to_vec(), rows: snapshot.agents.iter().map(agent_row).collect() };
    let roles = Listing { columns: ROLE_COLUMNS.to_vec(), rows: snapshot.roles.iter().map(role_row).collect() };
    let frameworks = Listing { columns: FRAMEWORK_COLUMNS.to_vec(), rows: snapshot.frameworks.iter().map(framework_row).collect() };
    let has_roles = !roles.rows.is_empty();
    [agents].into_iter().chain(has_roles.then_some(roles)).chain([frameworks]).collect()
}

fn agent_row(agent: &Agent) -> Row {
    let attrs: Vec<String> = agent.attrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Row::default()
        .with("agent", &agent.agent)
        .with("host", &agent.host)
        .with("active", if agent.active { "yes" } else { "no" })
        .with("cpus", agent.total.cpus)
        .with("free_cpus", agent.free.cpus)
        .with("mem", agent.total.mem)
        .with("free_mem", agent.free.mem)
        .with("total", agent.total.to_string())
        .with("free", agent.free.to_string())
        .with("attrs", attrs.join(","))
}

fn role_row(role: &RolePolicy) -> Row {
    let limit = role.limit.as_ref().map(|limit| amounts(limit.iter().map(|(kind, amount)| (kind.as_str(), *amount))));
    Row::default().with("role", &role.role).with("weight", role.weight).with("priority", role.priority).with("guarantee", role.guarantee.as_ref().map(|sum| amounts(Quantities::iter(sum)))).with("limit", limit)
}

fn framework_row(framework: &Framework) -> Row {
    // One that wants nothing at all is told from one that takes whatever there is.
    let (wants, each) = match &framework.demand {
        _ if framework.suppressed => (Some(0), None),
        Some(demand) => (Some(demand.count), Some(demand.request.to_string())),
        None => (None, Some("all that is free".to_owned())),
    };
    Row::default()
        .with("framework", &framework.framework)
        .with("role", &framework.role)
        .with("weight", framework.weight)
        .with("cpus", framework.used.get("cpus"))
        .with("mem", framework.used.get("mem"))
        .with("wants", wants)
        .with("each", each)
        .with("refused", framework.refused.len())
        .with("priority", framework.priority)
        .with("where", framework.condition.to_string())
        .with("on", &framework.on)
}

fn amounts<'a>(kinds: impl Iterator<Item = (&'a str, Milli)>) -> String {
    kinds.map(|(kind, amount)| format!("{kind}={amount}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, Look};

    /// Shows the tables as people see them: who is not active, who wants nothing, who takes all, and what roles may have.
    #[test]
    fn the_tables() {
        let line = br#"{"meso":"snapshot/1","agents":[{"agent":"a1","host":"h1","cpus":9,"mem":18432,"free":{"cpus":1.5,"mem":512},"attrs":{"rack":"r1"}},{"agent":"a2","free":{},"active":false}],
            "roles":[{"role":"eng","weight":2,"limit":{"cpus":8,"gpus":0}}],
            "frameworks":[{"framework":"f1","role":"eng","demand":{"cpus":1,"mem":4096,"count":7},"refused":[{"agent":"a1","cpus":1}]},{"framework":"f2","suppressed":true,"used":{"cpus":7.5}},{"framework":"f3"}]}"#;
        let snapshot = Snapshot::read(line).expect("a snapshot");
        let look = Look { width: None, bold: false, now_ms: 0 };
        let tables: Vec<String> = snapshot_listings(&snapshot).iter().map(|listing| listing.render(&Format::Table, look).expect("it has a form")).collect();
        assert_eq!(
            tables,
            [
                "AGENT  HOST  ACTIVE  CPUS  FREE  MEM  FREE\na1     h1    yes        9   1.5  18G  512M\na2     -     no         0     0   0M    0M\n",
                "ROLE  WEIGHT  PRIORITY  GUARANTEE  LIMIT\neng        2         0  -          cpus=8,gpus=0\n",
                "FRAMEWORK  ROLE     WEIGHT  CPUS  MEM  WANTS  EACH              REFUSED\n\
                 f1         eng           1     0   0M      7  cpus=1,mem=4096         1\n\
                 f2         default       1   7.5   0M      0  -                       0\n\
                 f3         default       1     0   0M      -  all that is free        0\n",
            ]
        );
        let wide = snapshot_listings(&snapshot)[0].render(&Format::Wide, look).expect("it has a form");
        assert!(wide.contains("rack=r1") && wide.contains("cpus=9,mem=18432"), "{wide}");
    }
}

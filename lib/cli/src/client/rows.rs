//! What the leader's tables look like in a listing: flat objects, and the columns people see of them
use crate::client::task_exit;
use crate::{Column, Row};
use meso_core::duration::rfc3339;
use meso_core::resources::{Milli, Quantities, Resources};
use meso_core::wire::Update;
use meso_core::policy::{Policy, Subject};
use meso_core::wire::query::{AgentRow, FrameworkRow, MasterRow, OfferRow, RoleRow};
use serde_json::{Map, Value};

/// The columns of tasks.
pub const TASK_COLUMNS: [Column; 15] = [
    Column::id("ID", "id"),
    Column::text("NAME", "name"),
    Column::text("STATE", "state"),
    Column::text("HOST", "host"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::age("AGE", "started_ms"),
    Column::number("EXIT", "code"),
    Column::text("REASON", "reason").wide(),
    Column::text("FRAMEWORK", "framework").wide(),
    Column::text("ROLE", "role").wide(),
    Column::text("PRINCIPAL", "principal").wide(),
    Column::text("AGENT", "agent").wide(),
    Column::age("SINCE", "ts_ms").wide(),
    Column::text("COMMAND", "command").wide(),
];

/// The columns of agents.
pub const AGENT_COLUMNS: [Column; 18] = [
    Column::id("ID", "id"),
    Column::text("HOST", "host"),
    Column::text("STATE", "state"),
    Column::age("HEARD", "heard_ms"),
    Column::number("TASKS", "tasks"),
    Column::number("CPUS", "cpus"),
    Column::number("FREE", "free.cpus"),
    Column::mib("MEM", "mem"),
    Column::mib("FREE", "free.mem"),
    Column::mib("DISK", "disk").wide(),
    Column::number("GPUS", "gpus").wide(),
    Column::number("LENT", "lent.cpus").wide(),
    Column::number("FREE", "lent_free.cpus").wide(),
    Column::mib("LENT", "lent.mem").wide(),
    Column::mib("FREE", "lent_free.mem").wide(),
    Column::text("ISOLATION", "isolation").wide(),
    Column::text("VERSION", "version").wide(),
    Column::text("ATTRS", "attrs").wide(),
];

/// The columns of frameworks.
pub const FRAMEWORK_COLUMNS: [Column; 19] = [
    Column::id("ID", "id"),
    Column::text("NAME", "name"),
    Column::text("ROLE", "role"),
    Column::text("STATE", "state"),
    Column::number("SHARE", "share"),
    Column::number("FAIR", "fair_share"),
    Column::number("WEIGHT", "weight"),
    Column::number("PRIO", "priority"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::number("TASKS", "tasks"),
    Column::number("WANTS", "wants"),
    Column::lasts("WAITS", "waits_ms"),
    Column::amounts("GUARANTEE", "guarantee").wide(),
    Column::amounts("LIMIT", "limit").wide(),
    Column::amounts("OFFERED", "offered").wide(),
    Column::age("AGE", "since_ms").wide(),
    Column::text("PRINCIPAL", "principal").wide(),
    Column::text("WHO", "who").wide(),
];

/// The columns of roles.
pub const ROLE_COLUMNS: [Column; 13] = [
    Column::id("ROLE", "id"),
    Column::number("WEIGHT", "weight"),
    Column::number("PRIO", "priority"),
    Column::number("SHARE", "share"),
    Column::number("FAIR", "fair_share"),
    Column::amounts("GUARANTEE", "guarantee"),
    Column::amounts("LIMIT", "limit"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::number("FRAMEWORKS", "frameworks"),
    Column::mib("DISK", "disk").wide(),
    Column::number("GPUS", "gpus").wide(),
    Column::amounts("OFFERED", "offered").wide(),
];

/// The columns of offers.
pub const OFFER_COLUMNS: [Column; 11] = [
    Column::id("ID", "id"),
    Column::text("HOLDER", "holder"),
    Column::text("WHO", "who"),
    Column::text("HOST", "host"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::age("AGE", "since_ms"),
    Column::text("REVOCABLE", "revocable").wide(),
    Column::text("FRAMEWORK", "framework").wide(),
    Column::text("AGENT", "agent").wide(),
    Column::mib("DISK", "disk").wide(),
];

/// The columns of masters.
pub const MASTER_COLUMNS: [Column; 6] = [
    Column::id("ID", "id"),
    Column::text("HOST", "host"),
    Column::text("STATE", "state"),
    Column::number("EPOCH", "epoch"),
    Column::age("AGE", "since_ms"),
    Column::text("VERSION", "version").wide(),
];

/// A task, by its latest status.
pub fn task_row(update: &Update) -> Row {
    let row = Row::of("task/1")
        .with("id", &update.task)
        .with("task", &update.task)
        .with("name", &update.name)
        .with("state", update.state)
        .with("final", update.is_final)
        .with("reason", &update.reason)
        .with("message", &update.message)
        .with("exit", update.exit)
        .with("signal", update.signal)
        .with("code", update.is_final.then(|| task_exit(update).code()))
        .with("framework", &update.framework)
        .with("principal", &update.principal)
        .with("role", &update.role)
        .with("agent", &update.agent)
        .with("host", &update.host);
    with_resources(row, &update.resources)
        .with("command", &update.command)
        .with("stdout_bytes", update.stdout_bytes)
        .with("stderr_bytes", update.stderr_bytes)
        .with("mem_peak_bytes", update.mem_peak_bytes)
        .with("cpu_ms", update.cpu_ms)
        .with("seq", update.seq)
        .with("started", (update.started_ms > 0).then(|| rfc3339(update.started_ms)))
        .with("started_ms", update.started_ms)
        .with("ts", &update.ts)
        .with("ts_ms", update.ts_ms)
}

/// An agent; its flat amounts are all that it has.
pub fn agent_row(agent: &AgentRow, now_ms: u64) -> Row {
    let heard_ms = now_ms.saturating_sub(agent.silent_ms);
    let row = Row::of("agent/1").with("id", &agent.id).with("agent", &agent.id).with("host", &agent.host).with("state", &agent.state).with("tasks", agent.tasks);
    with_resources(row, &agent.total)
        .with("free", amounts(&agent.free))
        .with("offered", amounts(&agent.offered))
        .with("used", amounts(&agent.used))
        .with("lent", amounts(&agent.lent))
        .with("lent_free", amounts(&agent.lent_free))
        .with("attrs", &agent.attrs)
        .with("isolation", &agent.isolation)
        .with("version", &agent.version)
        .with("heard", rfc3339(heard_ms))
        .with("heard_ms", heard_ms)
}

/// A framework; its flat amounts are what its tasks hold.
pub fn framework_row(framework: &FrameworkRow, now_ms: u64) -> Row {
    let since_ms = now_ms.saturating_sub(framework.age_ms);
    let row = Row::of("framework/1")
        .with("id", &framework.id)
        .with("framework", &framework.id)
        .with("name", &framework.name)
        .with("role", &framework.role)
        .with("principal", &framework.principal)
        .with("state", &framework.state)
        .with("who", &framework.who)
        .with("share", framework.share)
        .with("fair_share", framework.fair_share);
    with_quantities(with_policy(row, &framework.policy), &framework.used)
        .with("offered", quantities(&framework.offered))
        .with("tasks", framework.tasks)
        .with("wants", framework.wants)
        .with("waits_ms", framework.waits_ms)
        .with("since", rfc3339(since_ms))
        .with("since_ms", since_ms)
}

/// A role, or a framework with a policy of its own; its flat amounts are what is held in it and below.
pub fn role_row(role: &RoleRow) -> Row {
    let framework = match &role.subject {
        Subject::Role(_) => None,
        Subject::Framework(_, name) => Some(name),
    };
    let row = Row::of("role/1")
        .with("id", &role.subject)
        .with("role", role.subject.role())
        .with("framework", framework)
        .with("set", role.is_set)
        .with("share", role.share)
        .with("fair_share", role.fair_share);
    with_quantities(with_policy(row, &role.policy), &role.used).with("offered", quantities(&role.offered)).with("frameworks", role.frameworks)
}

/// An offer that is out.
pub fn offer_row(offer: &OfferRow, now_ms: u64) -> Row {
    let since_ms = now_ms.saturating_sub(offer.age_ms);
    let holder = offer.framework_name.as_ref().map_or(offer.framework.as_str(), |name| name.as_str());
    let row = Row::of("offer/1")
        .with("id", &offer.id)
        .with("framework", &offer.framework)
        .with("framework_name", &offer.framework_name)
        .with("holder", holder)
        .with("who", &offer.who)
        .with("agent", &offer.agent)
        .with("host", &offer.host);
    with_resources(row, &offer.resources).with("revocable", offer.revocable).with("since", rfc3339(since_ms)).with("since_ms", since_ms)
}

/// A master.
pub fn master_row(master: &MasterRow, now_ms: u64) -> Row {
    let since_ms = now_ms.saturating_sub(master.age_ms);
    Row::of("master/1")
        .with("id", &master.id)
        .with("host", &master.host)
        .with("state", &master.state)
        .with("epoch", master.epoch)
        .with("version", &master.version)
        .with("since", rfc3339(since_ms))
        .with("since_ms", since_ms)
}

fn with_resources(row: Row, resources: &Resources) -> Row {
    let row = row
        .with("cpus", resources.cpus)
        .with("mem", resources.mem)
        .with("disk", resources.disk)
        .with("gpus", resources.gpus)
        .with("ports", resources.ports.len())
        .with("port_ranges", &resources.ports);
    resources.other.iter().fold(row, |row, (kind, amount)| row.with(kind, amount))
}

/// What an operator says of somebody.
fn with_policy(row: Row, policy: &Policy) -> Row {
    row.with("weight", policy.weight).with("priority", policy.priority).with("guarantee", quantities(&policy.guarantee)).with("limit", &policy.limit)
}

/// The built-in kinds, zeros included, and what else there is.
fn with_quantities(row: Row, held: &Quantities) -> Row {
    const BUILT_IN: [&str; 5] = ["cpus", "mem", "disk", "gpus", "ports"];
    let row = BUILT_IN.iter().fold(row, |row, kind| row.with(kind, held.get(kind)));
    held.iter().filter(|(kind, _)| !BUILT_IN.contains(kind)).fold(row, |row, (kind, amount)| row.with(kind, amount))
}

/// Amounts by kind as an object, zeros included.
fn amounts(resources: &Resources) -> Map<String, Value> {
    resources.scalars().map(|(kind, amount)| (kind.to_owned(), number(amount))).collect()
}

fn quantities(quantities: &Quantities) -> Map<String, Value> {
    quantities.iter().map(|(kind, amount)| (kind.to_owned(), number(amount))).collect()
}

fn number(amount: Milli) -> Value {
    serde_json::to_value(amount).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::{role, update};
    use crate::{Format, Listing};
    use meso_core::task::TaskState;
    use serde_json::json;

    /// Shows that a task's row begins with its kind, is flat, and leaves no number out.
    #[test]
    fn a_task() {
        let mut ended = update("task_1", TaskState::Failed);
        (ended.exit, ended.reason) = (Some(3), Some("exit".to_owned()));
        ended.resources.cpus = Milli::parse("0.5").expect("an amount");
        let row = task_row(&ended);
        let text = serde_json::to_string(&row).expect("it has a JSON form");
        assert!(text.starts_with(r#"{"meso":"task/1","id":"task_1","task":"task_1","name":"web","state":"failed","final":true,"reason":"exit""#), "{text}");
        for part in [r#""exit":3,"signal":null,"code":3"#, r#""cpus":0.5,"mem":0,"disk":0,"gpus":0,"ports":0,"port_ranges":[]"#, r#""ts_ms":2000"#] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let running = task_row(&update("task_1", TaskState::Running));
        assert_eq!(running.field("code"), None);
    }

    /// Shows the table of tasks as people see it, with a foreign name that tries to be more than a name.
    #[test]
    fn the_table_of_tasks() {
        let mut hostile = update("task_2", TaskState::Running);
        hostile.host = "h\u{1b}[2J\n".to_owned();
        let listing = Listing { columns: TASK_COLUMNS.to_vec(), rows: vec![task_row(&update("task_1", TaskState::Killed)), task_row(&hostile)] };
        let look = crate::Look { width: None, bold: false, now_ms: 61_000 };
        let table = listing.render(&Format::Table, look).expect("it has a form");
        assert_eq!(
            table,
            "ID      NAME  STATE    HOST             CPUS  MEM  AGE  EXIT\n\
             task_1  web   killed   host1               0   0M  1m    125\n\
             task_2  web   running  h\\u{1b}[2J\\u{a}     0   0M  1m      -\n"
        );
        let wide = listing.render(&Format::Wide, look).expect("it has a form");
        assert!(wide.lines().next().is_some_and(|heading| heading.ends_with("COMMAND")), "{wide}");
    }

    /// Shows roles as people see them, with a limit of nothing, and that programs get every amount by its key.
    #[test]
    fn roles() {
        let amount = |text: &str| Milli::parse(text).expect("an amount");
        let mut eng = role("eng");
        (eng.is_set, eng.policy.weight, eng.policy.priority, eng.frameworks) = (true, amount("2.5"), -3, 4);
        eng.policy.guarantee.set("mem", amount("8192"));
        eng.policy.limit.insert("gpus".to_owned(), Milli::ZERO);
        eng.used.set("cpus", amount("1.5"));
        eng.used.set("licenses", amount("2"));
        (eng.share, eng.fair_share) = (amount("0.25"), amount("0.5"));
        let listing = Listing { columns: ROLE_COLUMNS.to_vec(), rows: vec![role_row(&eng), role_row(&role("eng:nightly"))] };
        let table = listing.render(&Format::Table, crate::Look { width: None, bold: false, now_ms: 0 }).expect("it has a form");
        assert_eq!(
            table,
            "ROLE         WEIGHT  PRIO  SHARE  FAIR  GUARANTEE  LIMIT   CPUS  MEM  FRAMEWORKS\n\
             eng             2.5    -3   0.25   0.5  mem=8G     gpus=0   1.5   0M           4\n\
             eng:nightly       1     0      0     0  -          -          0   0M           0\n"
        );
        let text = serde_json::to_value(role_row(&eng)).expect("it has a JSON form");
        assert_eq!(
            text,
            json!({"meso":"role/1","id":"eng","role":"eng","framework":null,"set":true,"share":0.25,"fair_share":0.5,"weight":2.5,"priority":-3,"guarantee":{"mem":8192},"limit":{"gpus":0},
                "cpus":1.5,"mem":0,"disk":0,"gpus":0,"ports":0,"licenses":2,"offered":{},"frameworks":4})
        );
        let framework = role_row(&role("eng:nightly"));
        assert_eq!((framework.field("role"), framework.field("framework")), (Some(&json!("eng")), Some(&json!("nightly"))));
    }
}

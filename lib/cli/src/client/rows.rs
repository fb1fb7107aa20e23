//! What the leader's tables look like in a listing: flat objects, and the columns people see of them
use crate::client::task_exit;
use crate::{Column, Row};
use meso_core::duration::rfc3339;
use meso_core::resources::{Milli, Quantities, Resources};
use meso_core::wire::Update;
use meso_core::wire::query::{AgentRow, FrameworkRow, MasterRow, OfferRow};
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
pub const AGENT_COLUMNS: [Column; 14] = [
    Column::id("ID", "id"),
    Column::text("HOST", "host"),
    Column::text("STATE", "state"),
    Column::number("TASKS", "tasks"),
    Column::number("CPUS", "cpus"),
    Column::number("FREE", "free.cpus"),
    Column::mib("MEM", "mem"),
    Column::mib("FREE", "free.mem"),
    Column::mib("DISK", "disk").wide(),
    Column::number("GPUS", "gpus").wide(),
    Column::age("HEARD", "heard_ms").wide(),
    Column::text("ISOLATION", "isolation").wide(),
    Column::text("VERSION", "version").wide(),
    Column::text("ATTRS", "attrs").wide(),
];

/// The columns of frameworks.
pub const FRAMEWORK_COLUMNS: [Column; 12] = [
    Column::id("ID", "id"),
    Column::text("NAME", "name"),
    Column::text("ROLE", "role"),
    Column::text("STATE", "state"),
    Column::number("SHARE", "share"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::number("TASKS", "tasks"),
    Column::number("WANTS", "wants"),
    Column::age("AGE", "since_ms"),
    Column::text("PRINCIPAL", "principal").wide(),
    Column::text("WHO", "who").wide(),
];

/// The columns of offers.
pub const OFFER_COLUMNS: [Column; 8] = [
    Column::id("ID", "id"),
    Column::text("FRAMEWORK", "framework"),
    Column::text("HOST", "host"),
    Column::number("CPUS", "cpus"),
    Column::mib("MEM", "mem"),
    Column::age("AGE", "since_ms"),
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
        .with("attrs", &agent.attrs)
        .with("isolation", &agent.isolation)
        .with("version", &agent.version)
        .with("heard", rfc3339(heard_ms))
        .with("heard_ms", heard_ms)
}

/// A framework; its flat amounts are what its tasks hold.
pub fn framework_row(framework: &FrameworkRow, now_ms: u64) -> Row {
    let since_ms = now_ms.saturating_sub(framework.age_ms);
    let used = &framework.used;
    Row::of("framework/1")
        .with("id", &framework.id)
        .with("framework", &framework.id)
        .with("name", &framework.name)
        .with("role", &framework.role)
        .with("principal", &framework.principal)
        .with("state", &framework.state)
        .with("who", &framework.who)
        .with("share", framework.share)
        .with("cpus", used.get("cpus"))
        .with("mem", used.get("mem"))
        .with("disk", used.get("disk"))
        .with("gpus", used.get("gpus"))
        .with("ports", used.get("ports"))
        .with("offered", quantities(&framework.offered))
        .with("tasks", framework.tasks)
        .with("wants", framework.wants)
        .with("since", rfc3339(since_ms))
        .with("since_ms", since_ms)
}

/// An offer that is out.
pub fn offer_row(offer: &OfferRow, now_ms: u64) -> Row {
    let since_ms = now_ms.saturating_sub(offer.age_ms);
    let row = Row::of("offer/1").with("id", &offer.id).with("framework", &offer.framework).with("agent", &offer.agent).with("host", &offer.host);
    with_resources(row, &offer.resources).with("since", rfc3339(since_ms)).with("since_ms", since_ms)
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
    use crate::client::sample::update;
    use crate::{Format, Listing};
    use meso_core::task::TaskState;

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
}

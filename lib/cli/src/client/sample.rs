//! Statuses and roles made up for tests
use meso_core::id::{AgentId, FrameworkId, Name, Principal, TaskId};
use meso_core::policy::Subject;
use meso_core::task::TaskState;
use meso_core::wire::query::{AgentRow, RoleRow};
use meso_core::wire::{Update, Wall};

/// A status of a task of the principal `me` on `agent_1`.
pub(crate) fn update(task: &str, state: TaskState) -> Update {
    Update {
        name: Some(Name::parse("web").expect("a name")),
        agent: Some(AgentId::parse("agent_1").expect("an id")),
        host: "host1".to_owned(),
        state,
        is_final: state.is_final(),
        seq: 3,
        agent_seq: 3,
        command: "true".to_owned(),
        started_ms: 1_000,
        ..Update::blank(&TaskId::parse(task).expect("an id"), &FrameworkId::parse("fw_1").expect("an id"), &Principal::parse("me").expect("a principal"), Wall(2_000))
    }
}

/// The agent `agent_1` in some state, with nothing.
pub(crate) fn agent(state: &str) -> AgentRow {
    AgentRow {
        meso: "agent/1".to_owned(),
        id: AgentId::parse("agent_1").expect("an id"),
        host: "host1".to_owned(),
        state: state.to_owned(),
        total: Default::default(),
        free: Default::default(),
        offered: Default::default(),
        used: Default::default(),
        lent: Default::default(),
        lent_free: Default::default(),
        tasks: 0,
        attrs: Default::default(),
        isolation: String::new(),
        version: String::new(),
        silent_ms: 0,
    }
}

/// A role, or a framework of one, of which nobody said anything and that holds nothing.
pub(crate) fn role(subject: &str) -> RoleRow {
    RoleRow {
        meso: "role/1".to_owned(),
        subject: Subject::parse(subject).expect("a role"),
        policy: Default::default(),
        is_set: false,
        frameworks: 0,
        used: Default::default(),
        offered: Default::default(),
        share: Default::default(),
        fair_share: Default::default(),
    }
}

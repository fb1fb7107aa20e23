//! Why somebody waits, as people read it
use crate::client::Found;
use crate::{Column, Failure, Format, Listing, Look, Row};
use meso_core::explain::words::{agent_text, lines};
use meso_core::json::escape_for_terminal;
use meso_core::task::TaskState;
use meso_core::wire::explain::{AgentReason, Explanation, TaskStanding};

const AGENT_COLUMNS: [Column; 3] = [Column::id("AGENT", "agent"), Column::text("HOST", "host"), Column::text("WHY", "why")];

/// An explanation in lines, and then agent by agent.
///
/// # Errors
/// As [`Listing::render`].
pub fn explanation_text(explanation: &Explanation, look: Look) -> Result<String, Failure> {
    let mut text: String = lines(explanation).iter().map(|line| format!("{}\n", escape_for_terminal(line))).collect();
    if !explanation.agents.is_empty() {
        let row = |line: &AgentReason| Row::default().with("agent", &line.agent).with("host", &line.host).with("why", agent_text(line, explanation));
        let listing = Listing { columns: AGENT_COLUMNS.to_vec(), rows: explanation.agents.iter().map(row).collect() };
        text.push_str(&format!("\n{}", listing.render(&Format::Table, look)?));
        if explanation.agents_left_out > 0 {
            text.push_str(&format!("{} more, only counted\n", explanation.agents_left_out));
        }
    }
    Ok(text)
}

/// How a task stands: it has a place, or is over.
pub fn task_standing(found: &Found) -> TaskStanding {
    let update = &found.update;
    TaskStanding {
        meso: "explain/1".to_owned(),
        about: "task".to_owned(),
        task: update.task.clone(),
        name: update.name.clone(),
        framework: update.framework.clone(),
        state: update.state.word().to_owned(),
        is_final: update.is_final,
        reason: update.reason.clone(),
        message: update.message.clone(),
        agent: update.agent.clone(),
        host: update.host.clone(),
        ts_ms: update.ts_ms,
    }
}

/// The same for people, in one line.
pub fn standing_text(standing: &TaskStanding) -> String {
    let name = standing.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let place = if standing.host.is_empty() { "no agent" } else { &standing.host };
    let what = match TaskState::parse(&standing.state) {
        _ if standing.is_final => format!("has ended on {place}: {}", standing.state),
        Some(TaskState::Staging | TaskState::Starting) => format!("does not wait: it is {} on {place}", standing.state),
        Some(TaskState::Running) => format!("does not wait: it runs on {place}"),
        Some(TaskState::Unreachable) => format!("is on {place}, which has fallen silent"),
        _ => format!("does not wait: it is {} on {place}", standing.state),
    };
    let reason = standing.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    let message = standing.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    escape_for_terminal(&format!("task {}{name} {what}{reason}{message}", standing.task)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::update;
    use meso_core::id::AgentId;
    use meso_core::resources::{Milli, Request, Shortfall};
    use meso_core::role::Role;
    use meso_core::wire::explain::{Count, Reason};

    /// Shows the long form: the lines, then agent by agent, with a hostile host name made harmless, and how many are only counted.
    #[test]
    fn the_long_form() {
        let lacks = vec![Shortfall { name: "cpus".to_owned(), need: Milli::units(4), have: Milli::units(2) }];
        let line = AgentReason { agent: AgentId::parse("a1").expect("an id"), host: "h\u{1b}[2J".to_owned(), reason: Reason::TooSmall, clause: String::new(), lacks, holders: vec![], refused_ms: 0 };
        let explanation = Explanation {
            meso: "explain/1".to_owned(),
            about: "request".to_owned(),
            framework: None,
            name: None,
            role: Role::default(),
            request: Request { cpus: Milli::units(4), ..Request::default() },
            count: 1,
            condition: String::new(),
            on: None,
            revocable: false,
            summary: String::new(),
            obstacles: vec![],
            agents_all: 8,
            counts: vec![Count { reason: Reason::Unreachable, agents: 7, clause: String::new(), lacks: vec![], holders: vec![], refused_ms: 0 }],
            agents: vec![line],
            agents_left_out: 7,
        };
        assert_eq!(
            explanation_text(&explanation, Look { width: None, bold: false, now_ms: 0 }).expect("it has a form"),
            "a task of role default that needs cpus=4:\n\
             8 agents:\n\
             \x20 7 are unreachable\n\
             \n\
             AGENT  HOST        WHY\n\
             a1     h\\u{1b}[2J  too small: cpus 2 of 4\n\
             7 more, only counted\n"
        );
    }

    /// Shows what is said of tasks: they have a place, or are over and why.
    #[test]
    fn tasks() {
        let stands = |state, reason: Option<&str>| {
            let mut update = update("task_1", state);
            (update.reason, update.message) = (reason.map(str::to_owned), reason.map(|_| "used \u{1b}256M".to_owned()));
            standing_text(&task_standing(&Found { update, token: None }))
        };
        assert_eq!(stands(TaskState::Running, None), "task task_1 (web) does not wait: it runs on host1");
        assert_eq!(stands(TaskState::Staging, None), "task task_1 (web) does not wait: it is staging on host1");
        assert_eq!(stands(TaskState::Failed, Some("memory_limit")), "task task_1 (web) has ended on host1: failed, memory_limit: used \\u{1b}256M");
    }
}

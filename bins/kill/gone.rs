//! Agents declared gone for good.

use meso_cli::client::{Leader, patience};
use meso_cli::{Candidate, Exit, Failure, LineOut, NotOne, Selector, complain, report, resolve};
use meso_core::id::AgentId;
use meso_core::wire::RefusalCode;
use meso_core::wire::operator::{Operation, Outcome};
use meso_core::wire::query::AgentRow;

/// Declares each agent gone and prints its id; one that is refused is said, and the rest are still tried.
pub async fn mark_gone(leader: &Leader, agents: &[String], force: bool, quiet: bool) -> Result<Exit, Failure> {
    let patience = patience();
    let known = leader.agents(patience).await?;
    let mut out = LineOut::stdout()?;
    let mut exit = Exit::DONE;
    for wanted in agents {
        let agent = match find(wanted, &known) {
            Ok(agent) => agent,
            Err(not_one) => {
                exit = exit.max(Exit::NO);
                report(&Failure::failed(not_one.to_string()).hint("meso-ps agents, for ids and hosts"));
                continue;
            }
        };
        match leader.operate(&Operation::MarkGone { agent: agent.clone(), force }, patience).await? {
            None => return Err(leader.nobody(patience)),
            Some(Outcome::Done { notes, .. }) => {
                notes.iter().for_each(|note| complain(note));
                if !quiet {
                    // A reader who is gone changes nothing: the rest is still to be done.
                    let _ = out.bytes(agent.as_str().as_bytes())?;
                }
            }
            Some(Outcome::Refused(refusal)) => {
                let hint = match refusal.code {
                    RefusalCode::AgentThere => "--force, to end what it runs all the same",
                    RefusalCode::NotYours => "ask who runs the cluster",
                    _ => "meso-ps agents, for those there are",
                };
                exit = exit.max(Exit::NO);
                report(&Failure::failed(refusal.message).hint(hint));
            }
        }
    }
    Ok(exit)
}

/// The agent of an id, a host name or the beginning of an id; of several on a host, those that are gone already do not count.
fn find(wanted: &str, known: &[AgentRow]) -> Result<AgentId, NotOne> {
    let is_gone = |row: &&AgentRow| row.state == "gone";
    let candidates = |rows: &mut dyn Iterator<Item = &AgentRow>| -> Vec<Candidate> {
        rows.map(|row| Candidate { id: row.id.to_string(), name: row.host.clone(), principal: String::new(), ts_ms: 0 }).collect()
    };
    let selector = Selector::Text(wanted.to_owned());
    let chosen = |candidates: Vec<Candidate>| resolve(&selector, &candidates, "").map(|candidate| candidate.id.clone());
    let id = match chosen(candidates(&mut known.iter().filter(|row| !is_gone(row)))) {
        // What is so already may be said again.
        Err(NotOne::NotFound(_)) => chosen(candidates(&mut known.iter().filter(is_gone)))?,
        found => found?,
    };
    known.iter().find(|row| row.id.as_str() == id).map(|row| row.id.clone()).ok_or(NotOne::NotFound(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, host: &str, state: &str) -> AgentRow {
        let none = meso_core::resources::Resources::default;
        AgentRow {
            meso: "agent/1".to_owned(),
            id: AgentId::parse(id).expect("an id"),
            host: host.to_owned(),
            state: state.to_owned(),
            total: none(),
            free: none(),
            offered: none(),
            used: none(),
            lent: none(),
            lent_free: none(),
            tasks: 0,
            attrs: Default::default(),
            isolation: String::new(),
            version: String::new(),
            silent_ms: 0,
        }
    }

    /// Shows that an agent is named by id, by host, also with dots, and by the beginning of its id; that one which is gone
    /// does not stand in the way of its successor on the same host; and that two that are not gone are never guessed from.
    #[test]
    fn names() {
        let known = [row("agent_aaaa000001", "rack.one", "gone"), row("agent_aaaa000002", "rack.one", "unreachable"), row("agent_bbbb000003", "two", "active"), row("agent_bbbb000004", "two", "unreachable"), row("agent_cccc000005", "three", "gone")];
        let found = |wanted| find(wanted, &known).map(|id| id.to_string());
        assert_eq!(found("rack.one").as_deref(), Ok("agent_aaaa000002"));
        assert_eq!(found("agent_aaaa000001").as_deref(), Ok("agent_aaaa000001"));
        assert_eq!(found("agent_aaaa").as_deref(), Ok("agent_aaaa000002"));
        assert_eq!(found("three").as_deref(), Ok("agent_cccc000005"));
        assert!(matches!(found("two"), Err(NotOne::Ambiguous(_, all)) if all.len() == 2));
        assert_eq!(found("four"), Err(NotOne::NotFound("four".to_owned())));
    }
}

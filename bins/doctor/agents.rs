//! The agents and the offers of what they have: who is silent, who holds more than there is, who sits on offers.

use std::collections::BTreeMap;

use meso_cli::{Failure, age_text};
use meso_core::wire::query::{AgentRow, OfferRow};

use crate::finding::{Finding, Report, count, few};
use crate::masters::Rows;

/// An agent that was not heard of for more than so many beats is stale.
const BEATS_MAX: u64 = 2;
/// An offer that is out for longer is stuck.
const OFFER_MS_MAX: u64 = 60_000;

const NEED_LEADER: [&str; 6] = ["agents", "unreachable", "recovering", "stale", "overcommitted", "offers"];

/// Judges what the leader told of agents and offers.
///
/// # Errors
/// A failed write of the report.
pub fn look(rows: Option<&Rows>, beat_ms: u64, report: &mut Report) -> Result<(), Failure> {
    match rows {
        Some(rows) => {
            // Those that are gone for good are nobody's trouble any more.
            let agents: Vec<AgentRow> = rows.agents.iter().filter(|agent| agent.state != "gone").cloned().collect();
            report.tell(of_agents(&agents, beat_ms))?;
            report.tell([of_offers(&rows.offers)])
        }
        None => report.tell(NEED_LEADER.map(|check| Finding::skip(check, "no master answers"))),
    }
}

fn of_agents(agents: &[AgentRow], beat_ms: u64) -> Vec<Finding> {
    let active: Vec<&AgentRow> = in_state(agents, "active");
    if agents.is_empty() {
        let none = Finding::warn("agents", "there is none, so nothing can run", "meso-agent, on each machine that is to run tasks");
        return std::iter::once(none).chain(NEED_LEADER[1..5].iter().map(|check| Finding::skip(check, "there is no agent"))).collect();
    }
    let silent_ms_max = beat_ms.saturating_mul(BEATS_MAX);
    let stale: Vec<&AgentRow> = active.iter().copied().filter(|agent| agent.silent_ms > silent_ms_max).collect();
    let over: Vec<&AgentRow> = active.iter().copied().filter(|agent| is_overcommitted(agent)).collect();
    let tasks: usize = agents.iter().map(|agent| agent.tasks as usize).sum();
    let saw = format!("{} of {}, with {}", active.len(), count(agents.len(), "agent"), count(tasks, "task"));
    let here = match active.is_empty() {
        true => Finding::warn("agents", format!("{saw}: none takes tasks"), "meso-ps agents, and meso-agent on each machine"),
        false => Finding::ok("agents", format!("{saw}, active")),
    };
    let start = "meso-agent on those machines, on the same work directory, or the network between";
    let some = |check, agents: &[&AgentRow], none: &str, what: &str, next_step: &str| match agents {
        [] => Finding::ok(check, none),
        _ => Finding::warn(check, format!("{what}: {}", named(agents)), next_step).about(agents.iter().map(|agent| agent.id.to_string())),
    };
    let stale_what = format!("silent for more than {BEATS_MAX} beats of {} ms", beat_ms);
    vec![
        here,
        some("unreachable", &in_state(agents, "unreachable"), "none", "not heard of, and offered to nobody", &format!("{start}; meso-kill --gone, for one that will not come back")),
        some("recovering", &in_state(agents, "recovering"), "none", "not back yet under this leader", start),
        some("stale", &stale, "none", &stale_what, "the log of meso-agent there, and uptime: is that machine stopped or overloaded?"),
        some("overcommitted", &over, "none", "tasks and offers hold more than there is", "meso-ps tasks, and meso-kill what is too much; then tell of it: the books are wrong"),
    ]
}

fn in_state<'a>(agents: &'a [AgentRow], state: &str) -> Vec<&'a AgentRow> {
    agents.iter().filter(|agent| agent.state == state).collect()
}

/// Whether what is used and offered is more than there is; what is lent comes from what is used, and is not counted here.
fn is_overcommitted(agent: &AgentRow) -> bool {
    agent.total.checked_sub(&agent.used).and_then(|rest| rest.checked_sub(&agent.offered)).is_none()
}

/// Each with its host, and for how long it has been silent.
fn named(agents: &[&AgentRow]) -> String {
    few(&agents.iter().map(|agent| format!("{} on {} (silent for {})", agent.id, agent.host, age_text(agent.silent_ms, 0))).collect::<Vec<_>>())
}

/// Offers that somebody sits on, by holder.
fn of_offers(offers: &[OfferRow]) -> Finding {
    let stuck: Vec<&OfferRow> = offers.iter().filter(|offer| offer.age_ms > OFFER_MS_MAX).collect();
    if stuck.is_empty() {
        return Finding::ok("offers", format!("{} out, none for more than {} s", offers.len(), OFFER_MS_MAX / 1000));
    }
    let mut holders: BTreeMap<String, (usize, u64, &str)> = BTreeMap::new();
    for offer in &stuck {
        let name = offer.framework_name.as_ref().map_or_else(|| offer.framework.to_string(), ToString::to_string);
        let (held, age_ms, _) = holders.entry(name).or_insert((0, 0, &offer.who));
        *held += 1;
        *age_ms = (*age_ms).max(offer.age_ms);
    }
    let saw: Vec<String> = holders
        .iter()
        .map(|(name, (held, age_ms, who))| {
            let by = if who.is_empty() { String::new() } else { format!(", run by {who}") };
            format!("{name} sits on {} for {}{by}", count(*held, "offer"), age_text(*age_ms, 0))
        })
        .collect();
    let first = holders.keys().next().map_or("", String::as_str);
    Finding::warn("offers", few(&saw), format!("that program's end, or meso-kill --framework {first}, which ends its tasks too")).about(stuck.iter().map(|offer| offer.id.clone()))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::finding::State;
    use meso_cli::VERSION;
    use meso_core::id::{AgentId, FrameworkId, Name};
    use meso_core::resources::{Resources, parse_total};

    fn resources(text: &str) -> Resources {
        parse_total(text).expect("resources")
    }

    pub fn agent(number: u32, state: &str, silent_ms: u64) -> AgentRow {
        AgentRow {
            meso: "agent/1".to_owned(),
            id: AgentId::parse(&format!("agent_{number}")).expect("an id"),
            host: format!("h{number}"),
            state: state.to_owned(),
            total: resources("cpus=4,mem=1G"),
            free: resources("cpus=4,mem=1G"),
            offered: Resources::default(),
            used: Resources::default(),
            lent: Resources::default(),
            lent_free: Resources::default(),
            tasks: 1,
            attrs: BTreeMap::new(),
            isolation: "processes".to_owned(),
            version: VERSION.to_owned(),
            silent_ms,
        }
    }

    fn offer(holder: &str, name: Option<&str>, age_ms: u64) -> OfferRow {
        OfferRow {
            meso: "offer/1".to_owned(),
            id: "offer_7k3q".to_owned(),
            framework: FrameworkId::parse(holder).expect("an id"),
            agent: AgentId::parse("agent_1").expect("an id"),
            host: "h1".to_owned(),
            resources: resources("cpus=1"),
            age_ms,
            framework_name: name.map(|name| Name::parse(name).expect("a name")),
            who: "ann@h9 (process 7)".to_owned(),
            revocable: false,
        }
    }

    fn states(agents: &[AgentRow]) -> Vec<(&'static str, State)> {
        of_agents(agents, 15_000).into_iter().filter(|finding| finding.state != State::Ok).map(|finding| (finding.check, finding.state)).collect()
    }

    /// Shows that healthy agents are well, and that each that is not is told by its own check with its id.
    #[test]
    fn agents_by_state() {
        assert_eq!(states(&[agent(1, "active", 0), agent(2, "active", 30_000)]), []);
        assert_eq!(states(&[agent(1, "active", 0), agent(2, "unreachable", 90_000)]), [("unreachable", State::Warn)]);
        assert_eq!(states(&[agent(1, "active", 0), agent(2, "recovering", 0)]), [("recovering", State::Warn)]);
        assert_eq!(states(&[agent(1, "unreachable", 0)]), [("agents", State::Warn), ("unreachable", State::Warn)]);
        let stale = of_agents(&[agent(1, "active", 0), agent(2, "active", 30_001)], 15_000);
        let stale = stale.iter().find(|finding| finding.check == "stale").expect("it is told");
        assert_eq!((stale.state, stale.ids.as_slice()), (State::Warn, &["agent_2".to_owned()][..]));
        assert!(stale.saw.contains("agent_2 on h2 (silent for 30s)"), "{}", stale.saw);
        let none = of_agents(&[], 15_000);
        assert_eq!((none.len(), none[0].state, none[1].state), (5, State::Warn, State::Skip));
    }

    /// Shows that more in use and offered than there is, is told, and that all of it just is not.
    #[test]
    fn overcommitment() {
        let full = AgentRow { used: resources("cpus=3"), offered: resources("cpus=1,mem=1G"), ..agent(1, "active", 0) };
        assert_eq!(states(std::slice::from_ref(&full)), []);
        let over = AgentRow { offered: resources("cpus=1.001"), ..full };
        assert_eq!(states(&[over]), [("overcommitted", State::Warn)]);
    }

    /// Shows that offers are stuck after a minute, told by holder, with who runs it.
    #[test]
    fn stuck_offers() {
        assert_eq!(of_offers(&[]).state, State::Ok);
        assert_eq!(of_offers(&[offer("fw_1", None, 60_000)]).state, State::Ok);
        let stuck = of_offers(&[offer("fw_1", Some("greedy"), 61_000), offer("fw_1", Some("greedy"), 130_000), offer("fw_2", None, 1)]);
        assert_eq!((stuck.state, stuck.saw.as_str()), (State::Warn, "greedy sits on 2 offers for 2m, run by ann@h9 (process 7)"));
        assert!(stuck.next_step.is_some_and(|next| next.contains("meso-kill --framework greedy")));
    }
}

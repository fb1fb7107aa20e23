//! The masters: does one lead, does another stand by, is all of one version.

use std::collections::BTreeMap;

use meso_cli::client::Leader;
use meso_cli::{Failure, VERSION, age_text};
use meso_core::wire::query::{AgentRow, MasterRow, OfferRow};
use tokio::time::timeout;

use crate::finding::{CHECK, CHECK_MS, Finding, Report, few};

/// The checks behind this one that need a leader.
const NEED_LEADER: [&str; 2] = ["standby", "version"];

/// What the leader tells.
pub struct Rows {
    pub masters: Vec<MasterRow>,
    pub agents: Vec<AgentRow>,
    pub offers: Vec<OfferRow>,
}

/// Asks whoever leads; gives what it told.
///
/// # Errors
/// A failed write of the report.
pub async fn look(leader: Option<&Leader>, report: &mut Report) -> Result<Option<Rows>, Failure> {
    let Some(leader) = leader else {
        report.tell(["leader"].into_iter().chain(NEED_LEADER).map(|check| Finding::skip(check, "the bus is not reachable")))?;
        return Ok(None);
    };
    let rows = match timeout(CHECK, ask(leader)).await {
        Ok(Ok(rows)) => rows,
        Ok(Err(failure)) => return without(&failure, leader, report),
        Err(_) => return without(&Failure::unreachable(format!("whoever leads does not tell all within {CHECK_MS} ms")), leader, report),
    };
    report.tell(of_masters(&rows.masters))?;
    report.tell([of_versions(&rows.masters, &rows.agents)])?;
    Ok(Some(rows))
}

async fn ask(leader: &Leader) -> Result<Rows, Failure> {
    Ok(Rows { masters: leader.masters(CHECK).await?, agents: leader.agents(CHECK).await?, offers: leader.offers(CHECK).await? })
}

fn without(failure: &Failure, leader: &Leader, report: &mut Report) -> Result<Option<Rows>, Failure> {
    let options = leader.bus().options();
    let next_step = format!("meso-master --nats {} --cluster {}, or what it says if it runs", options.shown_url(), options.cluster);
    report.tell([Finding::fail("leader", failure.what(), next_step)])?;
    report.tell(NEED_LEADER.map(|check| Finding::skip(check, "no master answers")))?;
    Ok(None)
}

fn of_masters(masters: &[MasterRow]) -> Vec<Finding> {
    let id = |master: &MasterRow| master.id.to_string();
    let leading = masters.iter().find(|master| master.state == "leading");
    let standing_by: Vec<&MasterRow> = masters.iter().filter(|master| master.state == "standby").collect();
    let leads = match leading {
        Some(master) => Finding::ok("leader", format!("{} on {}, under epoch {}, for {}", master.id, master.host, master.epoch, age_text(master.age_ms, 0))).about([id(master)]),
        None => Finding::fail("leader", "whoever answers does not lead", "the same again"),
    };
    let hosts: Vec<String> = standing_by.iter().map(|master| master.host.clone()).collect();
    let stands_by = match hosts.as_slice() {
        [] => Finding::warn("standby", "no other master stands by: when this one is lost, so are offers and launches until it is back", "meso-master, on another machine"),
        _ => Finding::ok("standby", format!("{} on {}", hosts.len(), few(&hosts))).about(standing_by.iter().map(|master| id(master))),
    };
    vec![leads, stands_by]
}

/// The versions of masters, agents and this tool.
fn of_versions(masters: &[MasterRow], agents: &[AgentRow]) -> Finding {
    let mut others: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let all = masters.iter().map(|master| (&master.version, master.id.to_string())).chain(agents.iter().map(|agent| (&agent.version, agent.id.to_string())));
    // An agent that has not come back to this leader yet has not told its version.
    for (version, id) in all.filter(|(version, _)| *version != VERSION && !version.is_empty()) {
        others.entry(version).or_default().push(id);
    }
    if others.is_empty() {
        return Finding::ok("version", format!("{VERSION} everywhere"));
    }
    let saw: Vec<String> = others.iter().map(|(version, ids)| format!("{version} at {}", few(ids))).collect();
    Finding::warn("version", format!("{VERSION} here, {}", saw.join("; ")), "the same version of meso everywhere: masters first, then agents").about(others.into_values().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::tests::agent;
    use crate::finding::State;
    use meso_core::id::MasterId;

    fn master(number: u32, state: &str, version: &str) -> MasterRow {
        let id = MasterId::parse(&format!("master_{number}")).expect("an id");
        MasterRow { meso: "master/1".to_owned(), id, host: format!("h{number}"), state: state.to_owned(), epoch: 7, age_ms: 65_000, version: version.to_owned() }
    }

    /// Shows what is said of one that leads alone, with others, and not at all.
    #[test]
    fn leader_and_standbys() {
        let states = |masters: &[MasterRow]| of_masters(masters).iter().map(|finding| finding.state).collect::<Vec<_>>();
        assert_eq!(states(&[master(1, "leading", VERSION)]), [State::Ok, State::Warn]);
        assert_eq!(states(&[]), [State::Fail, State::Warn]);
        let two = of_masters(&[master(1, "leading", VERSION), master(2, "standby", VERSION)]);
        assert_eq!((two[0].saw.as_str(), two[1].saw.as_str(), two[1].ids.as_slice()), ("master_1 on h1, under epoch 7, for 1m", "1 on h2", &["master_2".to_owned()][..]));
        assert!(two.iter().all(|finding| finding.state == State::Ok));
    }

    /// Shows that each foreign version is named with who has it, and that an agent that did not tell its own is none.
    #[test]
    fn versions() {
        let same = [agent(1, "active", 0), AgentRow { version: String::new(), ..agent(2, "recovering", 0) }];
        assert_eq!(of_versions(&[master(1, "leading", VERSION)], &same).state, State::Ok);
        let old = of_versions(&[master(1, "leading", "0.0.9")], &[AgentRow { version: "0.0.8".to_owned(), ..agent(3, "active", 0) }]);
        assert_eq!((old.state, old.saw.as_str()), (State::Warn, format!("{VERSION} here, 0.0.8 at agent_3; 0.0.9 at master_1").as_str()));
    }
}

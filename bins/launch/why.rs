//! Why it waits: asked of the leader, and left out where there is no answer in time.

use std::time::Duration;

use meso_cli::Failure;
use meso_cli::client::Leader;
use meso_core::id::FrameworkId;
use meso_core::role::Role;
use meso_core::wire::call::Demand;
use meso_core::wire::explain::{Ask, Summary};

/// Who has waited so long for a first task at a terminal is told why.
pub const TOLD_AFTER: Duration = Duration::from_secs(10);
/// How long the answer may take.
const ANSWER_MS: u64 = 2_000;

/// The leader's reasons on one line; none where it has none, or says none in time.
pub async fn why(leader: Leader, framework: FrameworkId, demand: Demand) -> Option<String> {
    let ask = Ask { framework: Some(framework), demand: Some(demand), ..Ask::default() };
    let told: Summary = leader.explain(ask, Duration::from_millis(ANSWER_MS)).await.ok()?;
    Some(told.summary).filter(|text| !text.is_empty())
}

/// What is said at the end, with the reasons if there are any, and where to find more of them.
pub fn with_reasons(words: Failure, reasons: Option<String>, role: &Role, demand: &Demand) -> Failure {
    let Some(reasons) = reasons else { return words };
    let mut command = format!("meso-explain -R {}", demand.request);
    if *role != Role::default() {
        command.push_str(&format!(" --role {role}"));
    }
    if !demand.condition.is_empty() {
        command.push_str(&format!(" --where '{}'", demand.condition.replace('\'', r"'\''")));
    }
    if let Some(on) = &demand.on {
        command.push_str(&format!(" --on {on}"));
    }
    if demand.revocable {
        command.push_str(" --revocable");
    }
    Failure::new(words.kind(), format!("{}: {reasons}", words.what())).hint(format!("{command}, which tells it agent by agent"))
}

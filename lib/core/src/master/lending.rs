//! What agents lend: resources that their tasks hold and do not use, for tasks that may be ended at once.
//!
//! They are in books of their own, so that what is lent is never mixed with what an agent has.

use crate::id::{AgentId, TaskId};
use crate::master::Lead;
use crate::master::offers::Pool;
use crate::resources::Resources;
use crate::wire::Launch;

impl Lead {
    /// An agent says what it lends now. What does not fit in that any more ends, the newest first.
    pub(super) fn set_lent(&mut self, agent: &AgentId, total: Resources) {
        let Some(account) = self.lent.account(agent) else {
            if !total.is_empty() && self.lent.admit(agent.clone(), total).is_ok() {
                self.fresh_agents.insert(agent.clone());
            }
            return;
        };
        if account.total == total && !self.withdrawn.contains(agent) {
            return;
        }
        if self.lent.set_total(agent, total.clone()).is_ok() {
            self.withdrawn.remove(agent);
            self.lent.set_open(agent, true);
            self.fresh_agents.insert(agent.clone());
        } else {
            self.take_back(agent, &total);
        }
    }

    fn take_back(&mut self, agent: &AgentId, total: &Resources) {
        // What comes free until it is told anew is not to be lent again.
        self.withdrawn.insert(agent.clone());
        self.lent.set_open(agent, false);
        let offers: Vec<_> = self.lent.offers_on(agent).map(|(offer, _)| offer.clone()).collect();
        for offer in offers {
            self.rescind(&offer, "taken_back");
        }
        let mut tasks: Vec<(bool, u64, TaskId)> = Vec::new();
        for (task, _) in self.lent.tasks_on(agent) {
            let Some(entry) = self.tasks.get(task) else { continue };
            tasks.push((entry.killing.is_none(), entry.update.started_ms.max(entry.ordered_ms), task.clone()));
        }
        tasks.sort();
        // Those that are ending already are first, then the oldest; what no longer fits behind them goes.
        let mut left = Some(total.clone());
        for (lives, _, task) in tasks {
            let Some((_, holding)) = self.lent.find_task(&task) else { continue };
            left = left.as_ref().and_then(|left| left.checked_sub(&holding.resources));
            if left.is_none() && lives {
                self.want_killed(&task, None, "revoked");
            }
        }
    }

    /// What an agent held when it came back was lent to it by an earlier leader: it stays so until the agent says how
    /// much that is now.
    pub(super) fn admit_lent(&mut self, agent: &AgentId, launch: &Launch) {
        let lent = self.lent.account(agent).map(|account| account.total.clone()).unwrap_or_default();
        if let Some(more) = lent.checked_add(&launch.resources) {
            self.set_lent(agent, more);
        }
    }
}

/// Which pool a launch is of.
pub(super) fn pool_of(launch: &Launch) -> Pool {
    if launch.lent { Pool::Lent } else { Pool::Firm }
}

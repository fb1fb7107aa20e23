//! The power of the store's machine goes: lease, registry and stream, or the stream alone, are again what was on its disk at
//! some moment before.

use meso_core::master::Event;

use crate::net::Site;
use crate::plant::Plant;
use crate::store::SimStore;
use crate::stream::Upto;
use crate::tally::Count;
use crate::world::{Item, World};

/// How often the store's machine writes to its disk what it has, at most, milliseconds.
const SYNC_MS_MAX: u64 = 20_000;
/// How long it takes until the store serves again, at most, milliseconds.
const BACK_MS_MAX: u64 = 5_000;

/// What was on the disk.
#[derive(Debug, Default)]
pub struct Saved {
    store: SimStore,
    upto: Option<Upto>,
}

impl World {
    /// The store's machine writes to its disk.
    pub(crate) fn save_store(&mut self) {
        if self.calm || !self.plan.faults.store_revert {
            return;
        }
        self.saved = Saved { store: self.store.clone(), upto: Some(self.stream.upto()) };
        let wait_ms = 1 + self.seed.below(SYNC_MS_MAX);
        self.agenda.enter(self.now_ms + wait_ms, Item::SaveStore);
    }

    /// The power goes, and comes back.
    pub(crate) fn revert_store(&mut self) {
        let Some(upto) = self.saved.upto else { return };
        let before = self.store.lease().1.map_or(0, |record| record.epoch);
        // Lease and registry may be written to the disk at once each time, and the stream not.
        if self.seed.below(2) == 0 {
            self.tally.add(Count::StreamOnlyReverted);
        } else {
            self.tally.add(Count::StoreReverted);
            self.store = self.saved.store.clone();
        }
        let after = self.store.lease().1.map_or(0, |record| record.epoch);
        if after < before {
            self.tally.add(Count::EpochReverted);
        }
        self.story.tell(self.now_ms, || format!("the power of the store goes, and it is older again: the epoch there is {after} and was {before}"));
        for (framework, left, lost) in self.stream.revert(upto) {
            self.tally.add(Count::StreamReverted);
            self.sessions.reverted(&framework, left);
            for update in lost {
                self.story.tell(self.now_ms, || format!("{} of {} is lost from the stream", update.state, update.task));
            }
        }
        self.store_down = true;
        let back_ms = 100 + self.seed.below(BACK_MS_MAX);
        self.agenda.enter(self.now_ms + back_ms, Item::StoreBack);
        match self.seed.below(3) {
            // The masters were on that machine, too.
            0 => (0..self.masters.len()).for_each(|which| self.crash_master(which)),
            // Whoever was connected has to connect anew.
            1 => {
                let sites = (0..self.masters.len()).map(Site::Master).chain((0..self.agents.len()).map(Site::Agent)).chain((0..self.clients.len()).map(Site::Client)).chain((0..self.members.len()).map(Site::Member));
                sites.collect::<Vec<_>>().into_iter().for_each(|site| self.cut_wholly(site, back_ms));
            }
            _ => {}
        }
    }

    /// A registration as a leader with a planted bug hears it.
    pub(crate) fn as_believed(&self, which: usize, event: &mut Event) {
        let Event::Hello { hello, .. } = event else { return };
        let site = &self.masters[which];
        let Some(epoch) = site.machine.epoch() else { return };
        let is_shared = self.plant == Plant::EpochShared && hello.max_epoch == epoch && !site.welcomed.contains(&hello.agent);
        let is_above = self.plant == Plant::RevertedBelieved && hello.max_epoch > epoch;
        if is_shared || is_above {
            hello.max_epoch = epoch - 1;
        }
    }
}

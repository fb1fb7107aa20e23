//! Which launches an agent has taken: numbers of one epoch, as ranges, so that memory follows the gaps and not the count.

use serde::{Deserialize, Serialize};

/// A set of launch numbers of one epoch. A number that is in it is never spawned again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spawned {
    epoch: u64,
    ranges: Vec<(u64, u64)>,
}

impl Spawned {
    /// The epoch these numbers belong to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the number was taken. All numbers of a lower epoch count as taken: that epoch is fenced.
    pub fn contains(&self, epoch: u64, no: u64) -> bool {
        epoch < self.epoch || (epoch == self.epoch && self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&no)))
    }

    /// Takes a number; a higher epoch forgets the numbers of the one before.
    pub fn insert(&mut self, epoch: u64, no: u64) {
        if self.contains(epoch, no) {
            return;
        }
        if epoch > self.epoch {
            self.epoch = epoch;
            self.ranges.clear();
        }
        let at = self.ranges.partition_point(|(first, _)| *first < no);
        self.ranges.insert(at, (no, no));
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for (first, last) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
                _ => joined.push((first, last)),
            }
        }
        self.ranges = joined;
    }
}

#[cfg(test)]
mod tests {
    use super::Spawned;

    /// Shows that numbers join into ranges and that an epoch fences all lower ones.
    #[test]
    fn ranges_and_epochs() {
        let mut spawned = Spawned::default();
        for no in [3, 1, 2, 7, 3] {
            spawned.insert(4, no);
        }
        assert_eq!(spawned.ranges, [(1, 3), (7, 7)]);
        assert!(spawned.contains(4, 2) && !spawned.contains(4, 4) && spawned.contains(3, 99));
        spawned.insert(3, 50);
        assert_eq!(spawned.epoch(), 4);
        spawned.insert(5, 1);
        assert!(spawned.contains(4, 4) && spawned.contains(5, 1) && !spawned.contains(5, 2));
    }
}

//! What happens when: a heap of times with the things kept beside it, so that moving in the heap is cheap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Things that happen at times; of equal times the earlier entered happens first.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    things: Vec<Option<T>>,
    spare: Vec<u32>,
    entered: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Agenda { heap: BinaryHeap::new(), things: Vec::new(), spare: Vec::new(), entered: 0 }
    }
}

impl<T> Agenda<T> {
    /// Enters a thing that happens at this time, milliseconds of the simulated clock.
    pub fn enter(&mut self, at_ms: u64, thing: T) {
        let place = match self.spare.pop() {
            Some(place) => place,
            None => {
                self.things.push(None);
                u32::try_from(self.things.len() - 1).expect("a run holds fewer than four billion things at once")
            }
        };
        self.things[place as usize] = Some(thing);
        self.heap.push(Reverse((at_ms, self.entered, place)));
        self.entered += 1;
    }

    /// The next thing and its time.
    pub fn next(&mut self) -> Option<(u64, T)> {
        let Reverse((at_ms, _, place)) = self.heap.pop()?;
        let thing = self.things[place as usize].take().expect("each place in the heap holds a thing");
        self.spare.push(place);
        Some((at_ms, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that things come in the order of their times, and of equal times in the order of entry.
    #[test]
    fn order() {
        let mut agenda = Agenda::default();
        for (at_ms, thing) in [(5, 'd'), (1, 'a'), (5, 'e'), (2, 'c'), (1, 'b')] {
            agenda.enter(at_ms, thing);
        }
        let order: String = std::iter::from_fn(|| agenda.next()).map(|(_, thing)| thing).collect();
        assert_eq!(order, "abcde");
    }
}

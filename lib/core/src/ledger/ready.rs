//! The list of the agents of which something is free, in order of their ids
//!
//! It is in pieces, so that coming and going moves one of them only. Each piece knows the most that one agent of it has
//! free of each kind, so that who seeks more than that passes over the whole piece.

use crate::id::AgentId;
use crate::resources::{Milli, Request, Resources};

/// The longest piece; a longer one is halved.
const PIECE_MAX: usize = 512;

/// Cpus, memory, disk and gpus: the kinds that every agent has.
pub(crate) type Amounts = [Milli; 4];

/// What a request needs of these.
pub(crate) fn needs_of(request: &Request) -> Amounts {
    [request.cpus, request.mem, request.disk, request.gpus]
}

fn amounts_of(resources: &Resources) -> Amounts {
    [resources.cpus, resources.mem, resources.disk, resources.gpus]
}

fn has(have: &Amounts, least: &Amounts) -> bool {
    have.iter().zip(least).all(|(have, least)| have >= least)
}

/// See the module. The agents' ids are with whoever keeps the accounts: `id` says that of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// None is empty.
    pieces: Vec<Piece>,
    count: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Piece {
    entries: Vec<Entry>,
    /// The most of each kind that one entry has.
    most: Amounts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    slot: u32,
    free: Amounts,
}

impl Ready {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The slot at a place of the order; none beyond its end.
    pub(super) fn slot_at(&self, place: usize) -> Option<u32> {
        let mut before = 0;
        for piece in &self.pieces {
            if let Some(entry) = piece.entries.get(place - before) {
                return Some(entry.slot);
            }
            before += piece.entries.len();
        }
        None
    }

    /// The first place from `place` on where as much is free of each kind; the count if there is none.
    pub(super) fn first_with(&self, place: usize, least: &Amounts) -> usize {
        let mut before = 0;
        for piece in &self.pieces {
            let len = piece.entries.len();
            if before + len > place && has(&piece.most, least) {
                let from = place.saturating_sub(before);
                if let Some(at) = piece.entries[from..].iter().position(|entry| has(&entry.free, least)) {
                    return before + from + at;
                }
            }
            before += len;
        }
        self.count
    }

    /// Where an agent stands in the order, if it does.
    pub(super) fn place_of<'a>(&self, agent: &AgentId, id: impl Fn(u32) -> &'a AgentId) -> Option<usize> {
        let (piece, found) = self.search(agent, id);
        let at = found.ok()?;
        Some(self.pieces[..piece].iter().map(|piece| piece.entries.len()).sum::<usize>() + at)
    }

    /// Puts an agent in, or notes what is free of it now.
    pub(super) fn put<'a>(&mut self, slot: u32, free: &Resources, id: impl Fn(u32) -> &'a AgentId) {
        let entry = Entry { slot, free: amounts_of(free) };
        let (at_piece, found) = self.search(id(slot), id);
        if self.pieces.is_empty() {
            self.pieces.push(Piece::default());
        }
        let piece = &mut self.pieces[at_piece];
        match found {
            Ok(at) => {
                let was = std::mem::replace(&mut piece.entries[at], entry);
                return piece.changed(&was.free, at);
            }
            Err(at) => piece.entries.insert(at, entry),
        }
        self.count += 1;
        if piece.entries.len() > PIECE_MAX {
            let mut rest = Piece { entries: piece.entries.split_off(PIECE_MAX / 2), most: Amounts::default() };
            piece.sum_up();
            rest.sum_up();
            self.pieces.insert(at_piece + 1, rest);
        } else {
            let Err(at) = found else { return };
            piece.changed(&Amounts::default(), at);
        }
    }

    pub(super) fn take<'a>(&mut self, slot: u32, id: impl Fn(u32) -> &'a AgentId) {
        let (at_piece, found) = self.search(id(slot), id);
        let Ok(at) = found else { return };
        let piece = &mut self.pieces[at_piece];
        let was = piece.entries.remove(at);
        self.count -= 1;
        if piece.entries.is_empty() {
            self.pieces.remove(at_piece);
        } else if piece.is_at_most(&was.free) {
            piece.sum_up();
        }
    }

    /// In which piece an agent stands and where, or would.
    fn search<'a>(&self, agent: &AgentId, id: impl Fn(u32) -> &'a AgentId) -> (usize, Result<usize, usize>) {
        let piece = self.pieces.partition_point(|piece| piece.entries.first().is_some_and(|first| id(first.slot) <= agent)).saturating_sub(1);
        let found = self.pieces.get(piece).map_or(Err(0), |piece| piece.entries.binary_search_by(|entry| id(entry.slot).cmp(agent)));
        (piece, found)
    }

    #[cfg(test)]
    pub(super) fn is_summed_up(&self) -> bool {
        self.pieces.iter().all(|piece| {
            let mut again = piece.clone();
            again.sum_up();
            again.most == piece.most && !piece.entries.is_empty()
        })
    }
}

impl Piece {
    /// An entry is another than it was.
    fn changed(&mut self, was: &Amounts, at: usize) {
        let now = self.entries[at].free;
        let has_shrunk = was.iter().zip(&now).zip(&self.most).any(|((was, now), most)| was == most && now < was);
        if has_shrunk {
            return self.sum_up();
        }
        for (most, now) in self.most.iter_mut().zip(now) {
            *most = now.max(*most);
        }
    }

    /// Whether an entry that is gone had the most of any kind.
    fn is_at_most(&self, gone: &Amounts) -> bool {
        gone.iter().zip(&self.most).any(|(gone, most)| gone == most && !most.is_zero())
    }

    fn sum_up(&mut self) {
        self.most = Amounts::default();
        for entry in &self.entries {
            for (most, free) in self.most.iter_mut().zip(entry.free) {
                *most = free.max(*most);
            }
        }
    }
}

//! The middle of a simulated pipeline: two pipes and a filter between them that passes, drops, delays and reorders lines.

use std::collections::VecDeque;

use meso_core::id::OfferId;
use meso_core::seed::Seed;
use meso_core::wire::ack::AckId;

/// How much a pipe holds, bytes.
pub const PIPE_BYTES: u64 = 4_096;
/// How long a line is, bytes.
pub const LINE_BYTES: u64 = 512;
/// How many lines wait for each reader behind the filter before the filter itself has to wait.
pub const LINES_MAX: usize = 8;
/// Of a thousand lines so many pass at least.
const PASS_MIN: u64 = 150;
/// How long a filter works on a line once nothing goes wrong any more, at most, milliseconds: offers may live for a few seconds only.
const CALM_LINE_MS_MAX: u64 = 50;
/// The longest that a filter stands still on purpose, milliseconds.
const STALL_MS_MAX: u64 = 20_000;

/// A line as far as a filter cares.
#[derive(Clone, Debug)]
pub enum FilterLine {
    /// An offer.
    Offer(OfferId),
    /// A status: its mark, and whether it was written before.
    Status(AckId, bool),
    /// An answer to a question, which says the same as a status.
    Known(AckId),
    /// Anything else.
    Other,
}

/// The filter and what lies in the pipes.
#[derive(Debug)]
pub struct Filter {
    /// It runs.
    pub alive: bool,
    /// Nobody writes any more.
    pub at_end: bool,
    /// An entry of the agenda moves it on.
    pub moving: bool,
    /// What was written and it has not read.
    pub input: VecDeque<FilterLine>,
    /// What it passed on, reader by reader.
    pub outputs: Vec<VecDeque<OfferId>>,
    /// Offers that it keeps back, to let later ones overtake.
    back: Vec<OfferId>,
    /// All readers are given each line; else they take turns.
    tee: bool,
    turn: usize,
    pass_per_mille: u64,
    reorder_per_mille: u64,
    line_ms: u64,
    stall_once_in: u64,
}

impl Filter {
    /// A filter with a temper of its own and so many readers.
    pub fn new(readers: usize, seed: &mut Seed) -> Self {
        Filter {
            alive: true,
            at_end: false,
            moving: false,
            input: VecDeque::new(),
            outputs: vec![VecDeque::new(); readers],
            back: Vec::new(),
            tee: seed.below(2) == 0,
            turn: 0,
            pass_per_mille: [1_000, 700, PASS_MIN][seed.below(3) as usize],
            reorder_per_mille: [0, 0, 300][seed.below(3) as usize],
            line_ms: [1, 20, 200, 3_000][seed.below(4) as usize],
            stall_once_in: [0, 0, 30][seed.below(3) as usize],
        }
    }

    /// How many bytes of its input it has not read.
    pub fn unread(&self) -> u64 {
        self.input.len() as u64 * LINE_BYTES
    }

    /// Whether another line can be written to it.
    pub fn has_room(&self) -> bool {
        self.unread() + LINE_BYTES <= PIPE_BYTES
    }

    /// Whether one of its readers has to read first.
    pub fn is_held_up(&self) -> bool {
        self.outputs.iter().any(|lines| lines.len() >= LINES_MAX)
    }

    /// How long it works on its next line, milliseconds.
    pub fn works_ms(&self, seed: &mut Seed, calm: bool) -> u64 {
        if !calm && self.stall_once_in > 0 && seed.below(self.stall_once_in) == 0 {
            return 1 + seed.below(STALL_MS_MAX);
        }
        1 + seed.below(if calm { self.line_ms.min(CALM_LINE_MS_MAX) } else { self.line_ms })
    }

    /// What comes out when this offer goes in: none if it is dropped or kept back, two if one that was kept back follows it.
    ///
    /// Once nothing goes wrong any more it drops none: what is dropped again and again is refused for minutes.
    pub fn judge(&mut self, offer: OfferId, seed: &mut Seed, calm: bool) -> Vec<OfferId> {
        if !calm && seed.below(1_000) >= self.pass_per_mille {
            return Vec::new();
        }
        if !calm && self.back.is_empty() && seed.below(1_000) < self.reorder_per_mille {
            self.back.push(offer);
            return Vec::new();
        }
        let mut out = vec![offer];
        out.append(&mut self.back);
        out
    }

    /// Gives a line to one or all of those that still read; says to which.
    pub fn pass(&mut self, offer: &OfferId, mut readers: Vec<usize>) -> Vec<usize> {
        if !self.tee && !readers.is_empty() {
            self.turn += 1;
            readers = vec![readers[self.turn % readers.len()]];
        }
        for reader in &readers {
            self.outputs[*reader].push_back(offer.clone());
        }
        readers
    }
}

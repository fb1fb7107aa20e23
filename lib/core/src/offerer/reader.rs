//! What is known of the reader of our lines, by how much of them lies unread in the pipe.

/// How often to look whether lines were read while some are unread, milliseconds; doubles up to [`LOOK_MS_MAX`] while nothing is.
pub const LOOK_MS: u64 = 50;
/// See [`LOOK_MS`].
pub const LOOK_MS_MAX: u64 = 400;
/// An output that takes nothing for this long is blocked: what waits for it is given back, milliseconds.
pub const BLOCKED_MS: u64 = 1_000;
/// A reader that takes nothing for this long, though there is something to read, is offered nothing more, milliseconds.
pub const STALLED_MS: u64 = 10_000;
/// However slow a reader is, a line that it took counts as dropped after this long, milliseconds.
pub const GRACE_MS_MAX: u64 = 15_000;

/// The reader.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Bytes written.
    wrote: u64,
    /// Bytes that it took.
    consumed: u64,
    /// How long in all it had nothing to read, milliseconds.
    idle_ms: u64,
    looked_ms: u64,
    look_ms: u64,
    /// When it last took something, or was given something after it had nothing.
    progress_ms: u64,
    /// How long it lately was at work on what it took before it took more, milliseconds.
    pace_ms: u64,
    full_since_ms: Option<u64>,
    blocked: bool,
    stalled: bool,
}

impl Reader {
    /// A reader that was given nothing yet.
    pub fn new(now_ms: u64) -> Self {
        Reader { wrote: 0, consumed: 0, idle_ms: 0, looked_ms: now_ms, look_ms: LOOK_MS, progress_ms: now_ms, pace_ms: 0, full_since_ms: None, blocked: false, stalled: false }
    }

    /// So many bytes are unread now; none if that cannot be told, which counts as nothing.
    pub fn look(&mut self, now_ms: u64, unread: Option<u64>) {
        let was_idle = self.is_idle();
        let consumed = self.wrote.saturating_sub(unread.unwrap_or(0)).max(self.consumed);
        if was_idle {
            self.idle_ms += now_ms.saturating_sub(self.looked_ms);
        } else if consumed > self.consumed {
            // When it was last seen at work: at most as long ago as it truly took more.
            self.pace_ms = self.looked_ms.saturating_sub(self.progress_ms).max(self.pace_ms / 2);
        }
        if consumed > self.consumed || was_idle {
            self.progress_ms = now_ms;
            self.look_ms = LOOK_MS;
            self.stalled = false;
        } else {
            self.look_ms = (self.look_ms * 2).min(LOOK_MS_MAX);
            self.stalled |= now_ms.saturating_sub(self.progress_ms) >= STALLED_MS;
        }
        self.consumed = consumed;
        self.looked_ms = now_ms;
        if !was_idle && self.is_idle() {
            self.has_room();
        }
        if self.full_since_ms.is_some_and(|since_ms| since_ms + BLOCKED_MS <= now_ms) {
            self.blocked = true;
        }
    }

    /// A line was written.
    pub fn wrote(&mut self, now_ms: u64, bytes: u64) {
        if self.is_idle() {
            self.idle_ms += now_ms.saturating_sub(self.looked_ms);
            self.looked_ms = now_ms;
            self.progress_ms = now_ms;
        }
        self.look_ms = LOOK_MS;
        self.wrote += bytes;
        self.has_room();
    }

    /// A line found no room.
    pub fn is_full(&mut self, now_ms: u64) {
        self.full_since_ms.get_or_insert(now_ms);
    }

    /// There is room again.
    pub fn has_room(&mut self) {
        self.full_since_ms = None;
        self.blocked = false;
    }

    /// Where the last line ends, in bytes since the beginning.
    pub fn end(&self) -> u64 {
        self.wrote
    }

    /// How far it has read.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// How long in all it had nothing to read when it was last looked at, milliseconds.
    pub fn idle_ms(&self) -> u64 {
        self.idle_ms
    }

    /// Whether it has nothing to read.
    pub fn is_idle(&self) -> bool {
        self.consumed == self.wrote
    }

    /// Whether it keeps up with us so badly that it is to be offered nothing.
    pub fn is_behind(&self) -> bool {
        self.blocked || self.stalled
    }

    /// Whether there has been no room for a while.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// How long a line that it took may go untouched: a reader that works on each of its lines gets twice the time it lately took for one.
    pub fn grace_ms(&self, least_ms: u64) -> u64 {
        (self.pace_ms * 2).min(GRACE_MS_MAX).max(least_ms)
    }

    /// When it is worth a look again; when it will have been idle for another `idle_ms`, if it stays so.
    pub fn deadline(&self, idle_ms: Option<u64>) -> Option<u64> {
        let look = (!self.is_idle()).then_some(self.looked_ms + self.look_ms);
        let idle = idle_ms.filter(|_| self.is_idle()).map(|left_ms| self.looked_ms + left_ms);
        let full = self.full_since_ms.filter(|_| !self.blocked).map(|since_ms| since_ms + BLOCKED_MS);
        [look, idle, full].into_iter().flatten().min()
    }
}

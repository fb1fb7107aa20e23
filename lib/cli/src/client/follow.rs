//! One output of one task, from an offset to its end: in order, complete, and as fast as the bus carries it
use crate::{
    Failure,
    client::task_io::{REPLY_MS, TaskIo, may_know_later, pause, read_answer},
    complain,
};
use bytes::Bytes;
use meso_bus::{BusError, Subscription};
use meso_core::wire::io::{ALIVE_MS, CHUNK_BYTES_MAX, HOLD_MS_MAX, Stream, Told, What};
use std::{collections::VecDeque, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Questions under way at most while the task is ahead of its reader; their answers are all that is held in memory.
const WINDOW_MAX: usize = 16;
/// The first question that waits for bytes to come is held so long, and each that brings none makes the next one longer: a question that
/// dies with its agent is missed the sooner, the livelier the output was.
const HOLD_MS_MIN: u64 = 1_000;
/// How much longer than it is held the answer may take, doubled with each failure up to what an agent may need.
const MARGIN_MS: u64 = 1_000;
/// How long an agent may be silent before a reader gives up, unless told otherwise.
const PATIENCE_MS: u64 = 30_000;

/// How far ahead of its reader a flow may be, in bytes: what is held in memory at most.
const FLOW_BYTES: u64 = 4 << 20;
/// Less than this is asked for rather than let flow, in bytes.
const FLOW_BYTES_MIN: u64 = 512 << 10;
/// A flow in which not even a sign of life comes for so long is broken.
const FLOW_SILENT_MS: u64 = 2 * ALIVE_MS + REPLY_MS;

/// Reads one output of one task.
pub struct Follower {
    io: TaskIo,
    stream: Stream,
    /// Whether the task is to wait for this reader rather than have its output rotated away.
    holds_output: bool,
    patience: Duration,
    /// All bytes before this were handed out, or are lost.
    at: u64,
    /// Where the next question begins.
    ask_at: u64,
    /// The whole length, where it is known.
    total: Option<u64>,
    ended: bool,
    window: usize,
    flights: VecDeque<Flight>,
    /// Attempts in a row that brought no answer.
    failures: u32,
    /// Answers in a row that brought no bytes.
    idle: u32,
    /// Since when the agent is silent, or does not know the task; a reader that is slow itself does not count against it.
    silent_since: Option<Instant>,
    lost_bytes: u64,
    /// The output as it comes, while there is much of it.
    flow: Option<Flow>,
    /// A flow that broke is not tried again: question by question always works.
    may_flow: bool,
    /// The last answer was full, and much may follow.
    is_behind: bool,
}

/// All bytes from an offset on, as far as our credit reaches: much quicker than question by question.
struct Flow {
    messages: Subscription,
    inbox: String,
    upto: u64,
}

/// A question under way.
struct Flight {
    from: u64,
    bytes_max: u64,
    hold_ms: u64,
    asked: Instant,
    answer: JoinHandle<Result<(Told, Bytes), BusError>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

impl Follower {
    /// Reads from `offset`, bytes since the task began.
    pub fn new(io: TaskIo, stream: Stream, offset: u64) -> Self {
        Self {
            io,
            stream,
            holds_output: false,
            patience: Duration::from_millis(PATIENCE_MS),
            at: offset,
            ask_at: offset,
            total: None,
            ended: false,
            window: 1,
            flights: VecDeque::with_capacity(WINDOW_MAX),
            failures: 0,
            idle: 0,
            silent_since: None,
            lost_bytes: 0,
            flow: None,
            may_flow: true,
            is_behind: false,
        }
    }

    /// Asks that output waits for this reader; for the one who launched the task.
    pub fn holding_output(mut self) -> Self {
        self.holds_output = true;
        self
    }

    /// How long the agent may be silent before `next` fails.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The same from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Tells the whole length, as the final status says it: nothing is asked for beyond.
    pub fn expect(&mut self, total: u64) {
        self.total = Some(total);
        // Questions under way that wait for more than there will be would wait in vain.
        if self.flights.iter().any(|flight| flight.from + flight.bytes_max > total) {
            self.restart();
        }
    }

    /// Bytes since the task began that were handed out or are lost.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// Bytes that were rotated away before they could be read.
    pub fn lost_bytes(&self) -> u64 {
        self.lost_bytes
    }

    /// The next bytes, never empty; `None` once all there will ever be was handed out.
    ///
    /// Can be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// `Unreachable` if the agent is silent for the patience; what bus or agent refuse.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if self.ended || self.total.is_some_and(|total| self.at >= total) {
                self.flights.clear();
                self.flow = None;
                return Ok(None);
            }
            if self.flow.is_some() {
                if let Some(bytes) = self.next_of_flow().await {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.may_flow && self.is_behind {
                self.open_flow().await;
                continue;
            }
            self.ask();
            let Some(flight) = self.flights.front_mut() else { return Ok(None) };
            let outcome = (&mut flight.answer).await;
            // From here to the next turn nothing waits, so nothing can be dropped half done.
            let Some(flight) = self.flights.pop_front() else { return Ok(None) };
            let outcome = outcome.map_err(|_| Failure::internal("a question to an agent was lost"))?;
            if let Some(bytes) = self.take(&flight, outcome)? {
                return Ok(Some(bytes));
            }
        }
    }

    /// Asks for everything at once. Dropped halfway, nothing has changed.
    async fn open_flow(&mut self) {
        let bus = self.io.bus.clone();
        let inbox = bus.new_inbox();
        let upto = self.at + FLOW_BYTES;
        let opened = async {
            let messages = bus.subscribe(&inbox).await?;
            let what = What::Follow { stream: self.stream, offset: self.at, credit: FLOW_BYTES, follow: self.holds_output };
            self.io.tell(&what, Some(&inbox)).await?;
            Ok::<_, BusError>(messages)
        };
        match opened.await {
            Ok(messages) => {
                self.flights.clear();
                self.flow = Some(Flow { messages, inbox, upto });
            }
            Err(_) => self.may_flow = false,
        }
        self.is_behind = false;
    }

    /// The next bytes of the flow; nothing if there were none, or if it broke and questions take over.
    async fn next_of_flow(&mut self) -> Option<Bytes> {
        let flow = self.flow.as_mut()?;
        if flow.upto < self.at + FLOW_BYTES / 2 {
            // Before anything is taken: dropped here, it is only said again.
            let upto = self.at + FLOW_BYTES;
            let what = What::More { inbox: flow.inbox.clone(), upto };
            if self.io.tell(&what, None).await.is_ok() {
                flow.upto = upto;
            }
        }
        let message = timeout(Duration::from_millis(FLOW_SILENT_MS), flow.messages.next()).await;
        let told = match message {
            Ok(Some(message)) => read_answer(&message.payload),
            _ => None,
        };
        match told {
            Some((Told::Bytes { offset, end }, bytes)) if offset == self.at => {
                self.at += bytes.len() as u64;
                self.silent_since = None;
                (self.failures, self.idle) = (0, 0);
                if end {
                    self.ended = true;
                    self.note_loss_at_end();
                }
                (!bytes.is_empty()).then_some(bytes)
            }
            // The agent is gone, something is missing, or was rotated away: ask, which finds out.
            _ => {
                self.flow = None;
                self.restart();
                None
            }
        }
    }

    /// Sends as many questions as may be under way.
    fn ask(&mut self) {
        while self.flights.len() < self.window {
            let room = self.total.map_or(u64::MAX, |total| total.saturating_sub(self.ask_at));
            let bytes_max = room.min(CHUNK_BYTES_MAX as u64);
            if bytes_max == 0 {
                return;
            }
            // Only the first waits for bytes to come: the others are asked because there should be some.
            let flight = self.send(self.ask_at, bytes_max, self.flights.is_empty());
            self.ask_at += bytes_max;
            self.flights.push_back(flight);
        }
    }

    fn send(&self, from: u64, bytes_max: u64, is_held: bool) -> Flight {
        let hold_ms = if is_held { (HOLD_MS_MIN << self.idle.min(8)).min(HOLD_MS_MAX) } else { 0 };
        // Several large answers share the way: those may take long without anybody being gone.
        let margin_ms = if is_held { (MARGIN_MS << self.failures.min(8)).min(REPLY_MS) } else { REPLY_MS };
        let io = self.io.clone();
        let max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        let what = What::Read { stream: self.stream, offset: from, max, wait_ms: hold_ms, follow: self.holds_output };
        let first = pause(self.failures);
        let answer = tokio::spawn(async move {
            if !first.is_zero() {
                sleep(first).await;
            }
            io.ask_once(&what, &[], Duration::from_millis(hold_ms + margin_ms)).await
        });
        Flight { from, bytes_max, hold_ms, asked: Instant::now() + first, answer }
    }

    /// Takes in an answer; gives its bytes if there are any.
    fn take(&mut self, flight: &Flight, outcome: Result<(Told, Bytes), BusError>) -> Result<Option<Bytes>, Failure> {
        let (offset, end, bytes) = match outcome {
            Ok((Told::Bytes { offset, end }, bytes)) => (offset, end, bytes),
            Ok((Told::No { code, message }, _)) => {
                if may_know_later(&code, *self.silent_since.get_or_insert_with(Instant::now)) {
                    return self.again();
                }
                return Err(self.io.refused(&code, &message));
            }
            Ok(_) => return Err(self.odd("answers something else")),
            Err(error) if error.may_pass() => return self.again(),
            Err(error) => return Err(error.into()),
        };
        if offset < flight.from {
            return Err(self.odd("repeats bytes"));
        }
        self.silent_since = None;
        self.note_loss(offset - flight.from);
        self.at = offset + bytes.len() as u64;
        if end {
            self.ended = true;
            self.note_loss_at_end();
        } else if bytes.is_empty() {
            // An agent that does not hold the question is not asked without a pause.
            let was_held = flight.asked.elapsed() >= Duration::from_millis(flight.hold_ms / 2);
            self.failures = if was_held { 0 } else { self.failures.saturating_add(1) };
            self.idle = self.idle.saturating_add(u32::from(flight.hold_ms > 0));
            self.restart();
        } else {
            (self.failures, self.idle) = (0, 0);
            self.line_up(bytes.len() as u64 >= flight.bytes_max);
        }
        Ok(if bytes.is_empty() { None } else { Some(bytes) })
    }

    /// Brings the questions under way in line with what was read.
    fn line_up(&mut self, was_full: bool) {
        self.window = if was_full || self.total.is_some() { WINDOW_MAX } else { 1 };
        self.is_behind = was_full && self.total.is_none_or(|total| total.saturating_sub(self.at) > FLOW_BYTES_MIN);
        match self.flights.front().map(|flight| flight.from) {
            None => self.ask_at = self.at,
            Some(from) if from == self.at => {}
            // Less came than was asked for, and the rest may be on its way already.
            Some(from) if from > self.at => {
                let flight = self.send(self.at, from - self.at, true);
                self.flights.push_front(flight);
            }
            Some(_) => self.restart(),
        }
    }

    /// Asks again from where we are, one question at first.
    fn restart(&mut self) {
        self.flights.clear();
        self.ask_at = self.at;
        self.window = 1;
    }

    /// After an attempt that brought nothing: the agent may be starting again.
    fn again(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.io.bus.is_connected() {
            // It is not the agent that is silent.
            self.silent_since = None;
        }
        if self.silent_since.get_or_insert_with(Instant::now).elapsed() >= self.patience {
            return Err(self.io.silent());
        }
        self.failures = self.failures.saturating_add(1);
        self.restart();
        Ok(None)
    }

    fn note_loss(&mut self, bytes: u64) {
        if bytes > 0 && self.lost_bytes == 0 {
            complain(&format!("{} of {}: {bytes} bytes before offset {} were rotated away and are missing here", self.stream_word(), self.io.task, self.at + bytes));
        }
        self.lost_bytes += bytes;
    }

    fn note_loss_at_end(&self) {
        if let Some(total) = self.total.filter(|total| self.at < *total) {
            complain(&format!("{} of {}: the last {} bytes are missing", self.stream_word(), self.io.task, total - self.at));
        }
    }

    fn odd(&self, what: &str) -> Failure {
        Failure::failed(format!("{} {what}, asked for {} of {}", self.io.agent, self.stream_word(), self.io.task)).hint("the same version of meso everywhere")
    }

    fn stream_word(&self) -> &'static str {
        match self.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testagent::TestAgent;

    async fn read_all(follower: &mut Follower) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(bytes) = follower.next().await.expect("the agent answers") {
            assert!(!bytes.is_empty());
            all.extend_from_slice(&bytes);
        }
        all
    }

    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
    }

    /// Shows that output far larger than the window arrives whole and in order, whether or not its length is known.
    #[tokio::test]
    async fn a_finished_output() {
        let agent = TestAgent::start().await;
        let all = pattern(10 * CHUNK_BYTES_MAX + 12_345);
        agent.write(&all);
        agent.end();
        let mut follower = agent.follower(0);
        assert!(read_all(&mut follower).await == all);
        let mut follower = agent.follower(0);
        follower.expect(all.len() as u64);
        assert!(read_all(&mut follower).await == all);
        let mut follower = agent.follower(all.len() as u64 - 7);
        assert_eq!(read_all(&mut follower).await, all[all.len() - 7..]);
    }

    /// Shows that an output known to be empty needs no answer at all.
    #[tokio::test]
    async fn an_empty_output() {
        let agent = TestAgent::start().await;
        let mut follower = agent.follower(0);
        follower.expect(0);
        assert_eq!(follower.next().await.expect("nothing is asked"), None);
        assert_eq!(agent.asked(), 0);
    }

    /// Shows that a reader that is ahead gets each piece as it is written, and that dropping `next` loses nothing.
    #[tokio::test]
    async fn a_growing_output() {
        let agent = TestAgent::start().await;
        let mut follower = agent.follower(0);
        let mut seen = Vec::new();
        for piece in 0..50u8 {
            agent.write(&[piece; 1000]);
            while seen.len() < (usize::from(piece) + 1) * 1000 {
                // Dropped again and again in the middle of waiting.
                tokio::select! {
                    bytes = follower.next() => seen.extend_from_slice(&bytes.expect("the agent answers").expect("it has not ended")),
                    () = sleep(Duration::from_millis(1)) => {}
                }
            }
        }
        agent.end();
        assert_eq!(follower.next().await.expect("the agent answers"), None);
        let expected: Vec<u8> = (0..50u8).flat_map(|piece| [piece; 1000]).collect();
        assert_eq!(seen, expected);
    }

    /// Shows that an agent that sends less than was asked for is read without a hole.
    #[tokio::test]
    async fn short_answers() {
        let agent = TestAgent::start().await;
        let all = pattern(4 * CHUNK_BYTES_MAX);
        agent.write(&all);
        agent.end();
        agent.answer_at_most(300_000);
        let mut follower = agent.follower(0);
        follower.expect(all.len() as u64);
        assert!(read_all(&mut follower).await == all);
    }

    /// Shows that bytes rotated away are counted, and that reading goes on behind them.
    #[tokio::test]
    async fn a_rotated_output() {
        let agent = TestAgent::start().await;
        let all = pattern(5 * CHUNK_BYTES_MAX);
        agent.write(&all);
        agent.rotate(2 * CHUNK_BYTES_MAX as u64 + 5);
        agent.end();
        let mut follower = agent.follower(0);
        follower.expect(all.len() as u64);
        assert!(read_all(&mut follower).await == all[2 * CHUNK_BYTES_MAX + 5..]);
        assert_eq!(follower.lost_bytes(), 2 * CHUNK_BYTES_MAX as u64 + 5);
    }

    /// Shows that an agent that goes away in the middle and comes back is waited for, and one that stays away is not for ever.
    #[tokio::test]
    async fn an_agent_that_restarts() {
        let mut agent = TestAgent::start().await;
        let all = pattern(3 * CHUNK_BYTES_MAX);
        agent.write(&all);
        let mut follower = agent.follower(0);
        let mut seen = follower.next().await.expect("the agent answers").expect("there are bytes").to_vec();
        agent.stop();
        agent.end();
        let waits = tokio::time::timeout(Duration::from_millis(300), async {
            while let Some(bytes) = follower.next().await.expect("it is waited for") {
                seen.extend_from_slice(&bytes);
            }
        });
        assert!(waits.await.is_err(), "nobody said that the output ended");
        agent.come_back().await;
        seen.extend(read_all(&mut follower).await);
        assert!(seen == all);

        agent.stop();
        let mut follower = agent.follower(0).with_patience(Duration::from_millis(200));
        let failure = follower.next().await.expect_err("nobody is there");
        assert!(failure.what().contains("does not answer"), "{failure}");
    }

    /// Shows that a refusal ends the reading with the agent's own words.
    #[tokio::test]
    async fn a_refusal() {
        let agent = TestAgent::start().await;
        agent.refuse("not_yours", "task_1 is ann's");
        let failure = agent.follower(0).next().await.expect_err("it is refused");
        assert_eq!((failure.kind(), failure.what()), (crate::FailureKind::Denied, "task_1 belongs to another: task_1 is ann's"));
    }
}

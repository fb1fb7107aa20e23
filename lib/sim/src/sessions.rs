//! The laws of sessions: who was offered what, whose calls may have an effect, which statuses were acknowledged.

use std::collections::{BTreeMap, HashMap, VecDeque};

use meso_core::id::{FrameworkId, Nonce, OfferId, TaskId};
use meso_core::master::{Caller, Lead};
use meso_core::wire::Update;
use meso_core::wire::ack::AckId;
use meso_core::wire::call::{Answer, Call};
use std::rc::Rc;

/// The first wait before a status is told again, milliseconds: the contract of whoever acknowledges by hand.
const AGAIN_MS: u64 = 10_000;
/// How much later than that it may be, with a reader that is slow, milliseconds.
const AGAIN_SLACK_MS: u64 = 60_000;

/// A leader: which master, which run of it, under which epoch.
pub type Leading = (usize, u64, u64);

/// A status as its reader was told it last.
#[derive(Clone, Debug)]
struct Told {
    seq: u64,
    at_ms: u64,
    times: u32,
}

/// What really happened to sessions, seen from outside of all machines.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Who asked what: a member, and its call.
    asks: HashMap<Caller, (usize, Box<Call>)>,
    /// To which session an offer was made.
    made: HashMap<OfferId, Nonce>,
    /// By which tasks an offer was used.
    used: HashMap<OfferId, Vec<TaskId>>,
    /// Which session a number of a framework is.
    numbers: HashMap<Nonce, u64>,
    /// The highest number that was answered, by which leader, and to which session.
    top: BTreeMap<FrameworkId, (u64, Leading, Nonce)>,
    /// Offers that are out, master by master: by when each must be back on that master's clock.
    out: Vec<VecDeque<(u64, OfferId)>>,
    /// Up to which status of a task its framework's readers acknowledged.
    acked: HashMap<TaskId, u64>,
    /// Up to where in a framework's record all was found acknowledged.
    checked: HashMap<FrameworkId, u64>,
    /// What the readers of each pipeline were told and have not acknowledged.
    told: HashMap<(usize, TaskId), Told>,
}

impl Sessions {
    /// None yet, under so many masters.
    pub fn new(masters: usize) -> Self {
        Sessions { out: vec![VecDeque::new(); masters], ..Sessions::default() }
    }

    /// A member asks a leader.
    pub fn asks(&mut self, caller: Caller, member: usize, call: &Call) {
        self.asks.insert(caller, (member, Box::new(call.clone())));
    }

    /// Which member asked.
    pub fn who(&self, caller: Caller) -> Option<usize> {
        self.asks.get(&caller).map(|(member, _)| *member)
    }

    /// Whether the caller speaks for a session that was fenced.
    pub fn is_fenced(&self, caller: Caller) -> bool {
        let Some((_, call)) = self.asks.get(&caller) else { return false };
        let Some((framework, session)) = speaks_for(call) else { return false };
        self.numbers.get(session).is_some_and(|no| self.top.get(framework).is_some_and(|(top, ..)| no < top))
    }

    /// A leader makes offers to a session; each must be back on its own clock by then.
    pub fn offered(&mut self, master: usize, session: &Nonce, offer: &OfferId, back_ms: u64) {
        self.made.insert(offer.clone(), session.clone());
        self.out[master].push_back((back_ms, offer.clone()));
    }

    /// What a leader has forgotten of its own accord fences nobody any more.
    pub fn forget(&mut self, lead: &Lead) {
        self.top.retain(|framework, _| lead.frameworks().contains_key(framework));
    }

    /// Compares a leader's books with what must hold of sessions after every event.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&mut self, master: usize, local_ms: u64, lead: &Lead) -> Result<(), String> {
        for (framework, entry) in lead.frameworks() {
            if !entry.is_connected()
                && let Some(offer) = lead.ledger().offers_of(framework).next()
            {
                return Err(format!("framework {framework} has no session and holds offer {offer}"));
            }
        }
        while let Some((_, offer)) = self.out[master].pop_front_if(|(back_ms, _)| *back_ms < local_ms) {
            if lead.ledger().find_offer(&offer).is_some() {
                return Err(format!("offer {offer} is still out after its time"));
            }
        }
        Ok(())
    }

    /// A leader answers a member's call. Where the registry can be lost, only what the same leader said counts.
    ///
    /// # Errors
    /// Why that answer must not be.
    pub fn answered(&mut self, by: Leading, caller: Caller, answer: &Answer, forgetful: bool) -> Result<(), String> {
        let Some((_, call)) = self.asks.get(&caller) else { return Ok(()) };
        if let (Call::Subscribe(subscribe), Answer::Subscribed { framework, session_no, .. }) = (&**call, answer) {
            // A session that never heard its number may be given another one by a later leader.
            self.numbers.insert(subscribe.session.clone(), *session_no);
            if let Some((top, said_by, held)) = self.top.get(framework).filter(|(_, said_by, _)| !forgetful || *said_by == by) {
                if session_no < top {
                    return Err(format!("session {session_no} of framework {framework} is welcome after session {top}, by leader {said_by:?}"));
                }
                // Who held the name before its registry was lost comes back with the number that it had.
                if session_no == top && *held != subscribe.session && !forgetful {
                    return Err(format!("two sessions of framework {framework} are number {session_no}"));
                }
            }
            self.top.insert(framework.clone(), (*session_no, by, subscribe.session.clone()));
            return Ok(());
        }
        let has_effect = matches!(answer, Answer::Accepted { .. } | Answer::Done {});
        if let (true, Some((framework, session))) = (has_effect, speaks_for(call))
            && let (Some(no), Some((top, said_by, _))) = (self.numbers.get(session), self.top.get(framework))
            && no < top
            && (!forgetful || *said_by == by)
        {
            return Err(format!("a call of session {no} of framework {framework} has an effect after session {top} began"));
        }
        if let (Call::Accept(accept), Answer::Accepted { tasks }) = (&**call, answer) {
            for offer in &accept.offers {
                match self.used.get(offer) {
                    Some(before) if before != tasks => return Err(format!("offer {offer} was used for {before:?} and again for {tasks:?}")),
                    Some(_) => {}
                    None => {
                        self.used.insert(offer.clone(), tasks.clone());
                    }
                }
                if self.made.get(offer).is_some_and(|session| *session != accept.session) {
                    return Err(format!("offer {offer} was accepted by another session than it was made to"));
                }
            }
        }
        Ok(())
    }

    /// A pipeline's reader is told a status.
    ///
    /// # Errors
    /// It comes after a later one of the same task.
    pub fn told(&mut self, pipe: usize, ack: &AckId, now_ms: u64) -> Result<(), String> {
        let told = self.told.entry((pipe, ack.task.clone())).or_insert(Told { seq: 0, at_ms: now_ms, times: 0 });
        if ack.seq < told.seq {
            return Err(format!("number {} of task {} was told after number {}", ack.seq, ack.task, told.seq));
        }
        let times = if ack.seq == told.seq { told.times + 1 } else { 1 };
        *told = Told { seq: ack.seq, at_ms: now_ms, times };
        Ok(())
    }

    /// A reader acknowledges a status, or read it where that is enough.
    pub fn acked(&mut self, pipe: usize, ack: &AckId) {
        let upto = self.acked.entry(ack.task.clone()).or_default();
        *upto = ack.seq.max(*upto);
        if let Some(told) = self.told.get_mut(&(pipe, ack.task.clone())) {
            told.times = 0;
        }
    }

    /// Nobody of a pipeline is left to be told anything.
    pub fn reader_gone(&mut self, pipe: usize) {
        self.told.retain(|(of, _), _| *of != pipe);
    }

    /// Whether a status that a pipeline's reader did not acknowledge was told again in time.
    ///
    /// # Errors
    /// Which was not.
    pub fn told_again(&self, pipe: usize, calm_ms: u64, now_ms: u64) -> Result<(), String> {
        for ((of, task), told) in &self.told {
            let due_ms = told.at_ms.max(calm_ms) + (AGAIN_MS << told.times.min(10)) + AGAIN_SLACK_MS;
            // Another reader of the same framework may have.
            let is_acked = self.acked.get(task).is_some_and(|acked| *acked >= told.seq);
            if *of == pipe && told.times > 0 && due_ms < now_ms && !is_acked {
                return Err(format!("number {} of task {task} was told {} times, the last {} ms ago, and nobody acknowledged it", told.seq, told.times, now_ms - told.at_ms));
            }
        }
        Ok(())
    }

    /// The end of a framework's record is lost: this much is left of it.
    pub fn reverted(&mut self, framework: &FrameworkId, left: usize) {
        if let Some(checked) = self.checked.get_mut(framework) {
            *checked = (left as u64).min(*checked);
        }
    }

    /// A session begins behind what the one before it found acknowledged. If nobody said when that was recorded, and the
    /// record lost its end meanwhile and has grown again, what stands there now is not told from what stood there then.
    ///
    /// # Errors
    /// Something there is not acknowledged.
    pub fn begins(&mut self, framework: &FrameworkId, record: &[Rc<Update>], after: u64, is_marked: bool) -> Result<(), String> {
        match self.seen(framework, record, after) {
            Err(_) if !is_marked => {
                self.checked.insert(framework.clone(), after);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// All of a framework's record up to here is taken for acknowledged.
    ///
    /// # Errors
    /// It is not.
    pub fn seen(&mut self, framework: &FrameworkId, record: &[Rc<Update>], upto: u64) -> Result<(), String> {
        let from = self.checked.get(framework).copied().unwrap_or(0);
        for update in record.iter().take(upto as usize).skip(from as usize) {
            // What a master says of a task has no number of its own, and ends what its agent could still say.
            let by_master = record.iter().any(|other| other.task == update.task && other.agent_seq == 0);
            // A stream that lost its end is filled again with what a reader was told the sequel of: telling it now would turn the
            // order round.
            let is_overtaken = self.told.iter().any(|((_, task), told)| *task == update.task && told.seq > update.seq);
            if !by_master && !is_overtaken && self.acked.get(&update.task).is_none_or(|acked| *acked < update.seq) {
                return Err(format!("{} of task {}, number {}, counts as seen and nobody acknowledged it", update.state, update.task, update.seq));
            }
        }
        self.checked.insert(framework.clone(), upto.max(from));
        Ok(())
    }
}

/// For which session a call is made, if for one; what a principal may say without a session is not fenced.
fn speaks_for(call: &Call) -> Option<(&FrameworkId, &Nonce)> {
    match call {
        Call::Demand { framework, session, .. }
        | Call::Decline { framework, session, .. }
        | Call::Seen { framework, session, .. }
        | Call::Beat { framework, session, .. }
        | Call::Leave { framework, session, .. }
        | Call::Reconcile { framework, session, .. } => Some((framework, session)),
        Call::Accept(accept) => Some((&accept.framework, &accept.session)),
        _ => None,
    }
}

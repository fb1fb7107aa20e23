//! Who leads, asked until there is an answer or the time is over
use crate::client::absence::patience;
use crate::{Access, Failure, complain};
use bytes::Bytes;
use meso_bus::{Bus, BusError};
use meso_core::id::Principal;
use meso_core::policy::Subject;
use meso_core::wire::call::{Answer, Call};
use meso_core::wire::explain::{Ask, Told};
use meso_core::wire::operator::{Operation, Outcome};
use meso_core::wire::query::{AgentRow, FrameworkRow, MasterRow, OfferRow, Query, RoleRow, Rows, Table, TaskRow};
use meso_core::wire::snapshot::Snapshot;
use meso_core::wire::{Refusal, RefusalCode};
use serde::de::DeserializeOwned;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long tools wait for a bus or a leader that is away: longer than servers and masters need to replace one another.
pub const PATIENCE_MS: u64 = 30_000;
/// The same where another may know as much, or where it is an agent that is silent and not a leader: a person waits for it.
pub const LISTING_MS: u64 = 5_000;
/// After this long without an answer a question is asked again: the one who had it may be gone.
const ATTEMPT_MS: u64 = 2_000;
/// A person is told of a leader that is silent for so long.
const TOLD_AFTER_MS: u64 = 1_500;
/// First and longest pause between two attempts.
const RETRY_MS: u64 = 100;
const RETRY_MS_MAX: u64 = 1_000;
/// No table is longer than this many answers.
const PAGES_MAX: usize = 4_000;

/// The way to whoever leads.
#[derive(Clone)]
pub struct Leader {
    bus: Bus,
    principal: Principal,
}

/// What one attempt brought.
enum Attempt<T> {
    Answered(T),
    /// Nobody there, or one who does not know yet.
    Later,
}

impl Leader {
    pub fn new(bus: Bus, principal: Principal) -> Self {
        Self { bus, principal }
    }

    /// Connects; a bus that goes away later comes back or not, which [`Absence`](crate::client::Absence) waits for.
    ///
    /// # Errors
    /// `Unreachable`, `Denied` or `Usage`, as the bus says it: where nobody listens at the start, that is said at once.
    pub async fn connect(access: &Access) -> Result<Self, Failure> {
        let mut options = access.options();
        options.reconnect = true;
        let bus = Bus::connect(&options, patience()).await?;
        Ok(Self::new(bus, access.principal.clone()))
    }

    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Who we are.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Makes a call, again and again until a leader has a verdict; `None` if nobody had one within `limit`.
    ///
    /// A call may be repeated: the leader answers the same. A refusal that only asks for patience is not handed on.
    ///
    /// # Errors
    /// What another attempt cannot mend: not permitted, too big, not understood, closed.
    pub async fn call(&self, call: &Call, limit: Duration) -> Result<Option<Answer>, Failure> {
        let subject = self.bus.subjects().framework_call(&self.principal, "call");
        let payload = to_json(call)?;
        self.until_answered(&subject, payload, limit, |answer: Answer| match answer {
            Answer::Refused(refusal) if asks_for_patience(&refusal) => Attempt::Later,
            answer => Attempt::Answered(answer),
        })
        .await
    }

    /// Makes an operator's call, as [`Leader::call`] makes a framework's.
    ///
    /// # Errors
    /// As [`Leader::call`].
    pub async fn operate(&self, operation: &Operation, limit: Duration) -> Result<Option<Outcome>, Failure> {
        let subject = self.bus.subjects().operator_call(&self.principal, "operate");
        let payload = to_json(operation)?;
        self.until_answered(&subject, payload, limit, |outcome: Outcome| match outcome {
            Outcome::Refused(refusal) if asks_for_patience(&refusal) => Attempt::Later,
            outcome => Attempt::Answered(outcome),
        })
        .await
    }

    /// Asks for one page of a table; `None` if nobody leads within `limit`.
    ///
    /// # Errors
    /// As [`Leader::call`], and a refusal.
    pub async fn ask(&self, query: &Query, limit: Duration) -> Result<Option<Rows>, Failure> {
        let subject = self.bus.subjects().query(&self.principal, "ask");
        let payload = to_json(query)?;
        let rows = self
            .until_answered(&subject, payload, limit, |rows: Rows| match rows {
                Rows::Refused { refusal } if asks_for_patience(&refusal) => Attempt::Later,
                rows => Attempt::Answered(rows),
            })
            .await?;
        match rows {
            Some(Rows::Refused { refusal }) => Err(Failure::failed(refusal.message)),
            rows => Ok(rows),
        }
    }

    /// Asks why somebody waits: for the whole explanation, or a part of it.
    ///
    /// # Errors
    /// As [`Leader::ask`], and `Unreachable` if nobody leads within `limit`.
    pub async fn explain<T: DeserializeOwned>(&self, ask: Ask, limit: Duration) -> Result<T, Failure> {
        let subject = self.bus.subjects().query(&self.principal, "ask");
        let payload = to_json(&Query { of: Table::Explain, from: String::new(), prefix: String::new(), ask: Some(Box::new(ask)) })?;
        let told = self
            .until_answered(&subject, payload, limit, |told: Told<T>| match told.refusal {
                Some(ref refusal) if asks_for_patience(refusal) => Attempt::Later,
                _ => Attempt::Answered(told),
            })
            .await?;
        match told {
            Some(Told { explanation: Some(explanation), .. }) => Ok(explanation),
            Some(Told { refusal: Some(refusal), .. }) => Err(Failure::failed(refusal.message)),
            Some(_) => Err(not_understood()),
            None => Err(self.nobody(limit)),
        }
    }

    /// Asks for a whole table, page after page, as one; `next` is empty in it.
    ///
    /// # Errors
    /// As [`Leader::ask`], and `Unreachable` if nobody leads within `limit`.
    pub async fn rows_all(&self, of: Table, prefix: &str, limit: Duration) -> Result<Rows, Failure> {
        let deadline = Instant::now() + limit;
        let mut query = Query { of, from: String::new(), prefix: prefix.to_owned(), ask: None };
        let mut whole: Option<Rows> = None;
        for _ in 0..PAGES_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            let page = self.ask(&query, left).await?.ok_or_else(|| self.nobody(limit))?;
            let next = match (&mut whole, page) {
                (whole @ None, mut page) => {
                    let next = take_next(&mut page);
                    *whole = Some(page);
                    next
                }
                (Some(whole), page) => extend(whole, page).ok_or_else(not_understood)?,
            };
            if next.is_empty() {
                return whole.ok_or_else(not_understood);
            }
            // A leader that never comes to an end is none of ours.
            if next <= query.from {
                return Err(not_understood());
            }
            query.from = next;
        }
        Err(Failure::failed(format!("the table has more than {PAGES_MAX} pages")).hint("ask for fewer, by the beginning of their ids"))
    }

    /// The tasks whose id or name begins with `prefix`: live ones, and those that ended lately.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn tasks(&self, prefix: &str, limit: Duration) -> Result<Vec<TaskRow>, Failure> {
        match self.rows_all(Table::Tasks, prefix, limit).await? {
            Rows::Tasks { page, .. } => Ok(page),
            _ => Err(not_understood()),
        }
    }

    /// The agents.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn agents(&self, limit: Duration) -> Result<Vec<AgentRow>, Failure> {
        match self.rows_all(Table::Agents, "", limit).await? {
            Rows::Agents { page, .. } => Ok(page),
            _ => Err(not_understood()),
        }
    }

    /// The frameworks.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn frameworks(&self, limit: Duration) -> Result<Vec<FrameworkRow>, Failure> {
        match self.rows_all(Table::Frameworks, "", limit).await? {
            Rows::Frameworks { page, .. } => Ok(page),
            _ => Err(not_understood()),
        }
    }

    /// The offers that are out.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn offers(&self, limit: Duration) -> Result<Vec<OfferRow>, Failure> {
        match self.rows_all(Table::Offers, "", limit).await? {
            Rows::Offers { page, .. } => Ok(page),
            _ => Err(not_understood()),
        }
    }

    /// The leader, then its standbys.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn masters(&self, limit: Duration) -> Result<Vec<MasterRow>, Failure> {
        match self.rows_all(Table::Masters, "", limit).await? {
            Rows::Masters { page } => Ok(page),
            _ => Err(not_understood()),
        }
    }

    /// The roles in the order of their tree, each followed by those of its frameworks that have a policy of their own.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn roles(&self, limit: Duration) -> Result<Vec<RoleRow>, Failure> {
        match self.rows_all(Table::Roles, "", limit).await? {
            Rows::Roles { mut page, .. } => {
                // As texts `eng-x` would stand between `eng` and `eng/a`.
                page.sort_by(|a, b| place_in_tree(&a.subject).cmp(&place_in_tree(&b.subject)));
                Ok(page)
            }
            _ => Err(not_understood()),
        }
    }

    /// The cluster as an allocation policy sees it. A large one is put together of parts of different moments.
    ///
    /// # Errors
    /// As [`Leader::rows_all`].
    pub async fn snapshot(&self, limit: Duration) -> Result<Snapshot, Failure> {
        match self.rows_all(Table::Snapshot, "", limit).await? {
            Rows::Snapshot { mut page, .. } => {
                page.drop_strangers();
                Ok(page)
            }
            _ => Err(not_understood()),
        }
    }

    /// What to say when nobody answered within `limit`.
    pub fn nobody(&self, limit: Duration) -> Failure {
        let url = self.bus.options().shown_url();
        Failure::unreachable(format!("no master answered on {url} in {} s", limit.as_millis().div_ceil(1000))).hint("meso-up, which starts a cluster here, or --nats URL of one that runs")
    }

    async fn until_answered<T: DeserializeOwned>(&self, subject: &str, payload: Bytes, limit: Duration, verdict: impl Fn(T) -> Attempt<T>) -> Result<Option<T>, Failure> {
        let deadline = Instant::now() + limit;
        let mut tell_at = std::io::stderr().is_terminal().then(|| Instant::now() + Duration::from_millis(TOLD_AFTER_MS));
        let mut pause_ms = RETRY_MS;
        loop {
            if tell_at.is_some_and(|at| Instant::now() >= at) && self.bus.is_connected() {
                tell_at = None;
                complain(&format!("no master answers; waiting for one, {} s at most", limit.as_millis().div_ceil(1000)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.bus.request(subject, payload.clone(), left.min(Duration::from_millis(ATTEMPT_MS))).await {
                Ok(bytes) => match verdict(serde_json::from_slice(&bytes).map_err(|_| not_understood())?) {
                    Attempt::Answered(answer) => return Ok(Some(answer)),
                    Attempt::Later => {}
                },
                Err(BusError::Unreachable { .. }) if self.bus.options().reconnect => {}
                Err(BusError::NoResponders { .. } | BusError::Timeout { .. } | BusError::Busy { .. } | BusError::Unready { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() + Duration::from_millis(pause_ms) >= deadline {
                return Ok(None);
            }
            sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(RETRY_MS_MAX);
        }
    }
}

/// Whether a refusal is no verdict: the same again, a moment later, may be answered otherwise.
pub(crate) fn asks_for_patience(refusal: &Refusal) -> bool {
    matches!(refusal.code, RefusalCode::NotLeading | RefusalCode::Recovering | RefusalCode::Busy)
}

fn take_next(rows: &mut Rows) -> String {
    match rows {
        Rows::Tasks { next, .. } | Rows::Agents { next, .. } | Rows::Frameworks { next, .. } | Rows::Offers { next, .. } | Rows::Roles { next, .. } | Rows::Snapshot { next, .. } => std::mem::take(next),
        Rows::Masters { .. } | Rows::Explain { .. } | Rows::Refused { .. } => String::new(),
    }
}

/// Puts a page behind the pages before; says where the next one begins. None if it is of another table.
fn extend(whole: &mut Rows, more: Rows) -> Option<String> {
    match (whole, more) {
        (Rows::Tasks { page, .. }, Rows::Tasks { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        (Rows::Agents { page, .. }, Rows::Agents { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        (Rows::Frameworks { page, .. }, Rows::Frameworks { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        (Rows::Offers { page, .. }, Rows::Offers { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        (Rows::Roles { page, .. }, Rows::Roles { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        (Rows::Snapshot { page, .. }, Rows::Snapshot { page: more, next }) => {
            page.extend(more);
            Some(next)
        }
        _ => None,
    }
}

/// The names down to a role, then the framework.
fn place_in_tree(subject: &Subject) -> (Vec<&str>, Option<&str>) {
    let framework = match subject {
        Subject::Role(_) => None,
        Subject::Framework(_, name) => Some(name.as_str()),
    };
    (subject.role().as_str().split('/').collect(), framework)
}

fn to_json(message: &impl serde::Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(message).map(Bytes::from).map_err(|e| Failure::internal(format!("writing a message: {e}")))
}

pub(crate) fn not_understood() -> Failure {
    Failure::failed("the leader's answer is not understood").hint("the same version of meso everywhere")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::sample::{role, update};
    use crate::client::testleader::TestLeader;
    use meso_bus::BusOptions;
    use meso_bus::subjects::inbox_of;
    use meso_bus::testserver::{Server, ServerSpec};
    use meso_core::id::Name;
    use meso_core::task::TaskState;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const LIMIT: Duration = Duration::from_secs(10);

    fn kill() -> Call {
        Call::Kill { tasks: vec![], grace_ms: None }
    }

    /// Shows that nobody is no failure but a value, soon after the limit, and that one who comes in time is found.
    #[tokio::test]
    async fn a_leader_is_waited_for() {
        let cluster = TestLeader::start().await;
        let leader = cluster.leader();
        assert_eq!(leader.call(&kill(), Duration::from_millis(300)).await.expect("the bus is there"), None);
        let call = kill();
        let answered = leader.call(&call, LIMIT);
        let comes = async {
            sleep(Duration::from_millis(250)).await;
            cluster.answer_calls(|_| Answer::Done {}).await;
        };
        assert_eq!(tokio::join!(answered, comes).0.expect("the bus is there"), Some(Answer::Done {}));
    }

    /// Shows that a refusal that asks for patience is asked again, and that a verdict is handed on as it is.
    #[tokio::test]
    async fn patience_and_verdicts() {
        let cluster = TestLeader::start().await;
        let asked = AtomicUsize::new(0);
        let codes = [RefusalCode::NotLeading, RefusalCode::Recovering, RefusalCode::Busy, RefusalCode::NotYours];
        cluster
            .answer_calls(move |_| {
                let code = codes[asked.fetch_add(1, Ordering::SeqCst).min(3)];
                Answer::Refused(Refusal::new(code, "why"))
            })
            .await;
        let answer = cluster.leader().call(&kill(), LIMIT).await.expect("the bus is there");
        assert_eq!(answer, Some(Answer::Refused(Refusal::new(RefusalCode::NotYours, "why"))));
    }

    /// Shows that an operation is asked again while a leader asks for patience, and that its refusal is an answer.
    #[tokio::test]
    async fn operations() {
        let cluster = TestLeader::start().await;
        let asked = AtomicUsize::new(0);
        cluster
            .answer_operations(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
                0 => Outcome::Refused(Refusal::new(RefusalCode::Recovering, "not yet")),
                _ => Outcome::Refused(Refusal::new(RefusalCode::Contradicts, "too much")),
            })
            .await;
        let operation = Operation::RemoveRole { subject: Subject::parse("eng").expect("a role"), dry_run: true };
        let outcome = cluster.leader().operate(&operation, LIMIT).await.expect("the bus is there");
        assert_eq!(outcome, Some(Outcome::Refused(Refusal::new(RefusalCode::Contradicts, "too much"))));
    }

    /// Shows that who may ask but not operate is told so by the bus at once, with the code for it.
    #[tokio::test]
    async fn operators_only() {
        let config = r#"accounts { A { jetstream: enabled, users: [ { user: me, password: p, permissions: { publish: { deny: ["meso.test.o2m.>"] } } } ] } }"#;
        let server = Server::start(ServerSpec { config: config.to_owned(), ..ServerSpec::default() }).expect("nats-server is installed");
        let mut options = BusOptions::new(&server.url(), &Name::parse("test").expect("a name"), inbox_of("me"), "test");
        (options.user, options.password) = (Some("me".to_owned()), Some("p".to_owned()));
        let leader = Leader::new(Bus::connect(&options, LIMIT).await.expect("it listens"), Principal::parse("me").expect("a principal"));
        let operation = Operation::RemoveRole { subject: Subject::parse("eng").expect("a role"), dry_run: false };
        let failure = leader.operate(&operation, LIMIT).await.expect_err("it is not permitted");
        assert_eq!((failure.kind(), failure.next_step().is_some()), (crate::FailureKind::Denied, true), "{failure}");
    }

    /// Shows that roles stand in the order of their tree however their pages came.
    #[tokio::test]
    async fn roles_in_their_tree() {
        let cluster = TestLeader::start().await;
        cluster
            .answer_queries(|query| {
                let (names, next) = if query.from.is_empty() { (["eng", "eng-x", "eng/a"], "eng/a") } else { (["eng:nightly", "eng/a:f", "ops"], "") };
                Rows::Roles { page: names.map(role).to_vec(), next: next.to_owned() }
            })
            .await;
        let roles: Vec<String> = cluster.leader().roles(LIMIT).await.expect("it leads").iter().map(|row| row.subject.to_string()).collect();
        assert_eq!(roles, ["eng", "eng:nightly", "eng/a", "eng/a:f", "eng-x", "ops"]);
    }

    /// Shows that a table comes whole out of its pages, and that a leader that never ends is not followed for ever.
    #[tokio::test]
    async fn pages() {
        let cluster = TestLeader::start().await;
        cluster
            .answer_queries(|query| {
                let number: u32 = query.from.parse().unwrap_or(0);
                let row = TaskRow { update: update(&format!("task_{number}"), TaskState::Running), token: None };
                let next = if query.prefix == "loop" { "1".to_owned() } else if number == 3 { String::new() } else { (number + 1).to_string() };
                Rows::Tasks { page: vec![row], next }
            })
            .await;
        let leader = cluster.leader();
        let ids: Vec<String> = leader.tasks("", LIMIT).await.expect("it leads").iter().map(|row| row.update.task.to_string()).collect();
        assert_eq!(ids, ["task_0", "task_1", "task_2", "task_3"]);
        assert!(leader.tasks("loop", LIMIT).await.is_err_and(|failure| failure.what().contains("not understood")));
        assert!(leader.agents(LIMIT).await.is_err(), "another table than was asked for");
    }
}

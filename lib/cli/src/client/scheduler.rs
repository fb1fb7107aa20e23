//! Lines that are calls: what a framework written in any language says to the leader
use crate::client::leader::not_understood;
use crate::client::{Leader, Seat, look, patience, too_late};
use crate::{Failure, random};
use meso_core::duration::parse_duration;
use meso_core::id::{Nonce, OfferId, TaskId};
use meso_core::json::{Limits, read_object};
use meso_core::wire::call::{Accept, Answer, Call, TaskToken};
use meso_core::wire::{Refusal, Task};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Keys of a task that this version cannot do; to pass over them in silence would run something else than was asked for.
const NOT_YET: [&str; 8] = ["put", "uris", "user", "volumes", "image", "check", "executor", "get"];
/// Lines that come out of `meso-offer` and mean nothing here: a filter may let all through.
const EVENTS: [&str; 9] = ["hello/1", "task/1", "synced/1", "update/1", "rescind/1", "inverse/1", "failure/1", "heartbeat/1", "result/1"];

/// What became of a line: `result/1`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LineResult {
    meso: &'static str,
    /// The line's number, from 1.
    pub line: u64,
    /// Whether it was done.
    pub ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    /// An event, which asks for nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// A stable word, where it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The line itself is wrong, not only its time.
    #[serde(skip)]
    pub bad: Option<String>,
}

/// The calls of one framework's session, made line by line.
pub struct Scheduler {
    leader: Leader,
    member: Nonce,
    keep: bool,
    seat: Option<Seat>,
    /// Launched by us, as long as nobody took them out.
    pub launched: BTreeSet<TaskId>,
}

/// Why a line was not done.
enum No {
    /// It is not what we read.
    Bad(String),
    Refused(Refusal),
    /// Of another kind than the leader's own refusals.
    Word(&'static str, String),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        No::Refused(refusal)
    }
}

fn bad<T>(why: impl Into<String>) -> Result<T, Problem> {
    Err(Problem::No(No::Bad(why.into())))
}

/// A line that was not done, or the end of everything.
enum Problem {
    No(No),
    Over(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Problem::Over(failure)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::No(refusal.into())
    }
}

impl Scheduler {
    /// Nothing is joined before an offer says what. Tasks outlive the session if `keep`.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(leader: Leader, seat: Option<Seat>, keep: bool) -> Result<Self, Failure> {
        let member = match seat.as_ref().and_then(|seat| seat.member.clone()) {
            Some(member) => member,
            None => Nonce::fresh(random()?, random()?),
        };
        Ok(Self { leader, member, keep, seat, launched: BTreeSet::new() })
    }

    /// The seat, once an offer has told of a session.
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Does what a line says.
    ///
    /// # Errors
    /// Nobody leads, or the bus fails: nothing more can be done. What is wrong with the line, or refused, is in the result.
    pub async fn line(&mut self, number: u64, line: &[u8]) -> Result<LineResult, Failure> {
        let mut result = LineResult { meso: "result/1", line: number, ..LineResult::default() };
        match self.act(line, &mut result).await {
            Ok(()) => result.ok = true,
            Err(Problem::Over(failure)) => return Err(failure),
            Err(Problem::No(no)) => {
                let (code, message) = match no {
                    No::Bad(why) => {
                        result.bad = Some(why.clone());
                        ("bad_line".to_owned(), why)
                    }
                    No::Refused(refusal) => {
                        let word = serde_json::to_value(refusal.code).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
                        let said = too_late(&refusal);
                        (word, said.next_step().map_or_else(|| said.what().to_owned(), |hint| format!("{}; try: {hint}", said.what())))
                    }
                    No::Word(code, why) => (code.to_owned(), why),
                };
                (result.code, result.message) = (Some(code), Some(message));
            }
        }
        Ok(result)
    }

    async fn act(&mut self, line: &[u8], result: &mut LineResult) -> Result<(), Problem> {
        let fields = read_object(line, Limits::default()).or_else(|error| bad(error.to_string()))?;
        let Some(kind) = fields.get("meso").and_then(Value::as_str) else { return bad("no \"meso\" says what it is") };
        match kind {
            "offer/1" => self.offer(&fields, result).await,
            "accept/1" => self.accept(&fields, result).await,
            "decline/1" => {
                let offers = ids(&fields, &["offers", "offer", "id"], OfferId::parse)?;
                result.offer = offers.first().map(ToString::to_string);
                self.plain(&Call::Return { offers, refuse_ms: span(&fields, "refuse")?.unwrap_or(meso_core::filter::REFUSE_MS_DEFAULT) }).await
            }
            "kill/1" => {
                let tasks = ids(&fields, &["tasks", "task"], TaskId::parse)?;
                let call = Call::Kill { tasks: tasks.clone(), grace_ms: span(&fields, "grace")? };
                match self.ask(&call).await? {
                    Answer::Killing { refused } => match refused.into_iter().flatten().next() {
                        Some(refusal) => Err(refusal.into()),
                        None => {
                            result.tasks = tasks;
                            Ok(())
                        }
                    },
                    answer => done(answer),
                }
            }
            "ack/1" => {
                let acks = ids(&fields, &["acks", "ack"], |text| text.parse())?;
                self.plain(&Call::Ack { acks }).await
            }
            "suppress/1" | "revive/1" => {
                let framework = self.framework(&fields)?;
                self.plain(&Call::Suppress { framework, on: kind == "suppress/1" }).await
            }
            "teardown/1" => {
                let framework = self.framework(&fields)?;
                self.plain(&Call::Teardown { framework }).await
            }
            "reconcile/1" => {
                let asked = if fields.contains_key("tasks") { ids(&fields, &["tasks"], TaskId::parse)? } else { Vec::new() };
                let Some(seat) = self.seat.clone() else { return bad("no offer has told yet which session this is") };
                let call = Call::Reconcile { framework: seat.framework.clone(), session: seat.session.clone(), member: seat.member.clone(), tasks: Vec::new(), asked };
                done(seat.call(&self.leader, &call).await?)
            }
            "message/1" => Err(Problem::No(No::Word("no_executor", "the task has no executor that takes messages".to_owned()))),
            kind if EVENTS.contains(&kind) => {
                result.ignored = true;
                Ok(())
            }
            kind => bad(format!("{} is no call", meso_core::json::quoted(kind))),
        }
    }

    /// An offer with tasks beside it.
    async fn offer(&mut self, fields: &Map<String, Value>, result: &mut LineResult) -> Result<(), Problem> {
        if fields.get("peek").and_then(Value::as_bool) == Some(true) {
            return bad("the offer was only peeked at: nothing is held for it");
        }
        let offers = ids(fields, &["id"], OfferId::parse)?;
        result.offer = offers.first().map(ToString::to_string);
        let Some(tasks) = fields.get("tasks") else { return bad("an offer without \"tasks\", and no command to run on it: give one after --, or add \"tasks\"") };
        let tasks = tasks_of(tasks)?;
        self.launch(offers, tasks, span(fields, "refuse")?.unwrap_or(0), result).await
    }

    async fn accept(&mut self, fields: &Map<String, Value>, result: &mut LineResult) -> Result<(), Problem> {
        let offers = ids(fields, &["offers", "offer"], OfferId::parse)?;
        result.offer = offers.first().map(ToString::to_string);
        let Some(Value::Array(ops)) = fields.get("ops") else { return bad("\"ops\" is a list of operations") };
        let mut tasks = Vec::new();
        for op in ops {
            let Value::Object(op) = op else { return bad("an operation is an object such as {\"launch\":[...]}") };
            match op.iter().next() {
                Some((kind, value)) if kind == "launch" && op.len() == 1 => tasks.extend(tasks_of(value)?),
                Some((kind, _)) if op.len() == 1 => return Err(Problem::No(No::Word("unsupported", format!("the operation {} is not there yet", meso_core::json::quoted(kind))))),
                _ => return bad("an operation is an object with one key"),
            }
        }
        self.launch(offers, tasks, span(fields, "refuse")?.unwrap_or(0), result).await
    }

    async fn launch(&mut self, offers: Vec<OfferId>, tasks: Vec<Task>, refuse_ms: u64, result: &mut LineResult) -> Result<(), Problem> {
        let Some(first) = offers.first() else { return bad("no offer is named") };
        let (seat, offer) = look(&self.leader, first, &self.member).await??;
        if self.seat.as_ref().is_none_or(|known| known.framework != seat.framework || known.session != seat.session) {
            if let Some(known) = self.seat.as_ref().filter(|known| known.framework != seat.framework) {
                return bad(format!("the offer is framework {}'s, the first was {}'s", seat.framework, known.framework));
            }
            seat.join(&self.leader).await??;
            self.seat = Some(seat.clone());
        }
        let mut named = Vec::with_capacity(tasks.len());
        for mut task in tasks {
            if task.id.is_none() {
                task.id = Some(TaskId::fresh(random()?));
            }
            task.keep |= self.keep;
            named.push(TaskToken { task, token: Nonce::fresh(random()?, random()?) });
        }
        // No leader has the epoch 0: a leader that does not know these offers answers only once it is certain what became of them.
        let accept = Accept { framework: seat.framework.clone(), session: seat.session.clone(), epoch: 0, offers, agent: offer.agent, tasks: named, refuse_ms, member: seat.member.clone() };
        match seat.call(&self.leader, &Call::Accept(accept)).await? {
            Answer::Accepted { tasks } => {
                self.launched.extend(tasks.iter().cloned());
                result.tasks = tasks;
                Ok(())
            }
            answer => done(answer),
        }
    }

    fn framework(&self, fields: &Map<String, Value>) -> Result<String, Problem> {
        match (fields.get("framework").or_else(|| fields.get("name")), &self.seat) {
            (Some(Value::String(name)), _) => Ok(name.clone()),
            (Some(_), _) => bad("\"framework\" is a text"),
            (None, Some(seat)) => Ok(seat.framework.to_string()),
            (None, None) => bad("no \"framework\" is named, and no offer has told yet which session this is"),
        }
    }

    async fn plain(&self, call: &Call) -> Result<(), Problem> {
        done(self.ask(call).await?)
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        let patience = patience();
        self.leader.call(call, patience).await?.ok_or_else(|| self.leader.nobody(patience))
    }
}

fn done(answer: Answer) -> Result<(), Problem> {
    match answer {
        Answer::Done {} => Ok(()),
        Answer::Refused(refusal) => Err(refusal.into()),
        _ => Err(not_understood().into()),
    }
}

/// Ids under the first of these keys that is there: one text, or a list.
fn ids<T, E: std::fmt::Display>(fields: &Map<String, Value>, keys: &[&str], parse: impl Fn(&str) -> Result<T, E>) -> Result<Vec<T>, Problem> {
    let Some((key, value)) = keys.iter().find_map(|key| Some((key, fields.get(*key)?))) else { return bad(format!("there is no \"{}\"", keys[0])) };
    let one = |value: &Value| match value {
        Value::String(text) => parse(text).or_else(|error| bad(format!("\"{key}\": {error}"))),
        _ => bad(format!("\"{key}\" is a text or a list of texts")),
    };
    match value {
        Value::Array(list) if list.is_empty() => bad(format!("\"{key}\" is empty")),
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn span(fields: &Map<String, Value>, key: &str) -> Result<Option<u64>, Problem> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => parse_duration(text).map(Some).or_else(|error| bad(format!("\"{key}\": {error}"))),
        Some(Value::Number(number)) => parse_duration(&number.to_string()).map(Some).or_else(|error| bad(format!("\"{key}\": {error}"))),
        Some(_) => bad(format!("\"{key}\" is a duration such as \"5s\"")),
    }
}

fn tasks_of(value: &Value) -> Result<Vec<Task>, Problem> {
    let Value::Array(list) = value else { return bad("\"tasks\" is a list of tasks") };
    let mut tasks = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let at = |why: String| format!("task {}: {why}", index + 1);
        let Value::Object(fields) = value else { return bad(at("not an object".to_owned())) };
        if let Some(key) = NOT_YET.iter().find(|key| fields.contains_key(**key)) {
            return Err(Problem::No(No::Word("unsupported", at(format!("\"{key}\" is not there yet")))));
        }
        let task: Task = serde_json::from_value(value.clone()).or_else(|error| bad(at(error.to_string())))?;
        if let Some(fault) = task.fault() {
            return bad(at(fault));
        }
        tasks.push(task);
    }
    Ok(tasks)
}

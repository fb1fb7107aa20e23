//! Serves tasks' output by offset and takes their input: for tools, straight from the agent, never through the master.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use meso_bus::{Address, Bus, Message};
use meso_cage::{Cage, CageError, OutputReader, OutputWatch, StdinReply, StdinSocket, Stream as CageStream};
use meso_core::id::TaskId;
use meso_core::wire::io::{ALIVE_MS, Ask, CHUNK_BYTES_MAX, HOLD_MS_MAX, Stream, Told, What};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Duration, Instant, timeout};

use crate::ready::register;
use crate::retained::{Owner, Retained};

/// How many requests are held open at once; more wait for their turn.
const HELD_MAX: usize = 4096;
/// How far a reader may get before the supervisor is told, bytes.
const READER_STEP_BYTES: u64 = 4 << 20;
/// How often the supervisor is told that a reader lives, milliseconds.
const READER_SAYS_MS: u64 = 5_000;
/// A reader that follows and says nothing for so long, with its credit used up, is gone, milliseconds.
const READER_SILENT_MS: u64 = 30_000;
/// How long a write waits for a task that does not read, milliseconds; the caller asks again.
const WRITE_HOLD_MS: u64 = 5_000;
/// How many opened outputs are kept ready for the next request.
const READERS_MAX: usize = 512;

/// The server of one agent.
pub struct Io {
    bus: Bus,
    cage: Arc<Cage>,
    retained: Rc<Retained>,
    readers: RefCell<BTreeMap<(String, Stream), OutputReader>>,
    said: RefCell<BTreeMap<(String, Stream), (u64, Instant)>>,
    inputs: RefCell<BTreeMap<String, Rc<Mutex<Input>>>>,
    turns: Rc<Semaphore>,
    /// How far those who follow an output may be sent, by where their answers go.
    follows: RefCell<BTreeMap<String, watch::Sender<u64>>>,
}

/// The way into one task.
#[derive(Default)]
struct Input {
    socket: Option<AsyncFd<StdinSocket>>,
    taken: u64,
    closed: bool,
}

fn payload(told: &Told, bytes: &[u8]) -> Bytes {
    let mut payload = serde_json::to_vec(told).unwrap_or_default();
    if matches!(told, Told::Bytes { .. }) {
        payload.reserve(bytes.len() + 1);
        payload.push(b'\n');
        payload.extend_from_slice(bytes);
    }
    Bytes::from(payload)
}

fn no(code: &str, message: impl Into<String>) -> Told {
    Told::No { code: code.to_owned(), message: message.into() }
}

fn of(stream: Stream) -> CageStream {
    match stream {
        Stream::Stdout => CageStream::Stdout,
        Stream::Stderr => CageStream::Stderr,
    }
}

impl Io {
    /// A server over the agent's containers.
    pub fn new(bus: Bus, cage: Arc<Cage>, retained: Rc<Retained>) -> Rc<Self> {
        Rc::new(Io { bus, cage, retained, readers: RefCell::default(), said: RefCell::default(), inputs: RefCell::default(), turns: Rc::new(Semaphore::new(HELD_MAX)), follows: RefCell::default() })
    }

    /// Takes one request; it is answered when there is something to say.
    pub fn take(self: &Rc<Self>, message: Message) {
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let Ok(_turn) = this.turns.acquire().await else { return };
            let Some(Address::Io { principal, .. }) = this.bus.subjects().parse(&message.subject) else { return };
            let (head, body) = match message.payload.iter().position(|byte| *byte == b'\n') {
                Some(at) => (message.payload.slice(..at), message.payload.slice(at + 1..)),
                None => (message.payload.clone(), Bytes::new()),
            };
            let asked = serde_json::from_slice::<Ask>(&head);
            if let Ok(Ask { what: What::More { inbox, upto }, .. }) = &asked {
                if let Some(credit) = this.follows.borrow().get(inbox) {
                    credit.send_if_modified(|old| std::mem::replace(old, (*upto).max(*old)) < *upto);
                }
                return;
            }
            let (told, bytes) = match asked {
                Err(error) => (no("bad_request", error.to_string()), Vec::new()),
                Ok(ask) => match this.retained.owner(&ask.task) {
                    _ if ask.what.fault().is_some() => (no("bad_request", ask.what.fault().unwrap_or_default()), Vec::new()),
                    None => (no("unknown_task", format!("task {} is not known here, or its output is no longer kept", ask.task)), Vec::new()),
                    Some(owner) if owner.principal != principal && ask.token.as_ref() != Some(&owner.token) => {
                        (no("not_yours", format!("task {} belongs to another principal", ask.task)), Vec::new())
                    }
                    Some(owner) => match &ask.what {
                        What::Follow { stream, offset, credit, follow } => return this.follow(&message, &owner, *stream, *offset, *credit, *follow).await,
                        _ => this.answer(owner, ask, body).await,
                    },
                },
            };
            let _ = this.bus.answer(&message, payload(&told, &bytes)).await;
        });
    }

    /// Sends an output as it comes, until its end, or until the reader says no more.
    async fn follow(&self, message: &Message, owner: &Owner, stream: Stream, offset: u64, credit: u64, holds: bool) {
        let Some(inbox) = message.reply.clone() else { return };
        let (credited, mut credit) = watch::channel(offset.saturating_add(credit));
        self.follows.borrow_mut().insert(inbox.clone(), credited);
        let mut at = offset;
        loop {
            let silent = Duration::from_millis(READER_SILENT_MS);
            if !matches!(timeout(silent, credit.wait_for(|upto| *upto > at)).await, Ok(Ok(_))) {
                break;
            }
            let outcome = self.read(owner, stream, at, CHUNK_BYTES_MAX as u32, ALIVE_MS, holds).await;
            let (told, bytes) = outcome.unwrap_or_else(|message| (no("io", message), Vec::new()));
            let last = match &told {
                Told::Bytes { offset, end } => {
                    at = offset + bytes.len() as u64;
                    *end
                }
                _ => true,
            };
            if self.bus.answer(message, payload(&told, &bytes)).await.is_err() || last {
                break;
            }
        }
        self.follows.borrow_mut().remove(&inbox);
    }

    async fn answer(&self, owner: Owner, ask: Ask, body: Bytes) -> (Told, Vec<u8>) {
        match ask.what {
            What::Read { stream, offset, max, wait_ms, follow } => match self.read(&owner, stream, offset, max, wait_ms.min(HOLD_MS_MAX), follow).await {
                Ok((told, bytes)) => (told, bytes),
                Err(message) => (no("io", message), Vec::new()),
            },
            What::Follow { .. } | What::More { .. } => (no("bad_request", "this is not answered once"), Vec::new()),
            What::Size { stream } => (self.size(&owner, stream), Vec::new()),
            What::Write { offset, end } => (self.write(&ask.task, &owner, offset, &body, end).await, Vec::new()),
            What::Signal { signal } => (self.signal(&owner, signal).await, Vec::new()),
        }
    }

    fn read_now(&self, owner: &Owner, stream: Stream, offset: u64, max: usize) -> Result<(Told, Vec<u8>), String> {
        let key = (owner.container.clone(), stream);
        let kept = self.readers.borrow_mut().remove(&key);
        let mut reader = match kept {
            Some(reader) => reader,
            None => self.cage.output(&owner.container, of(stream)).map_err(|error| error.to_string())?,
        };
        let chunk = reader.read_at(offset, max).map_err(|error| format!("reading the output of task {}: {error}", owner.task))?;
        let mut readers = self.readers.borrow_mut();
        if !chunk.end {
            if readers.len() >= READERS_MAX {
                readers.pop_first();
            }
            readers.insert(key, reader);
        }
        Ok((Told::Bytes { offset: chunk.offset, end: chunk.end }, chunk.bytes))
    }

    async fn read(&self, owner: &Owner, stream: Stream, offset: u64, max: u32, wait_ms: u64, follow: bool) -> Result<(Told, Vec<u8>), String> {
        let max = (max as usize).clamp(1, CHUNK_BYTES_MAX);
        if follow && owner.attached {
            self.tell_reader(owner, stream, offset);
        }
        let told = self.read_while_made(owner, stream, offset, max, wait_ms).await?;
        if wait_ms == 0 || !is_empty(&told) {
            return Ok(told);
        }
        // Watch first, then read again: so nothing falls between.
        let dir = self.cage.dir(&owner.container).map_err(|error| error.to_string())?;
        let watch = OutputWatch::new(&dir).and_then(|watch| register(watch, Interest::READABLE)).map_err(|error| format!("watching the output of task {}: {error}", owner.task))?;
        let until = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let told = self.read_now(owner, stream, offset, max)?;
            let left = until.saturating_duration_since(Instant::now());
            if !is_empty(&told) || left.is_zero() {
                return Ok(told);
            }
            if let Ok(Ok(mut ready)) = timeout(left, watch.readable()).await {
                let _ = watch.get_ref().clear();
                ready.clear_ready();
            }
        }
    }

    /// A container that is only being made has no output yet: wait for it rather than say that there is none.
    async fn read_while_made(&self, owner: &Owner, stream: Stream, offset: u64, max: usize, wait_ms: u64) -> Result<(Told, Vec<u8>), String> {
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let mut pause_ms = 1;
        loop {
            match self.read_now(owner, stream, offset, max) {
                Err(message) if Instant::now() >= until => return Err(message),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    pause_ms = (pause_ms * 2).min(50);
                }
                told => return told,
            }
        }
    }

    fn tell_reader(&self, owner: &Owner, stream: Stream, offset: u64) {
        let key = (owner.container.clone(), stream);
        let mut said = self.said.borrow_mut();
        let due = said.get(&key).is_none_or(|(at, when)| offset >= at + READER_STEP_BYTES || when.elapsed() >= Duration::from_millis(READER_SAYS_MS));
        if due {
            if said.len() > READERS_MAX {
                said.clear();
            }
            said.insert(key, (offset, Instant::now()));
            let _ = self.cage.reader_at(&owner.container, of(stream), offset);
        }
    }

    fn size(&self, owner: &Owner, stream: Stream) -> Told {
        let sizes = self.cage.output(&owner.container, of(stream)).map_err(|error| error.to_string()).and_then(|mut reader| reader.bounds().map_err(|error| error.to_string()));
        match sizes {
            Ok((first, last, end)) => Told::Size { first, last, end },
            Err(message) => no("io", message),
        }
    }

    async fn signal(&self, owner: &Owner, signal: i32) -> Told {
        let (cage, container) = (Arc::clone(&self.cage), owner.container.clone());
        // A task that is only starting cannot hear yet; it will in a moment.
        for pause_ms in [0, 5, 10, 20, 50, 100, 200, 400, 800] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match cage.signal(&container, signal) {
                Ok(()) => return Told::Taken { offset: 0, closed: false },
                Err(CageError::Busy { .. } | CageError::NoContainer { .. }) => {}
                Err(CageError::Ended { .. }) => return no("ended", format!("task {} has ended", owner.task)),
                Err(error) => return no("io", error.to_string()),
            }
        }
        no("io", format!("task {} does not start", owner.task))
    }

    async fn write(&self, task: &TaskId, owner: &Owner, offset: u64, bytes: &[u8], end: bool) -> Told {
        let input = Rc::clone(self.inputs.borrow_mut().entry(owner.container.clone()).or_default());
        let mut input = input.lock().await;
        let done = timeout(Duration::from_millis(WRITE_HOLD_MS), self.feed(&mut input, owner, offset, bytes, end)).await;
        let told = match done {
            Ok(Err(message)) => {
                input.socket = None;
                no("io", format!("feeding task {task}: {message}"))
            }
            // Not taken in this time is no failure: the caller asks again from where it stands.
            Ok(Ok(())) | Err(_) => Told::Taken { offset: input.taken, closed: input.closed },
        };
        if input.closed {
            self.inputs.borrow_mut().remove(&owner.container);
        }
        told
    }

    async fn feed(&self, input: &mut Input, owner: &Owner, offset: u64, bytes: &[u8], end: bool) -> Result<(), String> {
        if input.socket.is_none() {
            input.socket = Some(self.connect(owner).await?);
            // The first reply says where the supervisor stands: what it has is passed over.
            replies(input, true).await?;
        }
        let last = offset + bytes.len() as u64;
        let mut sent = input.taken.max(offset);
        if offset > input.taken && !input.closed {
            return Ok(());
        }
        while sent < last && !input.closed {
            let from = (sent - offset) as usize;
            let socket = input.socket.as_ref().ok_or("the way in is closed")?;
            let mut ready = socket.writable().await.map_err(|error| error.to_string())?;
            match ready.try_io(|socket| socket.get_ref().send(sent, &bytes[from..])) {
                Ok(Ok(count)) => sent += count as u64,
                Ok(Err(error)) if is_gone(&error) => input.closed = true,
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_would_block) => {}
            }
        }
        if end && !input.closed {
            let socket = input.socket.as_ref().ok_or("the way in is closed")?;
            loop {
                let mut ready = socket.writable().await.map_err(|error| error.to_string())?;
                match ready.try_io(|socket| socket.get_ref().send_eof(last)) {
                    Ok(Err(error)) if is_gone(&error) => break,
                    Ok(outcome) => {
                        outcome.map_err(|error| error.to_string())?;
                        break;
                    }
                    Err(_would_block) => {}
                }
            }
        }
        while input.taken < last && !input.closed {
            replies(input, true).await?;
        }
        Ok(())
    }

    async fn connect(&self, owner: &Owner) -> Result<AsyncFd<StdinSocket>, String> {
        let mut last = String::new();
        for pause_ms in [0, 2, 5, 10, 20, 50, 100, 200, 400, 800, 1_600] {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match self.cage.stdin(&owner.container) {
                Ok(socket) => return register(socket, Interest::READABLE | Interest::WRITABLE).map_err(|error| error.to_string()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }
}

fn is_empty(told: &(Told, Vec<u8>)) -> bool {
    told.1.is_empty() && !matches!(told.0, Told::Bytes { end: true, .. })
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::NotConnected)
}

/// Takes replies of the supervisor; waits for one if `wait`.
async fn replies(input: &mut Input, wait: bool) -> Result<(), String> {
    let Some(socket) = &input.socket else { return Ok(()) };
    let mut any = !wait;
    loop {
        let outcome = if any {
            match socket.get_ref().recv() {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                outcome => outcome,
            }
        } else {
            let mut ready = socket.readable().await.map_err(|error| error.to_string())?;
            match ready.try_io(|socket| socket.get_ref().recv()) {
                Ok(outcome) => outcome,
                Err(_would_block) => continue,
            }
        };
        any = true;
        match outcome {
            Ok(StdinReply::Accepted { offset }) => input.taken = input.taken.max(offset),
            Ok(StdinReply::Closed) => {
                input.closed = true;
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof || is_gone(&error) => {
                input.closed = true;
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

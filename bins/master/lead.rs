//! One term of leading: its own connection, the registry, the loop. All of it is dropped when the term ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use meso_bus::driver::{Clock, drive};
use meso_bus::lease::{EpochRaiser, Standing};
use meso_bus::{Bus, BusEvent, BusOptions, Store, Subscription};
use meso_cli::{Failure, complain, report};
use meso_core::master::{Config, Event, Master};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, sleep};

use crate::allocator::Allocator;
use crate::host::{Callers, Fatal, Host, event_of};
use crate::record::mind_record;
use crate::start::{random, wall_ms};

/// How many events may wait for the machine; whoever sends more waits.
const EVENTS_MAX: usize = 16_384;
/// How long a new leader may take to connect and to read the registry.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);
/// Pause before it tries to read it again.
const BEGIN_AGAIN: Duration = Duration::from_millis(250);
/// How often the wall clock is looked at, for display.
const CLOCK_EVERY: Duration = Duration::from_secs(10);

/// What a term needs besides the lease.
#[derive(Clone)]
pub struct Term {
    /// How to connect.
    pub options: BusOptions,
    /// The machine's settings.
    pub config: Config,
    /// How many servers keep what is stored.
    pub replicas: u32,
    /// The shell command of the program that says who gets what; without, the built-in policy does.
    pub allocate: Option<String>,
}

/// Leads until the lease says otherwise.
pub async fn lead(term: &Term, standing: &mut watch::Receiver<Standing>, raise: EpochRaiser) {
    let mut options = term.options.clone();
    options.reconnect = true;
    let begun = tokio::time::timeout(BEGIN_LIMIT, Bus::connect(&options, BEGIN_LIMIT)).await;
    let bus = match begun {
        Ok(Ok(bus)) => bus,
        Ok(Err(error)) => return report(&Failure::from(error).context("connecting to lead")),
        Err(_) => return complain("connecting to lead took too long"),
    };
    if let Err(failure) = lead_on(term, &bus, standing, raise).await {
        report(&failure);
    }
    // What is still queued in this connection must not go out later: it was said under an epoch that is burnt.
    bus.abandon().await;
}

async fn lead_on(term: &Term, bus: &Bus, standing: &mut watch::Receiver<Standing>, raise: EpochRaiser) -> Result<(), Failure> {
    let Some(mut epoch) = standing.borrow_and_update().leads() else { return Ok(()) };
    let store = Store::new(bus);
    let stored = loop {
        let read = async {
            store.ensure(term.replicas).await?.iter().for_each(|note| complain(note));
            store.registry().get_all().await
        };
        match read.await {
            Ok(stored) => break stored,
            // A term is not given up for servers that only elect who leads them; how long that may take is the lease's to say.
            Err(error) if error.may_pass() => complain(&format!("{error}; trying again")),
            Err(error) => return Err(error.into()),
        }
        sleep(BEGIN_AGAIN).await;
        match standing.borrow_and_update().leads() {
            Some(leading) => epoch = leading,
            None => return Ok(()),
        }
    };
    let revisions: BTreeMap<String, u64> = stored.iter().map(|(key, (_, revision))| (key.clone(), *revision)).collect();
    let registry = stored.into_iter().map(|(key, (value, _))| (key, String::from_utf8_lossy(&value).into_owned())).collect();

    let callers = Rc::new(RefCell::new(Callers::default()));
    let (to, mut events) = mpsc::channel(EVENTS_MAX);
    let _ = to.try_send(Event::Clock { wall_ms: wall_ms() });
    let _ = to.try_send(Event::Lead { epoch, seed: [random()?, random()?], registry });
    let mut pumps = Pumps::default();
    let subjects = bus.subjects().clone();
    for subject in [subjects.agent_calls(), subjects.framework_calls(), subjects.operator_calls(), subjects.queries(), subjects.events(), subjects.standbys()] {
        let subscription = bus.subscribe(&subject).await?;
        pumps.add(pump(bus.clone(), subscription, Rc::clone(&callers), to.clone()));
    }
    let clock_to = to.clone();
    pumps.add(async move {
        loop {
            sleep(CLOCK_EVERY).await;
            if clock_to.send(Event::Clock { wall_ms: wall_ms() }).await.is_err() {
                return;
            }
        }
    });
    pumps.add(mind_record(bus.clone(), term.replicas, term.config.master.clone(), to.clone()));
    let mut bus_events = bus.events();
    pumps.add(async move {
        while let Some(event) = bus_events.next().await {
            match event {
                // Said of the connection that is there whoever leads.
                BusEvent::Disconnected | BusEvent::Connected => {}
                other => complain(&format!("bus: {other:?}")),
            }
        }
    });

    let allocator = term.allocate.clone().map(|command| {
        let (allocator, keep) = Allocator::new(command, to.clone());
        pumps.add(keep);
        allocator
    });

    let mut machine = Master::new(term.config.clone());
    let mut host = Host::new(bus.clone(), revisions, callers, raise, standing.clone(), allocator);
    let clock = Clock::default();
    loop {
        let now = *standing.borrow_and_update();
        match now {
            Standing::Leading { epoch: leading, .. } if leading > epoch => {
                epoch = leading;
                let _ = to.send(Event::Raised { epoch }).await;
            }
            Standing::Leading { .. } => {}
            Standing::Suspended { .. } => {
                if standing.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            Standing::Standby | Standing::Released => return Ok(()),
        }
        let mut watched = standing.clone();
        // Renewals only move the end of the term; anything else ends or interrupts it.
        let interrupted = async move {
            loop {
                match *watched.borrow_and_update() {
                    Standing::Leading { epoch: renewed, .. } if renewed == epoch => {}
                    _ => return,
                }
                if watched.changed().await.is_err() {
                    return;
                }
            }
        };
        match drive(clock, &mut machine, &mut host, &mut events, interrupted).await {
            Ok(()) => {}
            Err(Fatal::Over) => return Ok(()),
            Err(Fatal::Registry(failure)) => return Err(failure.hint("the term ends; a standby, or this master, leads again in a moment")),
        }
    }
}

/// Hands the messages of one subject on, in order.
async fn pump(bus: Bus, mut subscription: Subscription, callers: Rc<RefCell<Callers>>, to: mpsc::Sender<Event>) {
    while let Some(message) = subscription.next().await {
        if let Some(event) = event_of(&bus, &callers, message) {
            if to.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Tasks that end with the term.
#[derive(Default)]
struct Pumps(Vec<tokio::task::JoinHandle<()>>);

impl Pumps {
    fn add(&mut self, task: impl Future<Output = ()> + 'static) {
        self.0.push(tokio::task::spawn_local(task));
    }
}

impl Drop for Pumps {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

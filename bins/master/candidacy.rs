//! TEMPORARY: until the bus has the lease's driver.
use bytes::Bytes;
use meso_bus::{Bus, BusOptions, Store};
use meso_cli::Failure;
use meso_core::id::MasterId;
use meso_core::lease::{Candidate, Effect, Event, Lease, LeaseTimes, Record};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant};

use crate::lead::Standing;

pub struct Candidacy {
    pub options: BusOptions,
    pub master: MasterId,
    pub host: String,
    pub times: LeaseTimes,
    pub replicas: u32,
}

impl Candidacy {
    pub async fn run(self, standing: watch::Sender<Standing>, mut raised: mpsc::Receiver<u64>, mut released: watch::Receiver<bool>) -> Result<(), Failure> {
        let mut options = self.options.clone();
        options.reconnect = true;
        let bus = Bus::connect_patiently(&options, |error, ms| meso_cli::complain(&format!("{error}; trying again in {ms} ms"))).await?;
        Store::new(&bus).ensure_lease(self.replicas).await?;
        let bucket = Store::new(&bus).lease();
        let me = Candidate { since_ms: crate::start::wall_ms(), id: self.master.clone(), nonce: meso_core::id::Nonce::fresh(crate::start::random()?, crate::start::random()?), host: self.host.clone() };
        let mut ping = bus.subscribe(&bus.subjects().lease_ping(&self.master)).await?;
        let mut lease = Lease::new(me, self.times, 0);
        let start = Instant::now();
        let now = || start.elapsed().as_millis() as u64;
        let (to, mut events) = mpsc::channel::<Event>(100);
        let mut effects = lease.step(now(), Event::Tick);
        loop {
            for effect in effects.drain(..) {
                let (bucket, to, bus) = (bucket.clone(), to.clone(), bus.clone());
                match effect {
                    Effect::Read { attempt } => {
                        tokio::task::spawn_local(async move {
                            let event = match bucket.get("leader").await {
                                Ok(Some(revised)) => Event::Found { attempt, revision: revised.1, record: Record::decode(&revised.0) },
                                Ok(None) => Event::Found { attempt, revision: 0, record: None },
                                Err(_) => Event::ReadFailed { attempt },
                            };
                            let _ = to.send(event).await;
                        });
                    }
                    Effect::Cas { attempt, expect, record } => {
                        tokio::task::spawn_local(async move {
                            let event = match bucket.put("leader", Bytes::from(record.encode()), expect).await {
                                Ok(revision) => Event::CasDone { attempt, revision },
                                Err(meso_bus::BusError::WrongRevision { .. }) => Event::CasRefused { attempt },
                                Err(_) => Event::CasUnknown { attempt },
                            };
                            let _ = to.send(event).await;
                        });
                    }
                    Effect::Ping { attempt, holder } => {
                        tokio::task::spawn_local(async move {
                            let Some(holder) = holder else {
                                let _ = to.send(Event::PingUnheard { attempt }).await;
                                return;
                            };
                            let event = match bus.request(&bus.subjects().lease_ping(&holder), Bytes::new(), Duration::from_millis(500)).await {
                                Ok(_) => Event::PingHeard { attempt, nonce: None },
                                Err(meso_bus::BusError::NoResponders { .. }) => Event::PingUnheard { attempt },
                                Err(_) => Event::PingFailed { attempt },
                            };
                            let _ = to.send(event).await;
                        });
                    }
                    Effect::Lead { epoch, valid_until_ms } => {
                        standing.send_replace(Standing::Leading { epoch, valid_until: start + Duration::from_millis(valid_until_ms) });
                    }
                    Effect::Suspend { epoch } => {
                        standing.send_replace(Standing::Suspended { epoch });
                    }
                    Effect::StepDown { .. } | Effect::Standby { .. } => {
                        standing.send_replace(Standing::Standby);
                    }
                    Effect::Released => {
                        standing.send_replace(Standing::Released);
                        return Ok(());
                    }
                }
            }
            let wait = lease.deadline().map_or(1000, |at| at.saturating_sub(now()));
            let event = tokio::select! {
                Some(event) = events.recv() => event,
                Some(epoch) = raised.recv() => Event::RaiseAbove { epoch },
                _ = released.changed() => Event::Release,
                Some(message) = ping.next() => { let _ = bus.answer(&message, Bytes::new()).await; continue },
                () = tokio::time::sleep(Duration::from_millis(wait)) => Event::Tick,
            };
            effects = lease.step(now(), event);
        }
    }
}

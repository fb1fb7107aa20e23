//! Offers that are read: each line is looked up at the leader, which knows what it really is and whose.

use std::path::Path;

use meso_cli::client::{Leader, Seat, look, too_late};
use meso_cli::{Failure, LineIn, LineRead, Until, complain, random, report};
use meso_core::id::{FrameworkId, Nonce, OfferId};
use meso_core::json::{Limits, read_object};
use meso_core::launcher::Event;
use meso_core::role::Role;
use meso_core::wire::Offer;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::Args;
use crate::run::Happened;

/// A session of one's own.
pub fn own_seat(role: Role) -> Result<Seat, Failure> {
    Ok(Seat { framework: FrameworkId::fresh(random()?), session: Nonce::fresh(random()?, random()?), session_no: 0, member: None, role })
}

/// A line that could not be used: its number and why.
pub type BadLine = (u64, Failure);

/// The lines of `-O`, or the one offer of `--offer`.
pub struct Offers {
    from: From,
    leader: Leader,
    member: Nonce,
}

enum From {
    Lines(LineIn, u64),
    One(Option<OfferId>),
}

impl Offers {
    /// Opens what the flags name.
    pub async fn open(args: &Args, leader: Leader) -> Result<Self, Failure> {
        let from = match (&args.offer, &args.offers) {
            (Some(id), _) => From::One(Some(OfferId::parse(id).map_err(|error| Failure::usage(format!("--offer: {error}")))?)),
            (None, path) => From::Lines(LineIn::open(path.as_deref().unwrap_or(Path::new("-")), Until::Newline).await?, 0),
        };
        Ok(Offers { from, leader, member: Nonce::fresh(random()?, random()?) })
    }

    /// The number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        match &self.from {
            From::Lines(_, number) => *number,
            From::One(_) => 1,
        }
    }

    /// The next offer and the seat that it gives; `None` at the end. What is no offer but another line of the stream is passed over.
    ///
    /// # Errors
    /// The input cannot be read, or nobody leads.
    pub async fn next(&mut self) -> Result<Option<Result<(Seat, Offer), BadLine>>, Failure> {
        let id = match &mut self.from {
            From::One(id) => match id.take() {
                Some(id) => id,
                None => return Ok(None),
            },
            From::Lines(lines, at) => loop {
                let (number, read) = match lines.next().await? {
                    None => return Ok(None),
                    Some(LineRead::TooLong { number, bytes }) => (number, Err(Failure::failed(format!("{bytes} bytes are too long for a line")))),
                    Some(LineRead::Line { number, bytes }) => (number, offer_of(&bytes)),
                };
                *at = number;
                match read {
                    Ok(Some(id)) => break id,
                    Ok(None) => {}
                    Err(failure) => return Ok(Some(Err((number, failure)))),
                }
            },
        };
        let number = self.number();
        Ok(Some(look(&self.leader, &id, &self.member).await?.map_err(|refusal| (number, too_late(&refusal)))))
    }

    /// Hands in the first, and those behind it as they are read, until their end or until nobody takes them.
    pub async fn hand_in(mut self, first: Offer, framework: FrameworkId, to: mpsc::Sender<Happened>) {
        let mut next = Some(Event::Offer(Box::new(first)));
        while let Some(event) = next {
            let is_end = matches!(event, Event::NoMore);
            if to.send(Happened::Machine(event)).await.is_err() || is_end {
                return;
            }
            next = loop {
                let what = match self.next().await {
                    Ok(Some(Ok((seat, offer)))) if seat.framework == framework => break Some(Event::Offer(Box::new(offer))),
                    Ok(Some(Ok((seat, offer)))) => {
                        let why = Failure::failed(format!("offer {} is framework {}'s, the first was {framework}'s", offer.id, seat.framework)).hint("one meso-launch -O for each meso-offer");
                        Happened::BadLine(self.number(), why)
                    }
                    Ok(Some(Err((number, failure)))) => Happened::BadLine(number, failure),
                    Ok(None) => break Some(Event::NoMore),
                    Err(failure) => {
                        complain(failure.what());
                        break Some(Event::NoMore);
                    }
                };
                if to.send(what).await.is_err() {
                    return;
                }
            };
        }
    }
}

/// Says what was wrong with a line.
pub fn complain_of_line(number: u64, failure: &Failure) {
    let said = Failure::failed(format!("line {number}: {}", failure.what()));
    report(&match failure.next_step() {
        Some(step) => said.hint(step),
        None => said,
    });
}

/// The offer that a line is; none if it is another line of the stream.
fn offer_of(line: &[u8]) -> Result<Option<OfferId>, Failure> {
    let bad = |why: String| Failure::failed(why).hint("lines of meso-offer, one JSON object each");
    let fields = read_object(line, Limits::default()).map_err(|error| bad(error.to_string()))?;
    match fields.get("meso").and_then(Value::as_str) {
        Some("offer/1") => {}
        Some(_) => return Ok(None),
        None => return Err(bad("no \"meso\" says what it is".to_owned())),
    }
    if fields.get("peek").and_then(Value::as_bool) == Some(true) {
        return Err(Failure::failed("it was only peeked at: nothing is held for it").hint("meso-offer without --peek"));
    }
    let id = fields.get("id").and_then(Value::as_str).ok_or_else(|| bad("an offer without an \"id\"".to_owned()))?;
    OfferId::parse(id).map(Some).map_err(|error| bad(error.to_string()))
}

//! A place in a framework's session, found by an offer of it and kept by beats
use crate::client::absence::patience;
use crate::client::leader::{Leader, not_understood};
use crate::{Failure, who};
use meso_core::id::{FrameworkId, Nonce, OfferId};
use meso_core::role::Role;
use meso_core::wire::call::{Answer, Call, Subscribe};
use meso_core::wire::{Offer, PROTOCOL, PROTOCOL_MIN, Refusal, RefusalCode};
use std::time::Duration;
use tokio::time::sleep;

/// How often a call is made again after the session had to be joined anew.
const JOINS_MAX: u32 = 3;
/// How often to beat before the leader has said it.
const BEAT_MS: u64 = 5_000;

/// What a process needs to speak for a framework.
#[derive(Clone, Debug)]
pub struct Seat {
    pub framework: FrameworkId,
    pub session: Nonce,
    /// Which session of its name that is; 0 for one that is only beginning.
    pub session_no: u64,
    /// This process, where it joins a session that another began.
    pub member: Option<Nonce>,
    /// The role its share counts in.
    pub role: Role,
}

/// Asks the leader what an offer is and how to join its session as `member`.
///
/// # Errors
/// Outside: nobody leads. Inside: the offer cannot be used.
pub async fn look(leader: &Leader, offer: &OfferId, member: &Nonce) -> Result<Result<(Seat, Offer), Refusal>, Failure> {
    let patience = patience();
    match leader.call(&Call::Look { offer: offer.clone() }, patience).await? {
        Some(Answer::Seat { framework, session, session_no, role, offer }) => Ok(Ok((Seat { framework, session, session_no, member: Some(member.clone()), role }, offer))),
        Some(Answer::Refused(refusal)) => Ok(Err(refusal)),
        Some(_) => Err(not_understood()),
        None => Err(leader.nobody(patience)),
    }
}

/// What to say of an offer that cannot be used, with the hint for those whose filter keeps lines back.
pub fn too_late(refusal: &Refusal) -> Failure {
    let failure = Failure::failed(refusal.message.clone());
    match refusal.code {
        RefusalCode::OfferGone => failure.hint("jq --unbuffered, grep --line-buffered, sed -u, mawk -W interactive: a filter that collects its output hands offers on too late"),
        _ => failure,
    }
}

impl Seat {
    /// Joins the session; says how often to beat, milliseconds.
    ///
    /// # Errors
    /// Outside: nobody leads. Inside: the leader's refusal.
    pub async fn join(&self, leader: &Leader) -> Result<Result<u64, Refusal>, Failure> {
        let patience = patience();
        let call = |v| Call::Subscribe(Subscribe {
            v,
            framework: self.framework.clone(),
            session: self.session.clone(),
            session_no: self.session_no,
            member: self.member.clone(),
            guest: false,
            takeover: false,
            name: None,
            role: self.role.clone(),
            who: who(),
            demand: None,
            failover_ms: 0,
            on_unreachable: None,
            claims: Vec::new(),
        });
        let mut answer = leader.call(&call(PROTOCOL), patience).await?;
        if matches!(&answer, Some(Answer::Refused(refusal)) if refusal.code == RefusalCode::Version) {
            // A master of the release before.
            answer = leader.call(&call(PROTOCOL_MIN), patience).await?;
        }
        match answer {
            Some(Answer::Subscribed { beat_ms, .. }) => Ok(Ok(beat_ms)),
            Some(Answer::Refused(refusal)) => Ok(Err(refusal)),
            Some(_) => Err(not_understood()),
            None => Err(leader.nobody(patience)),
        }
    }

    /// Makes a call of the session; joins again where a new leader does not know us yet.
    ///
    /// # Errors
    /// Nobody leads, or the bus fails.
    pub async fn call(&self, leader: &Leader, call: &Call) -> Result<Answer, Failure> {
        let patience = patience();
        for _ in 0..JOINS_MAX {
            let answer = leader.call(call, patience).await?.ok_or_else(|| leader.nobody(patience))?;
            match answer {
                Answer::Refused(refusal) if refusal.code == RefusalCode::UnknownFramework => {
                    if let Err(refusal) = self.join(leader).await? {
                        return Ok(Answer::Refused(refusal));
                    }
                }
                answer => return Ok(answer),
            }
        }
        Err(Failure::failed(format!("the session of framework {} does not last", self.framework)).hint("meso-ps frameworks"))
    }

    /// Keeps the seat until it is dropped; ends with why it was lost.
    pub async fn keep(&self, leader: &Leader) -> Refusal {
        let mut wait_ms = BEAT_MS;
        if let Ok(Ok(beat_ms)) = self.join(leader).await {
            wait_ms = beat_ms.max(50);
        }
        loop {
            sleep(Duration::from_millis(wait_ms)).await;
            let beat = Call::Beat { framework: self.framework.clone(), session: self.session.clone(), member: self.member.clone(), sated: false };
            // Silence is waited out: the leader's verdict counts, not the lack of one.
            if let Ok(Answer::Refused(refusal)) = self.call(leader, &beat).await {
                if matches!(refusal.code, RefusalCode::NameHeld | RefusalCode::NotYours) {
                    return refusal;
                }
            }
        }
    }

    /// Says that our part is done.
    ///
    /// # Errors
    /// Nobody leads; then the seat lapses by itself.
    pub async fn leave(&self, leader: &Leader) -> Result<(), Failure> {
        let call = Call::Leave { framework: self.framework.clone(), session: self.session.clone(), member: self.member.clone(), hold_ms: 0 };
        leader.call(&call, patience()).await.map(drop)
    }
}

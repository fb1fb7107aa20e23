//! Messages that come in, and what became of those that did not

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::BusError;
use crate::shared::{Shared, Watched};

/// A message that came in
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub subject: String,
    pub payload: Bytes,
    pub reply: Option<String>,
}

/// The messages of one subject or pattern; dropping it ends the subscription
pub struct Subscription {
    /// The client's number for it; what its slow consumer events name.
    pub(crate) sid: u64,
    pub(crate) messages: async_nats::Subscriber,
    pub(crate) watched: Arc<Watched>,
    pub(crate) shared: Arc<Shared>,
}

impl Subscription {
    /// The next message; none once the connection is closed or the subject turned out forbidden
    /// (see [`Subscription::denied`]). Can be dropped while it waits.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.next_raw().await?;
            // The server's own notices have a status; only readers of streams want those.
            if message.status.is_none() {
                return Some(Message {
                    subject: message.subject.to_string(),
                    payload: message.payload,
                    reply: message.reply.map(|reply| reply.to_string()),
                });
            }
        }
    }

    /// As [`Subscription::next`], for an inbox that several share: the subject that was answered to and the answer, or none
    /// where the server says that nobody heard the question.
    pub async fn next_answer(&mut self) -> Option<(String, Option<Bytes>)> {
        let message = self.next_raw().await?;
        Some((message.subject.to_string(), message.status.is_none().then_some(message.payload)))
    }

    /// Whether messages were dropped since the reader last had nothing left to read.
    pub fn has_gap(&self) -> bool {
        self.watched.gap.load(Ordering::Acquire)
    }

    /// The refusal, if the server does not permit us this subject.
    pub fn denied(&self) -> Option<BusError> {
        self.watched
            .denied
            .load(Ordering::Acquire)
            .then(|| BusError::Denied { subject: self.watched.subject.clone() })
    }

    pub(crate) async fn next_raw(&mut self) -> Option<async_nats::Message> {
        let Subscription { messages, watched, .. } = self;
        std::future::poll_fn(|context| {
            watched.waker.register(context.waker());
            match messages.poll_next_unpin(context) {
                Poll::Pending if watched.denied.load(Ordering::Acquire) => Poll::Ready(None),
                Poll::Pending => {
                    watched.gap.store(false, Ordering::Release);
                    Poll::Pending
                }
                ready => ready,
            }
        })
        .await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscriptions().remove(&self.sid);
    }
}

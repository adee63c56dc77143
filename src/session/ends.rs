//! Sessions that were ended here, for whoever tells others. Nobody listens: nothing is kept.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Session, Sessions};
use crate::domain::{Issuer, SessionId, SubjectId};

/// How many ends may wait for the one who listens.
const WAITING: usize = 4096;

/// One session that was ended here just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub issuer: Issuer,
    pub subject: SubjectId,
    pub id: SessionId,
    /// An operator's words, or what ended it: a rule, `idle`, `max_concurrent`.
    pub why: Arc<str>,
    pub by_operator: bool,
}

impl Sessions {
    /// The ends from now on. One listens: a second call takes over nothing and hears nothing.
    pub fn ends(&self) -> mpsc::Receiver<End> {
        let (sender, receiver) = mpsc::channel(WAITING);
        // Where somebody listens already, the sender is dropped and the new receiver ends at once.
        let _ = self.ends.set(sender);
        receiver
    }

    /// Counts an end, and says so.
    pub(super) fn ended(&self, session: &Session, why: &Arc<str>, by_operator: bool) {
        self.counters.ended.increment();
        let Some(ends) = self.ends.get() else { return };
        let Session { issuer, subject, id, .. } = session;
        let end =
            End { issuer: issuer.clone(), subject: subject.clone(), id: id.clone(), why: Arc::clone(why), by_operator };
        if ends.try_send(end).is_err() {
            self.counters.untold.increment();
        }
    }
}

//! After the judgement: what it means for the session, and an end told to every replica.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Beside, Pipeline};
use crate::{
    decision::Decision,
    domain::{Facts, UnixTime},
    notice::{Kind, Notices, Word},
    session::Visit,
};

/// Attempts to tell of an end, and the longest time between two.
const ATTEMPTS: u32 = 200;
const LONGEST: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Counts a session that begins among those of its subject. False where it has no place: `facts` say why.
    pub(super) async fn admit(&self, facts: &mut Facts, beside: &Beside, deadline: Instant) -> bool {
        let Some(visit) = &beside.visit else { return true };
        let Some(ended) = self.sessions.admit(visit, facts, deadline).await else { return false };
        ended.into_iter().for_each(|login| self.tell(login, facts.now));
        true
    }

    fn tell(&self, login: String, at: UnixTime) {
        tokio::spawn(tell(Arc::clone(&self.notices), login, at, self.sessions.keep()));
    }

    pub(super) fn settle(&self, visit: &Visit, facts: &Facts, decision: &Decision) {
        let settled = self.sessions.settle(visit, facts, decision);
        if let Some((login, _)) = settled.ended {
            self.tell(login, facts.now);
        }
    }
}

/// Until the store has taken it: an end that only one replica knows of would be none.
async fn tell(notices: Arc<Notices>, login: String, at: UnixTime, keep: Duration) {
    for attempt in 0..ATTEMPTS {
        match notices.say((Kind::Login, &login), Word::Ended, at, Some(keep)).await {
            Ok(_) => return,
            Err(error) if attempt == 0 => {
                tracing::warn!(%error, "the end of a session could not be told; it is tried again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(LONGEST.min(Duration::from_millis(50) * 2_u32.saturating_pow(attempt.min(10)))).await;
    }
    tracing::error!("the end of a session could not be told to other replicas");
}

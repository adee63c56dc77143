//! After the judgement: what it means for the session, and an end told to every replica.

use tokio::time::Instant;

use super::{Beside, Pipeline};
use crate::{
    decision::Decision,
    domain::{Facts, UnixTime},
    notice::{Kind, Word},
    session::Visit,
};

impl Pipeline {
    /// Counts a session that begins among those of its subject. False where it has no place: `facts` say why.
    pub(super) async fn admit(&self, facts: &mut Facts, beside: &Beside, deadline: Instant) -> bool {
        let Some(visit) = &beside.visit else { return true };
        let Some(ended) = self.sessions.admit(visit, facts, deadline).await else { return false };
        ended.into_iter().for_each(|login| self.tell(login, facts.now));
        true
    }

    fn tell(&self, login: String, at: UnixTime) {
        self.notices.insist((Kind::Login, login), Word::Ended, at, Some(self.sessions.keep()));
    }

    pub(super) fn settle(&self, visit: &Visit, facts: &Facts, decision: &Decision) {
        let settled = self.sessions.settle(visit, facts, decision);
        if let Some((login, _)) = settled.ended {
            self.tell(login, facts.now);
        }
    }
}

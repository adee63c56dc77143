//! The search for a key that an issuer's set does not hold: it may be new. Asked for as seldom as the cool-down says, whatever
//! names unknown keys.

use tokio::time::Instant;

use super::keys::{Keys, Refetch};

/// What has been done so far to find one key.
#[derive(Debug, Default)]
pub(super) struct Search {
    joined: bool,
    /// How the last thing ended that may have brought it.
    ended: Option<Refetch>,
}

impl Search {
    /// After a look that found nothing: `Ok` where another may find it. `kid` is remembered where a fetch did not bring it.
    ///
    /// # Errors
    ///
    /// How the search ended. [`Refetch::Done`]: the issuer has no such key. [`Refetch::NotNow`]: nobody may ask now.
    pub(super) async fn again(&mut self, keys: &Keys, kid: Option<&str>, deadline: Instant) -> Result<(), Refetch> {
        if let Some(ended) = self.ended {
            if let (Refetch::Done, Some(kid)) = (ended, kid) {
                keys.remember_missing(kid);
            }
            return Err(ended);
        }
        if kid.is_some_and(|kid| keys.is_missing(kid)) {
            return Err(Refetch::Done);
        }
        match keys.refetch(deadline).await {
            // It may have begun before the key was there; the next has not.
            Refetch::Joined if !self.joined => self.joined = true,
            Refetch::Joined | Refetch::Done => self.ended = Some(Refetch::Done),
            // A fetch may have ended since the look.
            Refetch::NotNow => self.ended = Some(Refetch::NotNow),
            ended @ (Refetch::Failed | Refetch::Late) => return Err(ended),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::settings::KeySetSettings;

    #[tokio::test]
    async fn a_kid_that_a_fetch_did_not_bring_is_known_not_to_be_there_without_another() {
        let keys = Keys::new(&KeySetSettings::default());
        keys.remember_missing("stranger");
        // Before the end of the first fetch, for which any other waits.
        let now = Instant::now();
        assert_eq!(Search::default().again(&keys, Some("stranger"), now).await, Err(Refetch::Done));
        assert_eq!(Search::default().again(&keys, Some("other"), now).await, Err(Refetch::Late));
    }
}

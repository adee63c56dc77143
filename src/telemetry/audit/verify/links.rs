//! What chains say of one another: each names the line that the one before it ended with when it began.

use std::collections::BTreeSet;

use super::{ChainReport, Problem, ProblemKind, State, Verifier};
use crate::telemetry::audit::line::Follows;

impl Verifier {
    /// A chain names the last line of the one before it: a shorter one was cut off, and one that reads otherwise there was
    /// made anew. It may be longer: processes under one name overlap. Then the other one has signed since.
    pub(super) fn check_followers(&mut self) {
        for state in self.chains.values() {
            let Some(follows) = &state.follows else { continue };
            let Some(before) = self.chains.get(&follows.chain) else { continue };
            let Some(kind) = before.contradicts(follows) else { continue };
            let ChainReport { id, last, .. } = &before.report;
            let (file, line) = before.last_place.clone();
            self.report.problem = Some(Problem { file, line, chain: id.clone(), seq: *last, kind });
            return;
        }
    }

    /// A chain names the one before it: where that is not given, it was removed. Once for each instance that is how the
    /// rest of files that were put away begins.
    pub(super) fn check_predecessors(&mut self) {
        let missing = self.chains.values().find(|state| {
            self.lacks_predecessor(state) && !(self.retired && self.beginnings(&state.report.instance) == 1)
        });
        let Some(state) = missing else { return };
        let kind = match &state.follows {
            Some(follows) => ProblemKind::NotGiven { chain: follows.chain.clone(), seq: follows.seq },
            None => ProblemKind::Removed { first: 1, last: state.report.first - 1 },
        };
        self.report.problem = Some(Problem {
            file: state.first_place.0.clone(),
            line: state.first_place.1,
            chain: state.report.id.clone(),
            seq: state.report.first,
            kind,
        });
    }

    /// Its own beginning, or the chain before it, is not given.
    fn lacks_predecessor(&self, state: &State) -> bool {
        let unknown = |follows: &Follows| !self.chains.contains_key(&follows.chain);
        state.report.first > 1 || state.follows.as_ref().is_some_and(unknown)
    }

    /// In how many places what is given of an instance begins: more than one, and something is missing between them.
    fn beginnings(&self, instance: &str) -> usize {
        let of_instance = self.chains.values().filter(|state| state.report.instance == instance);
        let begins = of_instance.filter(|state| state.follows.is_none() || self.lacks_predecessor(state));
        // Two may follow the same one, where processes under one name overlapped.
        let named = begins.map(|state| state.follows.as_ref().map_or(&state.report.id, |follows| &follows.chain));
        named.collect::<BTreeSet<_>>().len()
    }
}

impl State {
    /// What is wrong with a chain of which another says that it ended like this when that one began.
    fn contradicts(&self, follows: &Follows) -> Option<ProblemKind> {
        let ChainReport { last, signed_to, .. } = self.report;
        if last < follows.seq {
            return Some(ProblemKind::CutOff(follows.seq));
        }
        // INVARIANT: `tail` begins with the hash of line `signed_to`. What stands before it, that signature vouches for.
        let ago = usize::try_from(follows.seq.checked_sub(signed_to)?).ok()?;
        if self.tail.get(ago).map(hex::encode).as_deref() != Some(follows.hash.as_str()) {
            return Some(ProblemKind::MadeAnew { seq: follows.seq });
        }
        (last > follows.seq).then_some(ProblemKind::Added { after: follows.seq })
    }
}

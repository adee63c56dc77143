//! The calls about sessions: list, show, end, and a view of this replica once a second.

use std::{collections::HashMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, future::try_join_all, stream};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Administration, Role,
    devices::timestamp,
    service::{Write, cut, failure, page_size, reason},
};
use crate::{
    domain::{AuthMethods, SubjectKind, UnixTime},
    notice::{Kind, Notices, Word},
    session::{Filter, Listed, Session, Sessions as Registry},
    store::StoreError,
    wire::admin::{self as wire, sessions_server::Sessions},
};

/// Between two overviews.
const TICK: Duration = Duration::from_secs(1);
/// Sessions ended at the same time: each end waits a moment for a replica of the store.
const AT_ONCE: usize = 16;
/// Most sessions that one call shows or ends.
const MOST: usize = 10_000;

/// What the calls about sessions work on.
#[derive(Clone, Debug)]
pub struct SessionDesk {
    pub registry: Arc<Registry>,
    pub notices: Arc<Notices>,
    /// Views of this replica end when it does.
    pub stop: CancellationToken,
}

/// The service; a name of its own, since one process serves several on one port.
#[derive(Clone, Debug)]
pub(super) struct SessionService(pub(super) Arc<Administration>);

type Overviews = Pin<Box<dyn Stream<Item = Result<wire::Overview, Status>> + Send>>;

impl Administration {
    fn sessions(&self) -> Result<&SessionDesk, Status> {
        self.sessions.as_ref().ok_or_else(|| Status::unimplemented("this process remembers no sessions"))
    }

    async fn find(&self, filter: &Filter) -> Result<Vec<Listed>, Status> {
        self.sessions()?.registry.find(filter, MOST).await.map_err(|error| failure(&error))
    }

    /// The notice first: it is what every replica heeds, and what outlives a loss of the store.
    async fn end_one(&self, listed: Listed, why: &str) -> Result<(), StoreError> {
        let Some(desk) = &self.sessions else { return Ok(()) };
        let (login, keep) = (listed.0.text(), Some(desk.registry.keep()));
        desk.notices.say((Kind::Login, &login), Word::Ended, self.clock.now(), keep).await?;
        desk.registry.end(listed, why).await
    }
}

#[tonic::async_trait]
impl Sessions for SessionService {
    type WatchStream = Overviews;

    async fn list(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        self.0.reader(&request)?;
        let asked = request.into_inner();
        let filter =
            Filter { subject: named(asked.subject), issuer: named(asked.issuer), id: None, ended: asked.ended };
        let page = self.0.sessions()?.registry.list(&filter, &asked.page_token, page_size(asked.page_size)).await;
        let (found, next) = page.map_err(|error| failure(&error))?;
        let sessions = found.iter().map(|(_, session)| spoken(session)).collect();
        Ok(Response::new(wire::ListSessionsResponse { sessions, next_page_token: next.unwrap_or_default() }))
    }

    async fn show(
        &self,
        request: Request<wire::ShowSessionRequest>,
    ) -> Result<Response<wire::ShowSessionResponse>, Status> {
        self.0.reader(&request)?;
        let id = request.into_inner().id;
        let found =
            self.0.find(&Filter { id: Some(given(id.clone(), "id")?), ended: true, ..Filter::default() }).await?;
        if found.is_empty() {
            return Err(Status::not_found(format!("session `{}` is not known", cut(&id))));
        }
        Ok(Response::new(wire::ShowSessionResponse {
            sessions: found.iter().map(|(_, session)| spoken(session)).collect(),
        }))
    }

    async fn end(
        &self,
        request: Request<wire::EndSessionsRequest>,
    ) -> Result<Response<wire::EndSessionsResponse>, Status> {
        let asked = request.get_ref();
        let target = if asked.id.is_empty() {
            format!("sub:{}", cut(&asked.subject))
        } else {
            format!("sid:{}", cut(&asked.id))
        };
        let what = Write { action: "session.end", target };
        self.0
            .write(request, Role::Operator, what, |desk, asked, detail| {
                Box::pin(async move {
                    let why = reason(&asked.reason)?.to_owned();
                    let (id, subject) = (named(asked.id), named(asked.subject));
                    if id.is_some() == subject.is_some() {
                        return Err(Status::invalid_argument("give either `id` or `subject`"));
                    }
                    let found = desk.find(&Filter { subject, id, issuer: named(asked.issuer), ended: false }).await?;
                    let why = if why.is_empty() { "ended by an operator" } else { why.as_str() };
                    let mut ended = Vec::with_capacity(found.len());
                    for some in found.chunks(AT_ONCE) {
                        let ends = try_join_all(some.iter().map(|listed| desk.end_one(listed.clone(), why)));
                        ends.await.map_err(|error| failure(&error))?;
                        let told = |(_, session): &Listed| wire::Session { ended: why.into(), ..spoken(session) };
                        ended.extend(some.iter().map(told));
                    }
                    *detail = format!("{} ended: {why}", ended.len());
                    Ok(wire::EndSessionsResponse { sessions: ended })
                })
            })
            .await
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Overviews>, Status> {
        self.0.reader(&request)?;
        let desk = self.0.sessions()?.clone();
        let mut ticks = tokio::time::interval_at(Instant::now(), TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let overviews = stream::unfold((Arc::clone(&self.0), ticks), async |(administration, mut ticks)| {
            ticks.tick().await;
            let overview = administration.instance.overview().await;
            Some((Ok(overview), (administration, ticks)))
        });
        let overviews = overviews.take_until(async move { desk.stop.cancelled().await });
        Ok(Response::new(Box::pin(overviews)))
    }
}

fn named(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn given(text: String, field: &str) -> Result<String, Status> {
    named(text).ok_or_else(|| Status::invalid_argument(format!("`{field}` is needed")))
}

fn spoken(session: &Session) -> wire::Session {
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let challenge = |(asked, passed): (Option<UnixTime>, Option<(AuthMethods, UnixTime)>)| wire::session::Challenge {
        asked: asked.map(timestamp),
        passed: passed.map(|(_, at)| timestamp(at)),
        methods: passed.map(|(methods, _)| names(methods)).unwrap_or_default(),
    };
    wire::Session {
        id: session.id.to_string(),
        subject: session.subject.to_string(),
        issuer: session.issuer.to_string(),
        kind: if session.kind == SubjectKind::Person { "person" } else { "service" }.to_owned(),
        client: text(session.client.as_deref()),
        created: Some(timestamp(session.created_at)),
        last_seen: Some(timestamp(session.seen_at)),
        verified: Some(timestamp(session.verified_at)),
        authenticated: session.auth_time.map(timestamp),
        methods: names(session.methods),
        trust_level: session.level.to_string(),
        trust: session.trust.get(),
        risk: session.risk.get(),
        risk_ceiling: session.risk_ceiling.get(),
        device: text(session.start.device.as_ref().map(crate::domain::DeviceId::as_str)),
        country: text(session.start.country.as_deref()),
        asn: session.start.asn.unwrap_or_default(),
        challenges: session.challenges().map(challenge).collect(),
        ended: text(session.ended.as_deref()),
    }
}

fn names(methods: AuthMethods) -> Vec<String> {
    methods.iter().map(|method| method.as_str().to_owned()).collect()
}

/// Counts by name, as messages hold them.
pub fn counts<'n>(counts: impl IntoIterator<Item = (&'n str, u64)>) -> HashMap<String, u64> {
    counts.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

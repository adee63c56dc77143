//! The HTTP port as operators, probes, scrapers and strangers meet it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Extension, body::Body};
use countersign::{
    domain::{
        Secret,
        metric::{Page, Source},
    },
    ops::{self, Listener, Peer, Settings, Sources, router, serve},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

#[derive(Debug)]
struct One;

impl Source for One {
    fn collect(&self, page: &mut Page) {
        page.gauge("countersign_feed_live", "Whether the feed is live", &[], 1.0);
    }
}

struct Server {
    address: SocketAddr,
    cancel: CancellationToken,
    task: JoinHandle<()>,
    keys_loaded: Arc<AtomicBool>,
}

fn sources() -> Sources {
    Sources {
        metrics: vec![Arc::new(One)],
        keys: Some(Box::new(|| json!({"keys": [{"kty": "OKP", "kid": "a"}]}))),
        status: vec![("feed", Box::new(|| json!({"state": "live"})))],
        explain: Some(Box::new(|id| (id == "7").then(|| json!({"why": "because"})))),
        ..Sources::default()
    }
}

async fn start(settings: Settings) -> Server {
    let keys_loaded = Arc::new(AtomicBool::new(true));
    let loaded = Arc::clone(&keys_loaded);
    let mut sources = sources();
    sources.ready.push(("rules", Box::new(|| Ok(()))));
    sources
        .ready
        .push(("keys", Box::new(move || loaded.load(Ordering::Relaxed).then_some(()).ok_or("no key set yet".into()))));
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings.max_connections).await.unwrap();
    let address = listener.address().unwrap();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router(sources, settings), cancel.clone()));
    Server { address, cancel, task, keys_loaded }
}

impl Server {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        self.get_from("127.0.0.1", path, headers).await
    }

    async fn get_from(&self, from: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String, String) {
        let from: IpAddr = from.parse().unwrap();
        let client = reqwest::Client::builder().no_proxy().local_address(from).build().unwrap();
        let mut request = client.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (answer.status().as_u16(), kind.unwrap_or_default(), answer.text().await.unwrap())
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing_and_liveness_does_not_follow_it() {
    let server = start(Settings::default()).await;
    let (status, _, body) = server.get("/readyz", &[]).await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, json!({"ready": true, "missing": []})));
    server.keys_loaded.store(false, Ordering::Relaxed);
    let (status, _, body) = server.get("/readyz", &[]).await;
    let missing = json!({"ready": false, "missing": [{"what": "keys", "why": "no key set yet"}]});
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (503, missing));
    assert_eq!(server.get("/healthz", &[]).await.0, 200);
}

#[tokio::test]
async fn a_replica_that_is_ready_says_what_it_is_without() {
    let wanting: ops::Wanting = Box::new(|| vec!["no keys of https://partner.example yet".into()]);
    let router = router(Sources { wanting: Some(wanting), ..sources() }, Settings::default());
    let answer = router.oneshot(http::Request::get("/readyz").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let expected = json!({"ready": true, "missing": [], "wanting": ["no keys of https://partner.example yet"]});
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
}

#[tokio::test]
async fn numbers_and_keys_are_for_everybody() {
    let server = start(Settings::default()).await;
    let (status, kind, body) = server.get("/metrics", &[("host", "elsewhere.example")]).await;
    assert_eq!((status, kind.as_str()), (200, "application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(body.contains("countersign_feed_live 1.0\n") && body.ends_with("# EOF\n"), "{body}");
    let (status, kind, body) = server.get("/.well-known/jwks.json", &[]).await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["keys"][0]["kid"], "a");
}

#[tokio::test]
async fn the_status_page_is_for_loopback_only() {
    let server = start(Settings::default()).await;
    let (status, kind, page) = server.get("/status", &[]).await;
    assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere");
    let (status, _, body) = server.get("/status.json", &[]).await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&body).unwrap()),
        (200, json!({"feed": {"state": "live"}, "readiness": []}))
    );
    assert_eq!(server.get("/status/explain/7", &[]).await.0, 200);
    assert_eq!(server.get("/status/explain/8", &[]).await.0, 404);
    assert_eq!(server.get("/status", &[("host", "localhost:9193")]).await.0, 200);
    assert_eq!(server.get("/status", &[("host", "[::1]:9193")]).await.0, 200);

    // A proxy on this machine, and a name of somebody else's that points here (DNS rebinding).
    for headers in [
        [("x-forwarded-for", "203.0.113.9")],
        [("via", "1.1 proxy")],
        [("host", "evil.example")],
        [("host", "127.0.0.1.evil.example")],
        [("authorization", "Bearer guess")],
    ] {
        let expected = if headers[0].0 == "authorization" { 200 } else { 403 };
        for path in ["/status", "/status.json", "/status/explain/7"] {
            assert_eq!(server.get(path, &headers).await.0, expected, "{path}: {headers:?}");
        }
    }
}

#[tokio::test]
async fn what_a_sidecar_passes_on_is_not_local() {
    const PAGES: [&str; 3] = ["/status", "/status.json", "/status/explain/7"];
    let local = [("host", "localhost")];
    // Istio's, which names itself in no header of a call that it takes for TCP.
    let server = start(Settings::default()).await;
    for path in PAGES {
        assert_eq!(server.get_from("127.0.0.6", path, &local).await.0, 403, "{path}");
        assert_eq!(server.get(path, &local).await.0, 200, "{path}");
    }
    // Another that has the address of the loopback itself, and dials the pod's.
    for (dialled, expected) in [
        (Some("10.1.2.3:9193"), 403),
        (None, 403),
        (Some("127.0.0.1:9193"), 200),
        (Some("[::ffff:127.0.0.1]:9193"), 200),
    ] {
        let peer = Peer {
            address: "127.0.0.1:5000".parse().unwrap(),
            dialled: dialled.map(|address| address.parse().unwrap()),
        };
        for path in PAGES {
            let request = http::Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
            let router = router(sources(), Settings::default()).layer(Extension(peer));
            let status = router.oneshot(request).await.unwrap().status();
            assert_eq!(status, expected, "{dialled:?} {path}");
        }
    }
}

#[tokio::test]
async fn with_its_token_the_status_page_answers_from_anywhere() {
    let token = Some(Secret::new("a-token-of-enough-length"));
    let server = start(Settings { status_token: token, ..Settings::default() }).await;
    let elsewhere = ("host", "countersign.example");
    assert_eq!(
        server.get("/status.json", &[elsewhere, ("authorization", "Bearer a-token-of-enough-length")]).await.0,
        200
    );
    for wrong in
        ["Bearer a-token-of-enough-lengt", "Bearer ", "Basic a-token-of-enough-length", "a-token-of-enough-length"]
    {
        assert_eq!(server.get("/status.json", &[elsewhere, ("authorization", wrong)]).await.0, 403, "{wrong}");
    }
}

#[tokio::test]
async fn nothing_here_takes_a_write() {
    let server = start(Settings::default()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/status.json", "/.well-known/jwks.json"] {
        let answer = client.post(format!("http://{}{path}", server.address)).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
    }
    assert_eq!(server.get("/debug/pprof", &[]).await.0, 404);
}

#[tokio::test]
async fn a_full_port_still_says_that_it_lives_and_nothing_else() {
    let server = start(Settings { max_connections: 2, ..Settings::default() }).await;
    let held: Vec<_> = (0..2).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for _ in 0..40 {
        assert_eq!(server.get("/healthz", &[]).await.0, 200);
    }
    assert_eq!(server.get("/readyz", &[]).await.0, 200);
    assert_eq!(server.get("/metrics", &[]).await.0, 503);
    drop(held);
}

#[tokio::test]
async fn silent_connections_do_not_keep_probes_from_a_full_port() {
    let server = start(Settings { max_connections: 2, ..Settings::default() }).await;
    let mut held = Vec::new();
    for path in ["/healthz", "/readyz", "/healthz", "/readyz"] {
        held.extend((0..40).map(|_| TcpStream::connect(server.address).unwrap()));
        assert_eq!(server.get(path, &[]).await.0, 200);
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_and_too_many_connections_do_not_end_the_listener() {
    let server = start(Settings { max_connections: 4, ..Settings::default() }).await;
    let address = server.address;
    tokio::task::spawn_blocking(move || {
        for rubbish in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"\0\0\0\0", b"GET / HTTP/9.9\r\n\r\n", b""]
        {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(rubbish);
            drop(stream);
        }
        let held: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut octet = [0];
        let mut last = held.last().unwrap();
        last.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert!(matches!(last.read(&mut octet), Ok(0) | Err(_)), "the one too many is turned away");
    })
    .await
    .unwrap();
    for _ in 0..100 {
        if TcpStream::connect(address).is_ok() && probe(address) {
            server.cancel.cancel();
            server.task.await.unwrap();
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    unreachable!("the listener did not come back");
}

/// Whether a request is answered; from a thread of its own, since the server shares this one's runtime.
fn probe(address: SocketAddr) -> bool {
    tokio::task::block_in_place(|| {
        let Ok(mut stream) = TcpStream::connect(address) else { return false };
        let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(1)));
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.starts_with("HTTP/1.1 200")
    })
}

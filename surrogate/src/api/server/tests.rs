//! The API over real sockets, with a control side that answers from a script.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as StdStream;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::api::messages::tests::guest;
use crate::api::messages::{EventRecord, Refusal, RefusalCode, Released, Transition};
use crate::api::{Client, ClientError};
use crate::hypervisor::Depth;

struct World {
    dir: TempDir,
    client: Client,
    events: Arc<EventLog>,
    metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("surrogate.sock");
        let server = Server::bind(&path, Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let metrics = server.metrics_address().unwrap();
        let (requests, control) = mpsc::channel(4);
        tokio::spawn(answer(control));
        let (stop, stopped) = oneshot::channel();
        let events = Arc::new(EventLog::new());
        let serving = tokio::spawn(server.serve(requests, events.clone(), async {
            let _ = stopped.await;
        }));
        Self { client: Client::new(&path), dir, events, metrics, stop: Some(stop), serving }
    }

    /// Sends `request` as it is and returns all that comes back.
    async fn raw(&self, request: &str) -> String {
        let path = self.dir.path().join("surrogate.sock");
        let request = request.to_owned();
        let exchange = move || {
            let mut stream = StdStream::connect(path).unwrap();
            // The server may refuse and close before it read everything.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }
}

/// A control side that knows "web1", which sleeps and wakes, and "db1", which does neither.
async fn answer(mut control: mpsc::Receiver<Request>) {
    let moved = |state: &str, held| Transition {
        guest: "web1".to_owned(),
        state: state.to_owned(),
        took_ms: 40,
        held,
        replayed: 2,
    };
    let refuse = |name: &str| match name {
        "db1" => Refusal::new(RefusalCode::Conflict, "db1: a backup runs; try again later"),
        _ => Refusal::new(RefusalCode::NotFound, format!("there is no guest \"{name}\"")),
    };
    while let Some(request) = control.recv().await {
        match request {
            Request::Guests { reply } => {
                drop(reply.send(vec![guest("web1", "asleep"), guest("db1", "awake")]))
            }
            Request::Guest { name, reply } => drop(reply.send(match name.as_str() {
                "web 1/ü" | "web1" => Ok(guest(&name, "asleep")),
                _ => Err(refuse(&name)),
            })),
            Request::Sleep { name, depth, reply } => drop(reply.send(match name.as_str() {
                "web1" => Ok(moved(if depth == Some(Depth::Save) { "asleep (save)" } else { "asleep" }, 0)),
                _ => Err(refuse(&name)),
            })),
            // Asked to wake this one, it goes away without a word.
            Request::Wake { name, .. } if name == "silent" => {}
            Request::Wake { name, reply } => drop(reply.send(match name.as_str() {
                "web1" => Ok(moved("awake", 3)),
                _ => Err(refuse(&name)),
            })),
            Request::ReleaseAll { reply } => {
                drop(reply.send(Ok(Released { guests: 0, restored: 5, failed: vec![] })))
            }
            Request::Metrics { reply } => drop(reply.send("surrogate_up 1\n# EOF\n".to_owned())),
        }
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_question_gets_its_answer() {
    let world = World::new().await;
    let client = &world.client;
    let names: Vec<String> = client.guests().await.unwrap().into_iter().map(|g| g.name).collect();
    assert_eq!(names, ["web1", "db1"]);
    assert_eq!(client.guest("web1").await.unwrap(), guest("web1", "asleep"));
    assert_eq!(client.guest("web 1/ü").await.unwrap().name, "web 1/ü");
    assert_eq!(client.sleep("web1", None).await.unwrap().state, "asleep");
    assert_eq!(client.sleep("web1", Some(Depth::Save)).await.unwrap().state, "asleep (save)");
    assert_eq!(client.wake("web1").await.unwrap().held, 3);
    assert_eq!(client.release_all().await.unwrap().restored, 5);
}

#[tokio::test]
async fn a_refusal_arrives_whole() {
    let world = World::new().await;
    let unknown = refusal(world.client.guest("web9").await);
    assert_eq!(unknown, Refusal::new(RefusalCode::NotFound, "there is no guest \"web9\""));
    let busy = refusal(world.client.sleep("db1", None).await);
    assert_eq!(busy.code, RefusalCode::Conflict);
    let gone = refusal(world.client.wake("silent").await);
    assert_eq!(gone.code, RefusalCode::Unavailable);
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_its_status() {
    let world = World::new().await;
    let long = format!("GET /v1/guests HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES));
    let body = |text: &str| {
        format!(
            "POST /v1/guests/web1/sleep HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        )
    };
    for (request, status) in [
        ("GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /v1/guests/ HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("DELETE /v1/guests HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("GET /v1/guests/web1/wake HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("GET /v1/guests/%ff HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET /v1/events?sinse=1 HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        ("GET /v1/events?since=x HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (&body("{\"depth\":\"deep\"}"), "400"),
        (&body("{\"depht\":\"pause\"}"), "400"),
        (&body(&format!("\"{}\"", "x".repeat(5000))), "400"),
        (&body("{}"), "200"),
        (&body("{\"depth\":\"save\"}"), "200"),
        ("no HTTP at all\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let answer = world.raw(request).await;
        let head = answer.lines().next().unwrap_or_default();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:.60}: {answer}");
    }
}

#[tokio::test]
async fn events_are_told_from_a_number_on_and_followed_until_the_daemon_stops() {
    let mut world = World::new().await;
    for kind in ["settling", "asleep", "waking"] {
        world.events.record(Some("web1"), kind, "");
    }
    let mut told = Vec::new();
    let tell = |record: EventRecord| {
        told.push(record.kind);
        true
    };
    world.client.events(1, false, tell).await.unwrap();
    assert_eq!(told, ["asleep", "waking"]);

    let (seen, mut seeing) = mpsc::unbounded_channel();
    let follower = world.client.clone();
    let following =
        tokio::spawn(async move { follower.events(2, true, |r| seen.send(r.kind).is_ok()).await });
    assert_eq!(seeing.recv().await.as_deref(), Some("waking"));
    world.events.record(Some("web1"), "awake", "");
    assert_eq!(seeing.recv().await.as_deref(), Some("awake"));
    world.stop.take().unwrap().send(()).unwrap();
    following.await.unwrap().unwrap();
    world.serving.await.unwrap();
    assert!(!world.dir.path().join("surrogate.sock").exists());
    let gone = world.client.guests().await.unwrap_err();
    assert!(gone.to_string().contains("is `surrogate run` running"), "{gone}");
}

#[tokio::test]
async fn followers_leave_room_for_questions() {
    let world = World::new().await;
    world.events.record(None, "started", "");
    let mut following = Vec::new();
    for _ in 0..FOLLOWERS {
        let client = world.client.clone();
        let (seen, seeing) = oneshot::channel();
        let mut seen = Some(seen);
        following.push(tokio::spawn(async move {
            client.events(0, true, |_| seen.take().is_none_or(|seen| seen.send(()).is_ok())).await
        }));
        seeing.await.unwrap();
    }
    let one_more = refusal(world.client.events(0, true, |_| true).await);
    assert_eq!(one_more.code, RefusalCode::Unavailable);
    assert_eq!(world.client.guests().await.unwrap().len(), 2);
    following.pop().unwrap().abort();
    let mut place = world.client.events(0, true, |_| false).await;
    while matches!(place, Err(ClientError::Refused(_))) {
        tokio::task::yield_now().await;
        place = world.client.events(0, true, |_| false).await;
    }
    place.unwrap();
}

#[tokio::test]
async fn the_metrics_address_serves_metrics_and_nothing_else() {
    let world = World::new().await;
    let get = |path: &'static str| {
        let address = world.metrics;
        tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let metrics = get("/metrics").await.unwrap();
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("surrogate_up 1"), "{metrics}");
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    for closed in ["/v1/guests", "/v1/events", "/"] {
        let answer = get(closed).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{closed}: {answer}");
    }
    let own = world.raw("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(own.contains("surrogate_up 1"), "{own}");
}

#[tokio::test]
async fn a_stranger_is_refused_whatever_it_asks() {
    let (requests, mut control) = mpsc::channel(1);
    let (_stop, stopping) = watch::channel(false);
    let routes = Arc::new(Routes {
        requests,
        events: Arc::new(EventLog::new()),
        stopping,
        followers: Arc::new(Semaphore::new(1)),
    });
    for request in ["GET /v1/guests", "GET /metrics", "POST /v1/guests/web1/sleep", "GET /v1/events?follow=1"]
    {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let served = tokio::spawn(operator(UnixStream::from_std(ours).unwrap(), false, routes.clone(), None));
        let answer = tokio::task::spawn_blocking(move || {
            let mut theirs = theirs;
            write!(theirs, "{request} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            theirs.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("\"code\":\"forbidden\""), "{answer}");
        served.await.unwrap();
    }
    assert!(control.try_recv().is_err(), "the control side was asked nothing");
}

#[tokio::test]
async fn only_root_and_the_owner_may() {
    assert!(may(0, 64055) && may(64055, 64055) && !may(1000, 64055) && !may(1000, 0));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(allowed(&ours, ours.peer_cred().unwrap().uid()), "the kernel tells who the peer is");
}

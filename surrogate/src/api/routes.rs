//! Paths and methods to requests, answers to JSON. Knows nothing of sockets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body, Frame};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::events::EventLog;
use super::messages::{EventRecord, Refusal, RefusalCode, Request};
use super::metrics;
use crate::hypervisor::Depth;

/// The longest request body.
const BODY_BYTES: usize = 4096;
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the control side may take to say how things are. Transitions have deadlines of its own.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes back.
pub(super) type Reply = Response<Stream>;

/// Its body, whole or as it comes.
type Stream = BoxBody<Bytes, std::convert::Infallible>;

/// What the answers are made from.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) events: Arc<EventLog>,
    /// Becomes true when the daemon stops; followers are let go then.
    pub(super) stopping: watch::Receiver<bool>,
    /// Free places for followers of the events, fewer than connections: the others stay usable.
    pub(super) followers: Arc<Semaphore>,
}

impl Routes {
    /// Any request on the Unix socket.
    pub(super) async fn operator<B>(&self, request: hyper::Request<B>) -> Reply
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let Some(parts) = path.split('/').skip(1).map(decoded).collect::<Option<Vec<String>>>() else {
            return refused(&Refusal::new(
                RefusalCode::BadRequest,
                "the path is not valid percent-encoded UTF-8",
            ));
        };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let outcome = match (parts.as_slice(), &method) {
            (["metrics"], &Method::GET) => return self.scraped().await,
            (["v1", "guests"], &Method::GET) => {
                self.look(|reply| Request::Guests { reply }).await.map(|g| json(&g))
            }
            (["v1", "guests", name], &Method::GET) => {
                let name = (*name).to_owned();
                let guest = self.look(|reply| Request::Guest { name, reply }).await;
                guest.and_then(|found| found).map(|guest| json(&guest))
            }
            (["v1", "guests", name, "sleep"], &Method::POST) => self.sleep(name, request).await,
            (["v1", "guests", name, "wake"], &Method::POST) => {
                let name = (*name).to_owned();
                let woken = self.ask(|reply| Request::Wake { name, reply }).await;
                woken.and_then(|done| done).map(|transition| json(&transition))
            }
            (["v1", "release"], &Method::POST) => {
                let released = self.ask(|reply| Request::ReleaseAll { reply }).await;
                released.and_then(|done| done).map(|released| json(&released))
            }
            (["v1", "events"], &Method::GET) => self.events(request.uri().query().unwrap_or_default()),
            (["metrics"] | ["v1", "guests" | "events"] | ["v1", "guests", _], _) => {
                return wrong_method("GET");
            }
            (["v1", "guests", _, "sleep" | "wake"] | ["v1", "release"], _) => return wrong_method("POST"),
            _ => Err(Refusal::new(RefusalCode::NotFound, format!("there is nothing at {path}"))),
        };
        outcome.unwrap_or_else(|refusal| refused(&refusal))
    }

    /// Any request on the metrics address.
    pub(super) async fn scraper<B>(&self, request: hyper::Request<B>) -> Reply {
        match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET) => self.scraped().await,
            ("/metrics", _) => wrong_method("GET"),
            _ => refused(&Refusal::new(RefusalCode::NotFound, "only /metrics is served here")),
        }
    }

    async fn scraped(&self) -> Reply {
        match self.look(|reply| Request::Metrics { reply }).await {
            Ok(text) => reply(StatusCode::OK, metrics::CONTENT_TYPE, text.into()),
            Err(refusal) => refused(&refusal),
        }
    }

    async fn sleep<B>(&self, name: &str, request: hyper::Request<B>) -> Result<Reply, Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let bad = |why: String| Refusal::new(RefusalCode::BadRequest, why);
        let body = Limited::new(request.into_body(), BODY_BYTES).collect();
        let body = tokio::time::timeout(BODY_TIMEOUT, body)
            .await
            .map_err(|_| bad("the request's body did not come".to_owned()))?
            .map_err(|why| bad(format!("the request's body: {why}")))?
            .to_bytes();
        let order: SleepOrder = if body.is_empty() {
            SleepOrder::default()
        } else {
            serde_json::from_slice(&body).map_err(|why| bad(format!("the request's body: {why}")))?
        };
        let name = name.to_owned();
        let slept = self.ask(|reply| Request::Sleep { name, depth: order.depth, reply }).await;
        slept.and_then(|done| done).map(|transition| json(&transition))
    }

    fn events(&self, query: &str) -> Result<Reply, Refusal> {
        let mut since = 0;
        let mut follow = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("since", number)) => {
                    since = number.parse().map_err(|_| {
                        Refusal::new(RefusalCode::BadRequest, format!("since={number} is no event's number"))
                    })?;
                }
                Some(("follow", value @ ("0" | "1"))) => follow = value == "1",
                _ => {
                    let what = format!("\"{pair}\" is unknown here: wanted since=N, follow=1");
                    return Err(Refusal::new(RefusalCode::BadRequest, what));
                }
            }
        }
        let body = if follow {
            self.followed(since)?
        } else {
            let lines: String = self.events.since(since).iter().map(line).collect();
            Full::new(lines.into()).boxed()
        };
        Ok(response(StatusCode::OK, "application/jsonl", body))
    }

    /// What was, then what comes, until the client goes or the daemon stops.
    fn followed(&self, since: u64) -> Result<Stream, Refusal> {
        let place = self.followers.clone().try_acquire_owned().map_err(|_| {
            Refusal::new(RefusalCode::Unavailable, "too many follow the events already; end one of them")
        })?;
        let (past, follower) = self.events.follow(since);
        let first: String = past.iter().map(line).collect();
        let state = (Some(first), follower, self.stopping.clone(), place);
        let lines = stream::unfold(state, async |(first, mut follower, mut stopping, place)| {
            let text = match first {
                Some(text) => text,
                None => tokio::select! {
                    record = follower.next() => line(&record?),
                    _ = stopping.wait_for(|&stop| stop) => return None,
                },
            };
            Some((Ok(Frame::data(Bytes::from(text))), (None, follower, stopping, place)))
        });
        Ok(BodyExt::boxed(StreamBody::new(lines)))
    }

    /// Asks how things are; the answer is due soon.
    async fn look<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        tokio::time::timeout(LOOK_TIMEOUT, self.ask(request)).await.unwrap_or_else(|_| {
            Err(Refusal::new(RefusalCode::Timeout, "the daemon is busy and did not answer in time"))
        })
    }

    /// Asks for something that takes its time.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let stopping = |_| Refusal::new(RefusalCode::Unavailable, "the daemon is stopping");
        self.requests.send(request(reply)).await.map_err(|_| stopping(()))?;
        answer.await.map_err(|_| stopping(()))
    }
}

/// The body of a sleep order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SleepOrder {
    depth: Option<Depth>,
}

/// The body of a refusal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: Refusal,
}

/// To anyone who may not use the socket.
pub(super) fn stranger() -> Reply {
    refused(&Refusal::new(RefusalCode::Forbidden, "only root and the daemon's own user may talk to it"))
}

fn refused(refusal: &Refusal) -> Reply {
    let status = match refusal.code {
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
        RefusalCode::Forbidden => StatusCode::FORBIDDEN,
        RefusalCode::Conflict => StatusCode::CONFLICT,
        RefusalCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = ErrorBody { error: refusal.clone() };
    reply(status, "application/json", text(&body).into())
}

fn wrong_method(allowed: &'static str) -> Reply {
    let refusal = Refusal::new(RefusalCode::BadRequest, format!("this path takes {allowed}"));
    let mut reply = refused(&refusal);
    *reply.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

fn json(value: &impl Serialize) -> Reply {
    reply(StatusCode::OK, "application/json", text(value).into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    response(status, content_type, Full::new(body).boxed())
}

fn response(status: StatusCode, content_type: &'static str, body: Stream) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn line(record: &EventRecord) -> String {
    text(record)
}

/// `value` as one line of JSON.
fn text(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("our own types have string keys and finite numbers");
    text.push('\n');
    text
}

/// `part` of a path with `%XX` undone; `None` if that is no UTF-8.
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = core::str::from_utf8(&digits).ok().filter(|d| !d.starts_with('+'))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// `part` as one part of a path.
pub(super) fn encoded(part: &str) -> String {
    let mut path = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_survives_being_part_of_a_path() {
        for name in ["web1", "web 1/2", "ü%41?#", "..", "a+b"] {
            assert_eq!(decoded(&encoded(name)).as_deref(), Some(name));
            assert!(!encoded(name).contains(['/', '?', '#', ' ']));
        }
        for bad in ["%", "%4", "%zz", "%ff", "%+1"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}

//! Talks to a daemon's operator API: what the command line uses.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::messages::{EventRecord, GuestStatus, Refusal, Released, Transition};
use super::routes::{ErrorBody, encoded};
use crate::hypervisor::Depth;

/// How long the daemon may take to say how things are. It has a shorter deadline of its own.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest answer: some 10,000 guests.
const ANSWER_BYTES: usize = 64 << 20;
/// The longest event record.
const LINE_BYTES: usize = 64 << 10;

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error("{}", unreachable(.socket, .why))]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// It refused, and says why.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It answered, but not as this version does, or went away meanwhile.
    #[error("the daemon's answer broke off or makes no sense: {0}")]
    Broken(String),
}

/// One daemon, by its socket. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// All guests.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn guests(&self) -> Result<Vec<GuestStatus>, ClientError> {
        self.look("/v1/guests").await
    }

    /// One guest.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn guest(&self, name: &str) -> Result<GuestStatus, ClientError> {
        self.look(&format!("/v1/guests/{}", encoded(name))).await
    }

    /// Puts a guest to sleep and waits until it does.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn sleep(&self, name: &str, depth: Option<Depth>) -> Result<Transition, ClientError> {
        let body = serde_json::json!({ "depth": depth }).to_string();
        self.order(&format!("/v1/guests/{}/sleep", encoded(name)), body).await
    }

    /// Wakes a guest and waits until it runs and has what was held for it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn wake(&self, name: &str) -> Result<Transition, ClientError> {
        self.order(&format!("/v1/guests/{}/wake", encoded(name)), String::new()).await
    }

    /// Puts back everything that was changed on the bridges.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn release_all(&self) -> Result<Released, ClientError> {
        self.order("/v1/release", String::new()).await
    }

    /// The events after number `since`, given to `each` one by one; with `follow`, until `each` says
    /// to stop (`false`) or the daemon does.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        since: u64,
        follow: bool,
        mut each: impl FnMut(EventRecord) -> bool,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/events?since={since}&follow={}", u8::from(follow));
        let mut body = accepted(self.send(Method::GET, &path, String::new()).await?).await?.into_body();
        let mut pending = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|why| ClientError::Broken(why.to_string()))?;
            pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line = pending.split_to(end + 1);
                if !each(parsed(&line)?) {
                    return Ok(());
                }
            }
            if pending.len() > LINE_BYTES {
                return Err(ClientError::Broken("an event record without end".to_owned()));
            }
        }
        Ok(())
    }

    async fn look<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer =
            async { whole(accepted(self.send(Method::GET, path, String::new()).await?).await?).await };
        let late = || ClientError::Broken(format!("nothing came within {} s", LOOK_TIMEOUT.as_secs()));
        parsed(&tokio::time::timeout(LOOK_TIMEOUT, answer).await.map_err(|_| late())??)
    }

    async fn order<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, ClientError> {
        parsed(&whole(accepted(self.send(Method::POST, path, body).await?).await?).await?)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<Response<Incoming>, ClientError> {
        let broken = |why: hyper::Error| ClientError::Broken(why.to_string());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|why| ClientError::Unreachable { socket: self.socket.clone(), why })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends when the answer was read or dropped; its error shows on the answer too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "surrogate")
            .body(Full::new(Bytes::from(body)))
            .map_err(|why| ClientError::Broken(why.to_string()))?;
        sender.send_request(request).await.map_err(broken)
    }
}

/// The answer, if it is no refusal.
async fn accepted(answer: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = whole(answer).await?;
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => Err(ClientError::Refused(body.error)),
        Err(_) => Err(ClientError::Broken(format!("HTTP status {status}"))),
    }
}

async fn whole(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
    Ok(body.map_err(|why| ClientError::Broken(why.to_string()))?.to_bytes())
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|why| ClientError::Broken(why.to_string()))
}

fn unreachable(socket: &Path, why: &io::Error) -> String {
    let socket = socket.display();
    match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            format!("no daemon answers on {socket}: is `surrogate run` running with the same configuration?")
        }
        io::ErrorKind::PermissionDenied => {
            format!("may not use {socket}: be root or the daemon's own user")
        }
        _ => format!("cannot reach the daemon on {socket}: {why}"),
    }
}

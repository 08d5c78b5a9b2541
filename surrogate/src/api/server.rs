//! Accepts connections and bounds them: how many, how long, how much, and whose.
//!
//! Two doors: the Unix socket, whole API, only for root and the daemon's own user; and, if
//! configured, a TCP address that serves `/metrics` to anyone and nothing else. One request per
//! connection, so that every slot comes back by itself.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::events::EventLog;
use super::messages::Request;
use super::routes::{self, Reply, Routes};
use super::socket::OwnSocket;

/// Connections at once on the Unix socket; the next ones wait in its backlog.
const OPERATORS: usize = 64;
/// Of these, how many may follow the events.
const FOLLOWERS: usize = 32;
/// Connections at once on the metrics address.
const SCRAPES: usize = 16;
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a scrape may take in all.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a request is buffered; hyper's least.
const HEAD_BYTES: usize = 8192;
/// What open requests get to finish in when the daemon stops.
const GRACE: Duration = Duration::from_secs(2);
/// What to wait before accepting again after that failed (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon answers there.
    #[error("{}: another daemon answers on this socket; stop it first", .0.display())]
    Taken(PathBuf),
    /// The socket, its directory or the metrics address.
    #[error("cannot serve on {what}: {why}")]
    Io {
        /// The path or address.
        what: String,
        /// Why not.
        why: io::Error,
    },
}

/// Bound, not yet answering. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    socket: OwnSocket,
    metrics: Option<TcpListener>,
}

impl Server {
    /// Takes the socket (and the metrics address, if given). A stale socket is replaced only if
    /// nobody answers on it.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(socket: &Path, metrics: Option<SocketAddr>) -> Result<Self, BindError> {
        let socket = OwnSocket::bind(socket)?;
        let metrics = match metrics {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|why| BindError::Io { what: format!("metrics address {address}"), why })?,
            ),
        };
        Ok(Self { socket, metrics })
    }

    /// Where the metrics are served, if they are; the port is a real one even if 0 was asked for.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// Answers until `shutdown` is over; then gives open requests a moment and removes the socket.
    pub async fn serve(
        self,
        requests: mpsc::Sender<Request>,
        events: Arc<EventLog>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        let (stop, stopping) = watch::channel(false);
        let routes = routes(requests, events, stopping);
        let operators = Arc::new(Semaphore::new(OPERATORS));
        let scrapes = Arc::new(Semaphore::new(SCRAPES));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                (permit, stream) = accept_operator(&operators, &self.socket) => {
                    let allowed = allowed(&stream, self.socket.owner);
                    connections.spawn(operator(stream, allowed, routes.clone(), permit));
                }
                (permit, stream) = accept_scrape(&scrapes, self.metrics.as_ref()) => {
                    connections.spawn(scrape(stream, routes.clone(), permit));
                }
                Some(_) = connections.join_next() => {}
            }
        }
        let _ = stop.send(true);
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, finish).await.is_err() {
            tracing::info!("closing requests that are still open");
        }
    }
}

async fn accept_operator(
    free: &Arc<Semaphore>,
    socket: &OwnSocket,
) -> (Option<OwnedSemaphorePermit>, UnixStream) {
    let permit = free.clone().acquire_owned().await.ok();
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => return (permit, stream),
            Err(why) => accept_failed(&why).await,
        }
    }
}

async fn accept_scrape(
    free: &Arc<Semaphore>,
    listener: Option<&TcpListener>,
) -> (Option<OwnedSemaphorePermit>, tokio::net::TcpStream) {
    let Some(listener) = listener else { return std::future::pending().await };
    let permit = free.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (permit, stream),
            Err(why) => accept_failed(&why).await,
        }
    }
}

async fn accept_failed(why: &io::Error) {
    tracing::warn!(%why, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Whether the peer is root or `owner`. The file's mode says the same, until someone changes it.
fn allowed(stream: &UnixStream, owner: u32) -> bool {
    match stream.peer_cred() {
        Ok(peer) if may(peer.uid(), owner) => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "refused a stranger on the operator socket");
            false
        }
        Err(why) => {
            tracing::warn!(%why, "refused a peer on the operator socket that the kernel cannot name");
            false
        }
    }
}

const fn may(uid: u32, owner: u32) -> bool {
    uid == 0 || uid == owner
}

/// Answers one connection of an operator who may, whatever it is made of.
pub async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: mpsc::Sender<Request>,
    events: Arc<EventLog>,
) {
    let (_running, stopping) = watch::channel(false);
    operator(stream, true, routes(requests, events, stopping), None).await;
}

fn routes(
    requests: mpsc::Sender<Request>,
    events: Arc<EventLog>,
    stopping: watch::Receiver<bool>,
) -> Arc<Routes> {
    let followers = Arc::new(Semaphore::new(FOLLOWERS));
    Arc::new(Routes { requests, events, stopping, followers })
}

async fn operator(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    allowed: bool,
    routes: Arc<Routes>,
    _slot: Option<OwnedSemaphorePermit>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let routes = routes.clone();
        async move {
            Ok::<Reply, Infallible>(if allowed { routes.operator(request).await } else { routes::stranger() })
        }
    });
    if let Err(why) = http().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%why, "operator connection");
    }
}

async fn scrape(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    routes: Arc<Routes>,
    _slot: Option<OwnedSemaphorePermit>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let routes = routes.clone();
        async move { Ok::<Reply, Infallible>(routes.scraper(request).await) }
    });
    let connection = http().serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(SCRAPE_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(%why, "metrics connection"),
        Err(_) => tracing::debug!("metrics connection took too long"),
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false);
    http
}

#[cfg(test)]
mod tests;

//! The operator API as it reads a connection: HTTP, paths, queries, bodies. No socket: the connection is memory that
//! ends where the input does, and the control side answers at once.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use surrogate::api::{EventLog, Refusal, RefusalCode, Released, Request, server};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

pub(crate) fn run(data: &[u8]) -> bool {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    // Only for its timers, none of which ever comes due: nothing here waits.
    let runtime =
        RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let _inside = runtime.enter();

    let (requests, mut control) = mpsc::channel(4);
    let said = Arc::new(Mutex::new(Vec::new()));
    let connection = Connection { input: data, said: said.clone() };
    let mut serving = pin!(server::answer(connection, requests, Arc::new(EventLog::new())));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut asked = 0;
    while woken.0.swap(false, Ordering::Relaxed) {
        if serving.as_mut().poll(&mut context).is_ready() {
            break;
        }
        while let Ok(request) = control.try_recv() {
            asked += 1;
            reply(request);
        }
    }
    assert!(asked <= 1, "one request per connection");
    let said = said.lock().expect("nobody panicked");
    check(&said);
    asked > 0 || said.starts_with(b"HTTP/1.1 200 ")
}

/// What a control side without guests says.
fn reply(request: Request) {
    let none = |name: &str| Refusal::new(RefusalCode::NotFound, format!("there is no guest \"{name}\""));
    // An asker that went away is none of the control side's business.
    match request {
        Request::Guests { reply } => drop(reply.send(Vec::new())),
        Request::Guest { name, reply } => drop(reply.send(Err(none(&name)))),
        Request::Sleep { name, reply, .. } | Request::Wake { name, reply } => {
            drop(reply.send(Err(none(&name))))
        }
        Request::ReleaseAll { reply } => drop(reply.send(Ok(Released::default()))),
        Request::Metrics { reply } => drop(reply.send("# EOF\n".to_owned())),
    }
}

/// Whatever was asked, the answer is HTTP and none of it is our own fault.
fn check(said: &[u8]) {
    if said.is_empty() {
        return;
    }
    let status = said.strip_prefix(b"HTTP/1.1 ").or_else(|| said.strip_prefix(b"HTTP/1.0 "));
    let status = status.and_then(<[u8]>::first_chunk::<3>);
    let expected = [b"100", b"200", b"400", b"404", b"405", b"414", b"431"];
    let fine = status.is_some_and(|status| expected.contains(&status));
    assert!(fine, "{}", String::from_utf8_lossy(said));
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Gives the input and then nothing, as a client does that waits for the answer.
struct Connection<'d> {
    input: &'d [u8],
    said: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Connection<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.input.len().min(buffer.remaining());
        if len == 0 {
            return Poll::Pending;
        }
        let (now, later) = self.input.split_at(len);
        buffer.put_slice(now);
        self.input = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.said.lock().expect("nobody panicked").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let requests = [
        "GET /v1/guests HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/guests/web%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST /v1/guests/web1/sleep HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"depth\":\"save\"}",
        "POST /v1/guests/web1/sleep HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "POST /v1/guests/web1/wake HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        "POST /v1/release HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/events?since=7 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/events?follow=1&since=0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "DELETE /v1/guests HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    requests.map(|request| request.as_bytes().to_vec()).to_vec()
}

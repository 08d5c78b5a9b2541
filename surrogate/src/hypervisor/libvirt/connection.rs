//! Connections to one libvirt: a pool for calls, so that each call has one to itself.
//!
//! libvirtd serves five calls of one client at a time (`max_client_requests`) and lets the others wait,
//! so on a shared connection five suspends that hang on a dead store would stop all guests' calls. A
//! call here takes an idle connection, or opens one, and gives it back; a call that never returns
//! keeps its own, and costs nobody else anything.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use virt::connect::Connect;

use super::ffi::{self, OnClose, OnLifecycle};
use crate::hypervisor::HypervisorError;

/// One open connection, closed when it goes (virt's own type would leave it open).
pub(super) struct Connection {
    connect: Connect,
    lifecycle: Option<i32>,
    close: bool,
}

impl Connection {
    /// Connects. Blocks for as long as the transport does.
    ///
    /// # Errors
    /// What libvirt says, one line.
    pub(super) fn open(uri: &str) -> Result<Self, String> {
        ffi::start_event_loop()?;
        if uri.contains('\0') {
            return Err("the URI contains a NUL character".to_owned());
        }
        let connect = Connect::open(Some(uri)).map_err(|error| ffi::one_line(error.message()))?;
        // Drivers within this process have nothing to keep alive and say so; that is no error.
        let _ = connect.set_keep_alive(KEEP_ALIVE_SECONDS, KEEP_ALIVE_COUNT);
        Ok(Self { connect, lifecycle: None, close: false })
    }

    /// Asks for lifecycle events and to be told when the connection ends.
    ///
    /// # Errors
    /// What libvirt says, one line.
    pub(super) fn subscribe(&mut self, on_lifecycle: OnLifecycle, on_close: OnClose) -> Result<(), String> {
        let id = ffi::on_lifecycle(&self.connect, on_lifecycle);
        self.lifecycle = Some(id.map_err(|error| ffi::one_line(error.message()))?);
        // Not supported by the drivers within this process, whose connections do not end by themselves.
        self.close = ffi::on_close(&self.connect, on_close).is_ok();
        Ok(())
    }

    /// Whether it is still connected, as far as this side knows; asks nobody.
    pub(super) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }
}

impl Deref for Connection {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        &self.connect
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(id) = self.lifecycle {
            ffi::stop_lifecycle(&self.connect, id);
        }
        if self.close {
            ffi::stop_close(&self.connect);
        }
        // It cannot fail in a way that matters: libvirt forgets a dead connection as well.
        let _ = self.connect.close();
    }
}

/// The connections for calls.
pub(super) struct Pool {
    hypervisor: String,
    uri: String,
    state: Mutex<State>,
}

struct State {
    /// Whether libvirt can be reached; else why not.
    up: Result<(), String>,
    /// How often it came up: a connection from before is not taken back.
    generation: u64,
    idle: Vec<Connection>,
}

impl Pool {
    pub(super) const fn new(hypervisor: String, uri: String) -> Self {
        let state = State { up: Err(String::new()), generation: 0, idle: Vec::new() };
        Self { hypervisor, uri, state: Mutex::new(state) }
    }

    /// libvirt can be reached: calls may be made.
    pub(super) fn set_up(&self) {
        let mut state = self.lock();
        state.up = Ok(());
        state.generation = state.generation.wrapping_add(1);
    }

    /// It cannot: calls fail at once with `why`, instead of waiting for what may never come.
    pub(super) fn set_down(&self, why: &str) {
        let mut state = self.lock();
        state.up = Err(why.to_owned());
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle); // closing may block
    }

    /// A connection for one call.
    ///
    /// # Errors
    /// [`HypervisorError::Disconnected`].
    pub(super) fn take(&self) -> Result<Lease<'_>, HypervisorError> {
        let (generation, mut idle) = {
            let mut state = self.lock();
            state.up.clone().map_err(|why| self.disconnected(why))?;
            (state.generation, state.idle.pop())
        };
        idle = idle.filter(Connection::is_alive);
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.uri).map_err(|why| self.disconnected(why))?,
        };
        Ok(Lease { pool: self, generation, connection: Some(connection) })
    }

    /// The error for a call that had no connection.
    pub(super) fn disconnected(&self, why: String) -> HypervisorError {
        HypervisorError::Disconnected { hypervisor: self.hypervisor.clone(), why }
    }

    /// The error for a guest that is not there.
    pub(super) fn no_guest(&self, guest: String) -> HypervisorError {
        HypervisorError::NoGuest { hypervisor: self.hypervisor.clone(), guest }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that one call has to itself.
pub(super) struct Lease<'a> {
    pool: &'a Pool,
    generation: u64,
    connection: Option<Connection>,
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken out only when the lease is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take().filter(Connection::is_alive) else { return };
        let mut state = self.pool.lock();
        if state.up.is_ok() && state.generation == self.generation && state.idle.len() < KEPT_IDLE {
            state.idle.push(connection);
        } else {
            drop(state);
            drop(connection); // closing may block
        }
    }
}

/// Connections kept for the next calls.
const KEPT_IDLE: usize = 4;

/// A libvirtd that has not answered for 5 s × 3 counts as gone, and calls that wait for it fail.
const KEEP_ALIVE_SECONDS: i32 = 5;
const KEEP_ALIVE_COUNT: u32 = 3;

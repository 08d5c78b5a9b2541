//! What the `virt` crate does not wrap: the event loop's thread, domain events, the close callback and
//! block jobs. Thin safe functions over libvirt's C API.
//!
//! libvirt's objects may be used from any thread (its manual, "API concepts": since 0.6.0). Its callbacks
//! run on the event loop's thread, so they do nothing but pass a message on.

#![expect(unsafe_code, reason = "the C API of libvirt; each call is proved where it is made")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt::sys;

/// Registers libvirt's event loop and runs it on a thread of its own, once per process.
///
/// Before the first connection, or that one would never have events. The thread stays as long as the
/// process: libvirt has no way to take an event loop back. Also silences libvirt, which would print
/// each error on stderr beside returning it.
///
/// # Errors
/// What libvirt or the thread's start says; the same at each call.
pub(super) fn start_event_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|error| one_line(error.message()))?;
        let run = || loop {
            // It fails only if poll(2) does; a pause keeps that from becoming a busy loop.
            if let Err(error) = virt::event::event_run_default_impl() {
                tracing::warn!(error = error.message(), "libvirt's event loop");
                thread::park_timeout(Duration::from_secs(1));
            }
        };
        let thread = thread::Builder::new().name("libvirt-events".to_owned()).spawn(run);
        thread.map(|_| ()).map_err(|error| error.to_string())
    };
    STARTED.get_or_init(start).clone()
}

/// Gets each lifecycle event of any domain: its name, and the event's number (`virDomainEventType`).
pub(super) type OnLifecycle = Box<dyn Fn(String, c_int) + Send + Sync>;

/// Gets the reason (`virConnectCloseReason`) when a connection ends by itself.
pub(super) type OnClose = Box<dyn Fn(c_int) + Send + Sync>;

/// Asks for the lifecycle events of all domains; libvirt drops `on_event` after [`stop_lifecycle`] or
/// with the connection.
///
/// # Errors
/// What libvirt says.
pub(super) fn on_lifecycle(connection: &Connect, on_event: OnLifecycle) -> Result<c_int, Error> {
    let opaque = Box::into_raw(Box::new(on_event)).cast::<c_void>();
    // SAFETY: for VIR_DOMAIN_EVENT_ID_LIFECYCLE libvirt calls the function by its real type, which is
    // `Lifecycle` (virConnectDomainEventCallback in libvirt-domain.h); `Generic` only carries it there.
    let generic = unsafe { std::mem::transmute::<Lifecycle, Generic>(lifecycle_happened) };
    let event = sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE.cast_signed();
    // SAFETY: the connection is open; a null domain means all; `opaque` is the box that both the
    // callback and `free` expect, and libvirt frees it once, when the last call has returned.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connection.as_ptr(),
            null_mut(),
            event,
            Some(generic),
            opaque,
            Some(free_lifecycle),
        )
    };
    if id < 0 {
        // SAFETY: libvirt did not take the box, so it is still ours, and only ours.
        drop(unsafe { Box::from_raw(opaque.cast::<OnLifecycle>()) });
        return Err(Error::last_error());
    }
    Ok(id)
}

/// Ends what [`on_lifecycle`] began. No matter if the connection is dead.
pub(super) fn stop_lifecycle(connection: &Connect, id: c_int) {
    // SAFETY: takes a connection that is not closed yet and a number.
    unsafe { sys::virConnectDomainEventDeregisterAny(connection.as_ptr(), id) };
}

/// Asks to be told when the connection ends by itself.
///
/// # Errors
/// What libvirt says; the in-process drivers do not support it.
pub(super) fn on_close(connection: &Connect, on_close: OnClose) -> Result<(), Error> {
    let opaque = Box::into_raw(Box::new(on_close)).cast::<c_void>();
    // SAFETY: as in `on_lifecycle`; the callback has the type that libvirt asks for.
    let rc = unsafe {
        sys::virConnectRegisterCloseCallback(connection.as_ptr(), Some(closed), opaque, Some(free_close))
    };
    if rc < 0 {
        // SAFETY: libvirt did not take the box.
        drop(unsafe { Box::from_raw(opaque.cast::<OnClose>()) });
        return Err(Error::last_error());
    }
    Ok(())
}

/// Ends what [`on_close`] began: the callback holds a reference to the connection, which would never
/// be freed.
pub(super) fn stop_close(connection: &Connect) {
    // SAFETY: takes a connection that is not closed yet; without such a callback it is an error that
    // changes nothing.
    unsafe { sys::virConnectUnregisterCloseCallback(connection.as_ptr(), Some(closed)) };
}

/// The type of the block job that runs on `disk` (`virDomainBlockJobType`), if one does.
///
/// # Errors
/// What libvirt says.
pub(super) fn block_job(domain: &Domain, disk: &str) -> Result<Option<u32>, Error> {
    let Ok(disk) = CString::new(disk) else { return Ok(None) };
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: the domain is alive, `disk` ends with NUL and `info` is written by libvirt; both outlive
    // the call.
    let rc = unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), &raw mut info, 0) };
    match rc {
        0 => Ok(None),
        1 => Ok(Some(info.type_.cast_unsigned())),
        _ => Err(Error::last_error()),
    }
}

/// What libvirt's job on the domain does (`virDomainJobOperation`), if one runs and says so.
///
/// # Errors
/// What libvirt says.
pub(super) fn job_operation(domain: &Domain) -> Result<Option<u32>, Error> {
    let (mut kind, mut count, mut operation) = (0, 0, 0);
    let mut parameters = null_mut();
    // SAFETY: the domain is alive; libvirt writes the three, and allocates the list that it points
    // `parameters` to.
    let rc = unsafe {
        sys::virDomainGetJobStats(domain.as_ptr(), &raw mut kind, &raw mut parameters, &raw mut count, 0)
    };
    if rc < 0 {
        return Err(Error::last_error());
    }
    let name = sys::VIR_DOMAIN_JOB_OPERATION.as_ptr();
    // SAFETY: the list has `count` entries, or is null with none; the name ends with NUL.
    let found = unsafe { sys::virTypedParamsGetInt(parameters, count, name, &raw mut operation) };
    // SAFETY: the list is ours, and nothing of it is kept.
    unsafe { sys::virTypedParamsFree(parameters, count) };
    Ok((found == 1).then_some(operation.cast_unsigned()))
}

/// libvirt's messages can be QEMU's own, of several lines.
pub(super) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

type Lifecycle =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

unsafe extern "C" fn lifecycle_happened(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the box of `on_lifecycle`, shared by calls and freed after the last of them.
    let on_event = unsafe { &*opaque.cast::<OnLifecycle>() };
    // SAFETY: `domain` lives until this call returns.
    let name = unsafe { sys::virDomainGetName(domain) };
    if !name.is_null() {
        // SAFETY: the name ends with NUL and belongs to the domain.
        let name = unsafe { CStr::from_ptr(name) };
        on_event(name.to_string_lossy().into_owned(), event);
    }
    0 // ignored
}

unsafe extern "C" fn closed(_connection: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the box of `on_close`, freed after the last call.
    let on_close = unsafe { &*opaque.cast::<OnClose>() };
    on_close(reason);
}

unsafe extern "C" fn free_lifecycle(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once for the box it was given in `on_lifecycle`.
    drop(unsafe { Box::from_raw(opaque.cast::<OnLifecycle>()) });
}

unsafe extern "C" fn free_close(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once for the box it was given in `on_close`.
    drop(unsafe { Box::from_raw(opaque.cast::<OnClose>()) });
}

//! A mapped ring of received frames (`TPACKET_V2`): the kernel writes frames into it as they come, we
//! read them in place.
//!
//! Version 2 hands over each frame at once; version 3 hands over blocks, which is cheaper in a flood
//! but keeps a lone frame waiting for its block, and what we do is answer. Layout and rules:
//! `Documentation/networking/packet_mmap.rst` of the kernel. Ownership of a slot goes by its status
//! word: `TP_STATUS_USER` says that it is ours, until we write `TP_STATUS_KERNEL`.

#![expect(unsafe_code, reason = "memory shared with the kernel; each block says why it holds")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use surrogate_wire::Received;

use super::longest_frame;
use crate::io::sys;

/// The ring and our place in it.
#[derive(Debug)]
pub(super) struct RxRing {
    map: Mapping,
    slot_bytes: usize,
    slots: usize,
    /// The slot to look at next.
    next: usize,
    /// The slot before `next` is ours still: a frame in it was handed out.
    lent: bool,
    /// Frames that were longer than their slot.
    cut: u64,
}

impl RxRing {
    /// Puts a ring on `socket` with slots for the frames of a link with this MTU.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn map(socket: BorrowedFd<'_>, mtu: usize) -> io::Result<Self> {
        let slot_bytes = (longest_frame(mtu) + SLOT_OVERHEAD).next_power_of_two();
        let slots = (RING_BYTES / slot_bytes).clamp(LEAST_SLOTS, MOST_SLOTS);
        // Both are powers of two, so slots fill blocks and blocks the ring without a gap.
        let block_bytes = slot_bytes.max(BLOCK_BYTES);
        let (blocks, narrow) = (slots * slot_bytes / block_bytes, |n: usize| u32::try_from(n).unwrap_or(0));
        sys::set_option(socket, libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)?;
        sys::request_rx_ring(
            socket,
            libc::tpacket_req {
                tp_block_size: narrow(block_bytes),
                tp_block_nr: narrow(blocks),
                tp_frame_size: narrow(slot_bytes),
                tp_frame_nr: narrow(slots),
            },
        )?;
        let map = Mapping::of(socket, slots * slot_bytes)?;
        Ok(Self { map, slot_bytes, slots, next: 0, lent: false, cut: 0 })
    }

    /// Whether [`receive`](Self::receive) would find a frame.
    pub(super) fn is_ready(&self) -> bool {
        self.status(self.next).load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The next frame, if there is one. Its slot goes back to the kernel with the next call of this
    /// or of [`release`](Self::release).
    pub(super) fn receive(&mut self) -> Option<Received<'_>> {
        self.release();
        loop {
            let slot = self.next;
            let status = self.status(slot).load(Ordering::Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                return None;
            }
            self.next = (slot + 1) % self.slots;
            let header = self.header(slot);
            if header.tp_snaplen == header.tp_len {
                self.lent = true;
                return Some(self.frame(slot, status, &header));
            }
            self.cut += 1; // a part of a frame is of no use to anyone
            self.status(slot).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
    }

    /// Gives the slot that was lent last back to the kernel.
    pub(super) fn release(&mut self) {
        if std::mem::take(&mut self.lent) {
            let lent = (self.next + self.slots - 1) % self.slots;
            self.status(lent).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
    }

    /// Frames so far that were longer than their slot, and therefore skipped.
    pub(super) const fn cut(&self) -> u64 {
        self.cut
    }

    fn frame(&self, slot: usize, status: u32, header: &libc::tpacket2_hdr) -> Received<'_> {
        let start = usize::from(header.tp_mac).min(self.slot_bytes);
        let length = (header.tp_snaplen as usize).min(self.slot_bytes - start);
        // SAFETY: start + length is at most the slot's size, so the bytes lie in the mapping. The slot
        // is ours (the caller saw TP_STATUS_USER) and stays so while `self` is borrowed: giving it
        // back needs `&mut self`.
        let bytes = unsafe { std::slice::from_raw_parts(self.slot(slot).add(start).as_ptr(), length) };
        let (vlan, offload) = sys::beside_frame(status, header.tp_vlan_tci, header.tp_vlan_tpid);
        Received { bytes, vlan, offload }
    }

    fn header(&self, slot: usize) -> libc::tpacket2_hdr {
        // SAFETY: every slot begins with a header, page or 16-byte aligned, inside the mapping; it is
        // plain integers, and ours while the status says so.
        unsafe { self.slot(slot).cast::<libc::tpacket2_hdr>().read() }
    }

    fn status(&self, slot: usize) -> &AtomicU32 {
        // SAFETY: the status is the header's first word, aligned, inside the mapping, and lives as
        // long as `self`. Both sides access it as one word.
        unsafe { AtomicU32::from_ptr(self.slot(slot).cast::<u32>().as_ptr()) }
    }

    fn slot(&self, slot: usize) -> NonNull<u8> {
        assert!(slot < self.slots, "slots are counted modulo their number");
        // SAFETY: below the number of slots, so inside the mapping.
        unsafe { self.map.start.add(slot * self.slot_bytes) }
    }
}

/// Memory shared with the kernel, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and only its owner touches it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn of(socket: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses an address that is free; the mapping outlives the descriptor.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(mapped) if start != libc::MAP_FAILED => Ok(Self { start: mapped, length }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `of` mapped; nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// What precedes a frame in its slot: the header, the sender's address, alignment.
const SLOT_OVERHEAD: usize = 128;
/// What a ring takes of memory, if its frames are not too long for that.
const RING_BYTES: usize = 8 << 20;
const LEAST_SLOTS: usize = 128;
const MOST_SLOTS: usize = 8192;
/// The kernel allocates in blocks; larger ones than this are hard to find in fragmented memory.
const BLOCK_BYTES: usize = 64 << 10;

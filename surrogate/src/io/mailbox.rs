//! A bounded single-producer, single-consumer mailbox with a descriptor to wait on.
//!
//! Between a packet thread and the control side: `ringbuf` carries the items, an eventfd the wake-up.
//! Neither end ever blocks or locks. This file is all that knows the `ringbuf` crate.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ringbuf::traits::{Consumer as _, Observer as _, Producer as _, Split as _};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use super::sys;

/// Makes a mailbox for at most `capacity` items.
///
/// # Errors
/// No descriptor left.
pub fn mailbox<T>(capacity: usize) -> io::Result<(Sender<T>, Receiver<T>)> {
    let (items, taken) = HeapRb::new(capacity).split();
    let event = Arc::new(sys::eventfd()?);
    Ok((Sender { items: Some(items), event: Arc::clone(&event) }, Receiver { items: taken, event }))
}

/// The end that posts.
pub struct Sender<T> {
    /// `None` only while being dropped.
    items: Option<HeapProd<T>>,
    event: Arc<OwnedFd>,
}

impl<T> Sender<T> {
    /// Posts one item and wakes the other end.
    ///
    /// # Errors
    /// Gives the item back if the mailbox is full, or nobody will take it any more.
    pub fn post(&mut self, item: T) -> Result<(), T> {
        match &mut self.items {
            Some(items) if items.read_is_held() => items.try_push(item)?,
            _ => return Err(item),
        }
        self.ring();
        Ok(())
    }

    /// Wakes the other end without an item.
    pub fn ring(&self) {
        sys::raise(self.event.as_fd());
    }

    /// Whether nobody will take items any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.items.as_ref().is_none_or(|items| !items.read_is_held())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.items = None; // first: the other end must find the mailbox closed when it wakes
        self.ring();
    }
}

/// The end that takes.
pub struct Receiver<T> {
    items: HeapCons<T>,
    event: Arc<OwnedFd>,
}

impl<T> Receiver<T> {
    /// The oldest item, if there is one.
    pub fn take(&mut self) -> Option<T> {
        self.items.try_pop()
    }

    /// Makes the descriptor unreadable until something is posted. Take everything *after* this, or a
    /// wake-up is lost.
    pub fn acknowledge(&self) {
        sys::lower(self.event.as_fd());
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether nothing will be posted any more; what was posted can still be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.items.write_is_held()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        while self.take().is_some() {} // whoever waits for an answer to one learns that none will come
    }
}

impl<T> AsFd for Receiver<T> {
    /// Readable after a post, until [`acknowledge`](Self::acknowledge).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_arrive_in_order_and_a_full_mailbox_gives_the_item_back() {
        let (mut tx, mut rx) = mailbox(2).unwrap();
        assert_eq!((tx.post(1), tx.post(2), tx.post(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((rx.take(), rx.take(), rx.take()), (Some(1), Some(2), None));
    }

    #[test]
    fn the_last_items_can_be_taken_after_the_sender_is_gone() {
        let (mut tx, mut rx) = mailbox(2).unwrap();
        tx.post(1).unwrap();
        assert!(!rx.is_closed());
        drop(tx);
        assert!(rx.is_closed());
        assert_eq!((rx.take(), rx.take()), (Some(1), None));
    }

    #[test]
    fn the_sender_learns_that_nobody_listens() {
        let (mut tx, rx) = mailbox(2).unwrap();
        let posted = std::sync::Arc::new(());
        tx.post(posted.clone()).unwrap();
        assert!(!tx.is_closed());
        drop(rx);
        assert!(tx.is_closed() && tx.post(posted.clone()).is_err());
        assert_eq!(std::sync::Arc::strong_count(&posted), 1);
    }
}

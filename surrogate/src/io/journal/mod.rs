//! What must survive the daemon: guests, and every change we made on a bridge.
//!
//! One small database in the state directory, locked while it is open. What is *put* is on the disk when
//! the call returns: it must be there before anybody acts on it. What has been done already (a change that
//! was put back, a wake that began) is *noted*: known at once and written soon, by [`Journal::flush`] or
//! with the next write, in one transaction and in order. If a crash loses a note, it is done a second
//! time, which is harmless; waiting for the disk on a guest's way back would not be.
//!
//! Reads come from memory, filled when the journal is opened. Values are JSON, so that a record of an
//! older version can be read, and the schema's version is written beside them. It records and never acts:
//! what a change means, and how to undo it, is [`steering`](crate::io::steering)'s matter.

mod records;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::{Serialize, de::DeserializeOwned};

pub use self::records::{Change, ChangeKind, FloodFlags, GuestRecord, Kind, Known, PortId, change_key};

/// The open journal of one daemon.
pub struct Journal {
    path: PathBuf,
    /// Held over a commit, so that memory and disk see writes in one order. Locked before `memory`.
    database: Mutex<Database>,
    /// Never held over a commit: nobody who reads waits for the disk.
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    guests: BTreeMap<String, GuestRecord>,
    changes: BTreeMap<String, Change>,
    /// By a name of the NIC that its owner gives it.
    known: BTreeMap<String, Known>,
    /// What is in the maps and not yet on the disk.
    noted: Vec<Write>,
}

/// One value to write or, with `None`, to remove.
#[derive(Clone, Debug)]
enum Write {
    Guest(String, Option<GuestRecord>),
    Change(String, Option<Change>),
    Known(String, Option<Box<Known>>),
}

/// Why the journal cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("{0} is in use by a running daemon")]
    Locked(PathBuf),
    /// The directory or file cannot be opened or made.
    #[error("cannot open or make {path}: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Damaged, or no journal.
    #[error("{path} cannot be read: {why}; move it away to start with nothing known")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A write did not reach the disk; nothing was changed.
    #[error("{path} cannot be written: {why}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the database said.
        why: String,
    },
}

impl Journal {
    /// Opens the journal in `state_dir`, making both if they are missing (for our user only).
    ///
    /// # Errors
    /// All kinds but [`JournalError::Write`].
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|source| JournalError::Open { path: state_dir.to_owned(), source })?;
        let path = state_dir.join(FILE);
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => JournalError::Locked(path.clone()),
            DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != std::io::ErrorKind::InvalidData =>
            {
                JournalError::Open { path: path.clone(), source }
            }
            other => unreadable(&path, other),
        })?;
        check_version(&path, &database)?;
        let memory = Memory {
            guests: load(&path, &database, GUESTS)?,
            changes: load(&path, &database, CHANGES)?,
            known: load_what_is_sound(&path, &database, KNOWN)?,
            noted: Vec::new(),
        };
        Ok(Self { path, database: Mutex::new(database), memory: Mutex::new(memory) })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `state_dir` has a journal at all.
    #[must_use]
    pub fn exists(state_dir: &Path) -> bool {
        state_dir.join(FILE).exists()
    }

    /// Records a guest, or what is new of it.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn put_guest(&self, guest: &GuestRecord) -> Result<(), JournalError> {
        self.put_cycle(guest, &[])
    }

    /// Records a guest whose cycle begins, and the changes that it will bring: all or none.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn put_cycle(&self, guest: &GuestRecord, changes: &[Change]) -> Result<(), JournalError> {
        let guest = Write::Guest(guest.name.clone(), Some(guest.clone()));
        let changes = changes.iter().map(|change| Write::Change(change.key(), Some(change.clone())));
        self.write(core::iter::once(guest).chain(changes).collect())
    }

    /// Notes what is new of a guest.
    pub fn note_guest(&self, guest: &GuestRecord) {
        self.note(Write::Guest(guest.name.clone(), Some(guest.clone())));
    }

    /// Forgets a guest.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn delete_guest(&self, name: &str) -> Result<(), JournalError> {
        self.write(vec![Write::Guest(name.to_owned(), None)])
    }

    /// All guests recorded, by name.
    #[must_use]
    pub fn guests(&self) -> Vec<GuestRecord> {
        self.memory().guests.values().cloned().collect()
    }

    /// Records a change, in place of one with the same key.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn put_change(&self, change: &Change) -> Result<(), JournalError> {
        self.put_changes(core::slice::from_ref(change))
    }

    /// Records several changes, all or none.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn put_changes(&self, changes: &[Change]) -> Result<(), JournalError> {
        self.write(changes.iter().map(|change| Write::Change(change.key(), Some(change.clone()))).collect())
    }

    /// Forgets a change: it is undone.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn delete_change(&self, key: &str) -> Result<(), JournalError> {
        if self.change(key).is_none() {
            return Ok(());
        }
        self.write(vec![Write::Change(key.to_owned(), None)])
    }

    /// Notes that a change is undone.
    pub fn note_undone(&self, key: &str) {
        if self.change(key).is_some() {
            self.note(Write::Change(key.to_owned(), None));
        }
    }

    /// The change with this key.
    #[must_use]
    pub fn change(&self, key: &str) -> Option<Change> {
        self.memory().changes.get(key).cloned()
    }

    /// All changes recorded, by key.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.memory().changes.values().cloned().collect()
    }

    /// Notes what is known of a NIC; `None`: nothing that will be needed.
    pub fn note_known(&self, nic: &str, known: Option<Known>) {
        if known.is_some() || self.known(nic).is_some() {
            self.note(Write::Known(nic.to_owned(), known.map(Box::new)));
        }
    }

    /// What was known of a NIC.
    #[must_use]
    pub fn known(&self, nic: &str) -> Option<Known> {
        self.memory().known.get(nic).cloned()
    }

    /// Writes what was noted; it is on the disk when this returns.
    ///
    /// # Errors
    /// [`JournalError::Write`]; then it is written with what comes next.
    pub fn flush(&self) -> Result<(), JournalError> {
        self.write(Vec::new())
    }

    /// Has what was noted written, without waiting for it. Needs a tokio runtime.
    pub fn flush_soon(self: &Arc<Self>) {
        let journal = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(why) = journal.flush() {
                tracing::warn!(%why, "what was put back is still recorded; it is written with what comes next");
            }
        });
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, write: Write) {
        let mut memory = self.memory();
        memory.apply(&write);
        // However long the disk is full, there is one note of each value at most.
        memory.noted.retain(|earlier| !earlier.is_of_the_value_of(&write));
        memory.noted.push(write);
    }

    /// Writes what was noted and `writes`, all or none, then lets memory follow.
    fn write(&self, mut writes: Vec<Write>) -> Result<(), JournalError> {
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = core::mem::take(&mut self.memory().noted);
        if noted.is_empty() && writes.is_empty() {
            return Ok(());
        }
        let committed = commit_all(&database, noted.iter().chain(&writes));
        let mut memory = self.memory();
        // What was noted during the commit comes after it.
        let later = core::mem::take(&mut memory.noted);
        match committed {
            Ok(()) => {
                writes.extend(later.iter().cloned());
                writes.iter().for_each(|write| memory.apply(write));
                memory.noted = later;
                Ok(())
            }
            Err(error) => {
                memory.noted = noted;
                memory.noted.extend(later);
                Err(JournalError::Write { path: self.path.clone(), why: error.to_string() })
            }
        }
    }
}

impl Write {
    fn is_of_the_value_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Guest(one, _), Self::Guest(another, _))
            | (Self::Change(one, _), Self::Change(another, _))
            | (Self::Known(one, _), Self::Known(another, _)) => one == another,
            _ => false,
        }
    }
}

impl Memory {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Guest(name, Some(guest)) => drop(self.guests.insert(name.clone(), guest.clone())),
            Write::Guest(name, None) => drop(self.guests.remove(name)),
            Write::Change(key, Some(change)) => drop(self.changes.insert(key.clone(), change.clone())),
            Write::Change(key, None) => drop(self.changes.remove(key)),
            Write::Known(nic, Some(known)) => drop(self.known.insert(nic.clone(), Known::clone(known))),
            Write::Known(nic, None) => drop(self.known.remove(nic)),
        }
    }
}

impl Drop for Journal {
    /// A clean end loses no note.
    fn drop(&mut self) {
        if let Err(why) = self.flush() {
            tracing::warn!(%why, "what was put back is still recorded, and will be put back once more");
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

/// One transaction with redb's immediate durability: it is synced before it returns.
fn commit_all<'a>(
    database: &Database,
    writes: impl Iterator<Item = &'a Write>,
) -> Result<(), Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    {
        let mut guests = transaction.open_table(GUESTS)?;
        let mut changes = transaction.open_table(CHANGES)?;
        let mut known = transaction.open_table(KNOWN)?;
        for write in writes {
            match write {
                Write::Guest(name, guest) => set(&mut guests, name, guest.as_ref())?,
                Write::Change(key, change) => set(&mut changes, key, change.as_ref())?,
                Write::Known(nic, value) => set(&mut known, nic, value.as_deref())?,
            }
        }
    }
    Ok(transaction.commit()?)
}

fn set(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    value: Option<&impl Serialize>,
) -> Result<(), Box<dyn std::error::Error>> {
    match value {
        Some(value) => drop(table.insert(key, serde_json::to_vec(value)?.as_slice())?),
        None => drop(table.remove(key)?),
    }
    Ok(())
}

fn load<T: DeserializeOwned>(
    path: &Path,
    database: &Database,
    table: Table,
) -> Result<BTreeMap<String, T>, JournalError> {
    let rows = rows(path, database, table)?.into_iter().map(|(key, value)| match value {
        Ok(value) => Ok((key, value)),
        Err(error) => Err(unreadable(path, format!("record \"{key}\": {error}"))),
    });
    rows.collect()
}

/// Leaves out what cannot be read. For what is learned again anyhow.
fn load_what_is_sound<T: DeserializeOwned>(
    path: &Path,
    database: &Database,
    table: Table,
) -> Result<BTreeMap<String, T>, JournalError> {
    let rows = rows(path, database, table)?.into_iter().filter_map(|(key, value)| match value {
        Ok(value) => Some((key, value)),
        Err(error) => {
            tracing::warn!(record = key, %error, "what was learned cannot be read, and is as if never learned");
            None
        }
    });
    Ok(rows.collect())
}

type Rows<T> = Vec<(String, Result<T, serde_json::Error>)>;

fn rows<T: DeserializeOwned>(
    path: &Path,
    database: &Database,
    table: Table,
) -> Result<Rows<T>, JournalError> {
    let transaction = database.begin_read().map_err(|error| unreadable(path, error))?;
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    let rows = table.iter().map_err(|error| unreadable(path, error))?;
    rows.map(|row| {
        let (key, value) = row.map_err(|error| unreadable(path, error))?;
        Ok((key.value().to_owned(), serde_json::from_slice(value.value())))
    })
    .collect()
}

/// Refuses a journal of another schema; writes ours into a new one.
fn check_version(path: &Path, database: &Database) -> Result<(), JournalError> {
    match load::<u32>(path, database, META)?.get(VERSION_KEY) {
        Some(&VERSION) => Ok(()),
        Some(other) => Err(unreadable(path, format!("it has version {other}, this program knows {VERSION}"))),
        None => write_version(database, VERSION)
            .map_err(|error| JournalError::Write { path: path.to_owned(), why: error.to_string() }),
    }
}

fn write_version(database: &Database, version: u32) -> Result<(), Box<dyn std::error::Error>> {
    let transaction = database.begin_write()?;
    set(&mut transaction.open_table(META)?, VERSION_KEY, Some(&version))?;
    Ok(transaction.commit()?)
}

fn unreadable(path: &Path, why: impl fmt::Display) -> JournalError {
    JournalError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const GUESTS: Table = TableDefinition::new("guests");
const CHANGES: Table = TableDefinition::new("changes");
const KNOWN: Table = TableDefinition::new("known");
const META: Table = TableDefinition::new("meta");
const VERSION_KEY: &str = "version";
const VERSION: u32 = 1;
const FILE: &str = "surrogate.redb";

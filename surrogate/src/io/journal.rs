//! What must survive the daemon: guests, and every change we made on a bridge.
//!
//! One small database in the state directory, locked while it is open. A write is on the disk when it
//! returns; reads come from memory, filled when the journal is opened. Values are JSON, so that a record
//! of an older version can be read, and the schema's version is written beside them. It records and
//! never acts: what a change means, and how to undo it, is [`steering`](crate::io::steering)'s matter.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use surrogate_wire::Mac;

use crate::guest::lifecycle::Intent;
use crate::hypervisor::Depth;
use crate::io::netlink::{FdbKind, GroupEntry};

/// The open journal of one daemon.
pub struct Journal {
    path: PathBuf,
    database: Database,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    guests: BTreeMap<String, GuestRecord>,
    changes: BTreeMap<String, Change>,
}

/// What we must know of a guest after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Its name.
    pub name: String,
    /// The hypervisor it is of.
    pub hypervisor: String,
    /// Its transition counter.
    pub epoch: u64,
    /// Whether it sleeps because we put it to sleep.
    pub slept_by_us: bool,
    /// How deep, if it sleeps.
    pub depth: Option<Depth>,
    /// What was last asked for.
    pub intent: Intent,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

/// Something of ours on a bridge, for one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The guest it is for.
    pub guest: String,
    /// The bridge it is on.
    pub bridge: String,
    /// The guest's address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// The VLAN of its addresses.
    pub vlan: Option<u16>,
    /// What was changed.
    pub what: ChangeKind,
}

impl Change {
    /// What tells changes apart: one of each kind per bridge, address and VLAN.
    #[must_use]
    pub fn key(&self) -> String {
        change_key(&self.bridge, self.mac, self.vlan, self.what.kind())
    }
}

/// The key of the change of this kind, for the guest with this address on this bridge.
#[must_use]
pub fn change_key(bridge: &str, mac: Mac, vlan: Option<u16>, kind: Kind) -> String {
    let kind = match kind {
        Kind::Steered => "steered",
        Kind::FloodsTaken => "floods-taken",
        Kind::GroupsKept => "groups-kept",
        Kind::PortDisabled => "port-disabled",
    };
    format!("{bridge}/{mac}/{}/{kind}", vlan.unwrap_or_default())
}

/// The kinds of [`ChangeKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// See [`ChangeKind::Steered`].
    Steered,
    /// See [`ChangeKind::FloodsTaken`].
    FloodsTaken,
    /// See [`ChangeKind::GroupsKept`].
    GroupsKept,
    /// See [`ChangeKind::PortDisabled`].
    PortDisabled,
}

/// A kind of change, with what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ChangeKind {
    /// The bridge sends the guest's frames to us.
    Steered {
        /// Where they went and shall go again, if the guest had a port.
        guest_port: Option<PortId>,
        /// The entry it had there; `None`: it had none and is given one as if learned.
        was: Option<FdbKind>,
    },
    /// Flooded frames and group traffic no longer reach the guest's port.
    FloodsTaken {
        /// The guest's port.
        port: PortId,
        /// Its flags before.
        flags: FloodFlags,
        /// Its group entries before.
        entries: Vec<GroupEntry>,
    },
    /// Our port receives these groups for the guest.
    GroupsKept {
        /// Our port.
        port: PortId,
        /// The groups.
        groups: Vec<core::net::IpAddr>,
    },
    /// The guest's port is disabled.
    PortDisabled {
        /// The guest's port.
        port: PortId,
        /// Its state before.
        state: u8,
    },
}

impl ChangeKind {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Steered { .. } => Kind::Steered,
            Self::FloodsTaken { .. } => Kind::FloodsTaken,
            Self::GroupsKept { .. } => Kind::GroupsKept,
            Self::PortDisabled { .. } => Kind::PortDisabled,
        }
    }
}

/// Which device a port was: names and numbers alone are given again, to others too after a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortId {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its own address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
}

/// The settings of a port that decide what is flooded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloodFlags {
    /// Unicast to unknown stations.
    pub flood: bool,
    /// Multicast.
    pub mcast_flood: bool,
    /// Broadcast.
    pub bcast_flood: bool,
    /// All multicast, to a multicast router: 0 never, 1 while it is heard to be one, 2 always.
    pub mcast_router: u8,
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
        let cache =
            Cache { guests: load(&path, &database, GUESTS)?, changes: load(&path, &database, CHANGES)? };
        Ok(Self { path, database, cache: Mutex::new(cache) })
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
        let value = self.encode(guest)?;
        self.write(GUESTS, &[(guest.name.clone(), Some(value))], |cache| {
            cache.guests.insert(guest.name.clone(), guest.clone());
        })
    }

    /// Forgets a guest.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn delete_guest(&self, name: &str) -> Result<(), JournalError> {
        self.write(GUESTS, &[(name.to_owned(), None)], |cache| {
            cache.guests.remove(name);
        })
    }

    /// All guests recorded, by name.
    #[must_use]
    pub fn guests(&self) -> Vec<GuestRecord> {
        self.cache().guests.values().cloned().collect()
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
        let values = changes
            .iter()
            .map(|change| Ok((change.key(), Some(self.encode(change)?))))
            .collect::<Result<Vec<_>, JournalError>>()?;
        self.write(CHANGES, &values, |cache| {
            cache.changes.extend(changes.iter().map(|change| (change.key(), change.clone())));
        })
    }

    /// Forgets a change: it is undone.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn delete_change(&self, key: &str) -> Result<(), JournalError> {
        self.delete_changes(&[key.to_owned()])
    }

    /// Forgets several changes, all or none.
    ///
    /// # Errors
    /// [`JournalError::Write`].
    pub fn delete_changes(&self, keys: &[String]) -> Result<(), JournalError> {
        let known: Vec<_> = keys.iter().filter(|key| self.change(key).is_some()).cloned().collect();
        if known.is_empty() {
            return Ok(());
        }
        let values: Vec<_> = known.into_iter().map(|key| (key, None)).collect();
        self.write(CHANGES, &values, |cache| cache.changes.retain(|key, _| !keys.contains(key)))
    }

    /// The change with this key.
    #[must_use]
    pub fn change(&self, key: &str) -> Option<Change> {
        self.cache().changes.get(key).cloned()
    }

    /// All changes recorded, by key.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        self.cache().changes.values().cloned().collect()
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes or, with `None`, removes values, all or none, then lets memory follow.
    fn write(
        &self,
        table: Table,
        values: &[(String, Option<Vec<u8>>)],
        follow: impl FnOnce(&mut Cache),
    ) -> Result<(), JournalError> {
        // Held over the commit, so that memory and disk see writes in one order.
        let mut cache = self.cache();
        commit(&self.database, table, values).map_err(|error| self.unwritten(&error))?;
        follow(&mut cache);
        Ok(())
    }

    fn encode(&self, value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
        serde_json::to_vec(value).map_err(|error| self.unwritten(&error))
    }

    fn unwritten(&self, error: &dyn fmt::Display) -> JournalError {
        JournalError::Write { path: self.path.clone(), why: error.to_string() }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

/// One transaction with redb's immediate durability: it is synced before it returns.
fn commit(
    database: &Database,
    table: Table,
    values: &[(String, Option<Vec<u8>>)],
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(table)?;
        for (key, value) in values {
            match value {
                Some(value) => drop(table.insert(key.as_str(), value.as_slice())?),
                None => drop(table.remove(key.as_str())?),
            }
        }
    }
    Ok(transaction.commit()?)
}

fn load<T: DeserializeOwned>(
    path: &Path,
    database: &Database,
    table: Table,
) -> Result<BTreeMap<String, T>, JournalError> {
    let transaction = database.begin_read().map_err(|error| unreadable(path, error))?;
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(unreadable(path, error)),
    };
    let rows = table.iter().map_err(|error| unreadable(path, error))?;
    rows.map(|row| {
        let (key, value) = row.map_err(|error| unreadable(path, error))?;
        let value = serde_json::from_slice(value.value())
            .map_err(|error| unreadable(path, format!("record \"{}\": {error}", key.value())))?;
        Ok((key.value().to_owned(), value))
    })
    .collect()
}

/// Refuses a journal of another schema; writes ours into a new one.
fn check_version(path: &Path, database: &Database) -> Result<(), JournalError> {
    match load::<u32>(path, database, META)?.get(VERSION_KEY) {
        Some(&VERSION) => Ok(()),
        Some(other) => Err(unreadable(path, format!("it has version {other}, this program knows {VERSION}"))),
        None => commit(database, META, &[(VERSION_KEY.to_owned(), Some(VERSION.to_string().into_bytes()))])
            .map_err(|error| JournalError::Write { path: path.to_owned(), why: error.to_string() }),
    }
}

fn unreadable(path: &Path, why: impl fmt::Display) -> JournalError {
    JournalError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

/// An Ethernet address as people write it.
mod mac_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use surrogate_wire::Mac;

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const GUESTS: Table = TableDefinition::new("guests");
const CHANGES: Table = TableDefinition::new("changes");
const META: Table = TableDefinition::new("meta");
const VERSION_KEY: &str = "version";
const VERSION: u32 = 1;
const FILE: &str = "surrogate.redb";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn web1() -> GuestRecord {
        GuestRecord {
            name: "web1".to_owned(),
            hypervisor: "local".to_owned(),
            epoch: 7,
            slept_by_us: true,
            depth: Some(Depth::Save),
            intent: Intent::Sleep,
            since_unix_ms: 1_700_000_000_000,
        }
    }

    fn floods_taken() -> Change {
        let port = PortId { ifindex: 9, name: "g1".to_owned(), mac: Mac([0xfe, 0x54, 0, 0, 0, 0x11]) };
        let entry = GroupEntry::permanent(9, "ff02::1:ff00:11".parse().unwrap(), Some(10));
        Change {
            guest: "web1".to_owned(),
            bridge: "br0".to_owned(),
            mac: Mac([0x52, 0x54, 0, 0, 0, 0x11]),
            vlan: Some(10),
            what: ChangeKind::FloodsTaken {
                port,
                flags: FloodFlags { flood: true, mcast_flood: false, bcast_flood: true, mcast_router: 1 },
                entries: vec![entry],
            },
        }
    }

    #[test]
    fn what_was_written_is_read_back_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("made/if/missing");
        assert!(!Journal::exists(&state_dir));
        {
            let journal = Journal::open(&state_dir).unwrap();
            journal.put_guest(&GuestRecord { epoch: 6, ..web1() }).unwrap();
            journal.put_guest(&web1()).unwrap();
            journal.put_guest(&GuestRecord { name: "web2".to_owned(), ..web1() }).unwrap();
            journal.delete_guest("web2").unwrap();
            journal.put_change(&floods_taken()).unwrap();
        }
        let mode = std::fs::metadata(&state_dir).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "for our user only");
        let journal = Journal::open(&state_dir).unwrap();
        assert_eq!(journal.guests(), [web1()]);
        assert_eq!(journal.changes(), [floods_taken()]);
        let key = floods_taken().key();
        assert_eq!(key, "br0/52:54:00:00:00:11/10/floods-taken");
        assert_eq!(journal.change(&key), Some(floods_taken()));
        journal.delete_change(&key).unwrap();
        journal.delete_change(&key).unwrap();
        assert_eq!(journal.changes(), []);
    }

    #[test]
    fn a_second_daemon_is_told_that_one_runs() {
        let folder = tempfile::tempdir().unwrap();
        let _first = Journal::open(folder.path()).unwrap();
        let second = Journal::open(folder.path()).unwrap_err();
        assert!(matches!(second, JournalError::Locked(_)), "{second}");
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, b"this is no database".repeat(300)).unwrap();
        let error = Journal::open(folder.path()).unwrap_err();
        assert!(matches!(error, JournalError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains(FILE) && error.to_string().contains("move it away"), "{error}");
        assert!(std::fs::read(&path).unwrap().starts_with(b"this is no database"));
    }

    #[test]
    fn a_journal_of_a_later_version_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::create(folder.path().join(FILE)).unwrap();
        commit(&database, META, &[(VERSION_KEY.to_owned(), Some(b"2".to_vec()))]).unwrap();
        drop(database);
        let error = Journal::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("it has version 2, this program knows 1"), "{error}");
    }

    #[test]
    fn a_state_directory_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = Journal::open(&file).unwrap_err();
        assert!(matches!(error, JournalError::Open { .. }), "{error}");
    }
}

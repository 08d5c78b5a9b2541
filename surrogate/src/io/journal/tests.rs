use std::os::unix::fs::PermissionsExt as _;

use surrogate_wire::Mac;

use super::*;
use crate::engine::Knowledge;
use crate::guest::lifecycle::Intent;
use crate::hypervisor::Depth;
use crate::io::netlink::GroupEntry;

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
fn what_is_noted_is_known_at_once_and_written_with_the_next_write_or_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    journal.put_change(&floods_taken()).unwrap();
    journal.note_guest(&GuestRecord { epoch: 6, ..web1() });
    journal.note_guest(&web1());
    journal.note_undone(&floods_taken().key());
    assert_eq!(journal.memory().noted.len(), 2, "one of each value");
    assert_eq!((journal.guests(), journal.changes()), (vec![web1()], vec![]));
    assert_eq!(on_disk(&journal), (vec![], vec![floods_taken()]), "nobody waited for the disk");

    let web2 = GuestRecord { name: "web2".to_owned(), ..web1() };
    journal.put_guest(&web2).unwrap();
    assert_eq!(on_disk(&journal), (vec![web1(), web2.clone()], vec![]));

    journal.note_guest(&GuestRecord { epoch: 8, ..web1() });
    drop(journal);
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.guests(), [GuestRecord { epoch: 8, ..web1() }, web2]);
}

#[test]
fn a_change_put_after_its_undoing_was_noted_stays() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    journal.put_change(&floods_taken()).unwrap();
    journal.note_undone(&floods_taken().key());
    journal.put_change(&floods_taken()).unwrap();
    journal.flush().unwrap();
    assert_eq!(journal.changes(), [floods_taken()]);
    assert_eq!(on_disk(&journal).1, [floods_taken()]);
}

/// What a daemon that is started after this one was killed would read.
fn on_disk(journal: &Journal) -> (Vec<GuestRecord>, Vec<Change>) {
    let database = journal.database.lock().unwrap();
    let guests = load(&journal.path, &database, GUESTS).unwrap();
    let changes = load(&journal.path, &database, CHANGES).unwrap();
    (guests.into_values().collect(), changes.into_values().collect())
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
    write_version(&database, 2).unwrap();
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

#[test]
fn what_is_known_of_a_nic_outlives_the_daemon_until_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let known = Known { guest: "web1".to_owned(), at_unix_ms: 7, knowledge: Knowledge::default() };
    Journal::open(folder.path()).unwrap().note_known("br0/web1", Some(known.clone()));
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.known("br0/web1"), Some(known));
    journal.note_known("br0/web1", None);
    journal.note_known("br0/web2", None);
    drop(journal);
    assert_eq!(Journal::open(folder.path()).unwrap().known("br0/web1"), None);
}

#[test]
fn what_is_known_and_cannot_be_read_is_as_if_never_learned_but_no_other_record_is() {
    let folder = tempfile::tempdir().unwrap();
    let known = Known { guest: "web1".to_owned(), at_unix_ms: 7, knowledge: Knowledge::default() };
    Journal::open(folder.path()).unwrap().note_known("br0/web1", Some(known.clone()));
    let put = |table, bytes: &'static [u8]| {
        let database = Database::create(folder.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table::<&str, &[u8]>(table).unwrap().insert("br0/web2", bytes).unwrap();
        transaction.commit().unwrap();
    };
    put(KNOWN, br#"{"guest":"web2","at_unix_ms":7,"knowledge":{"ports":"of another version"}}"#);
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.known("br0/web1"), Some(known));
    assert_eq!(journal.known("br0/web2"), None);
    drop(journal);
    put(CHANGES, b"{}");
    let error = Journal::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("record \"br0/web2\""), "{error}");
}

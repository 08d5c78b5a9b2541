//! The file that a replay's replies go to.
//!
//! It is written beside its place and moved there when it is whole, so that a run that fails leaves alone what
//! was there. It is never the capture itself, by whatever name.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::io::capture::PcapngWriter;

/// Where replies go, if anywhere.
pub(super) struct Replies(Option<Output>);

struct Output {
    writer: PcapngWriter<BufWriter<File>>,
    /// As the caller named it.
    name: PathBuf,
    /// What the file is called until it is whole; `None` for a device or pipe, which cannot be replaced.
    moved: Option<Moved>,
}

/// A file that is to take another's place; dropped before that, it is removed.
struct Moved {
    from: PathBuf,
    to: PathBuf,
    done: bool,
}

impl Replies {
    /// Begins the file `path`, which must not be the file that `capture` is.
    pub(super) fn create(path: Option<&Path>, capture: &Path) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let failed = |why| cannot_write(path, &why);
        let there = match fs::metadata(path) {
            Ok(there) => Some(there),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(failed(why)),
        };
        if there.as_ref().is_some_and(|there| is_same(there, capture)) {
            let (path, capture) = (path.display(), capture.display());
            return Err(Failure::Usage(format!(
                "--write {path} is the capture {capture} itself: name another file"
            )));
        }
        let (file, moved) = match &there {
            Some(there) if !there.is_file() => {
                (OpenOptions::new().write(true).open(path).map_err(failed)?, None)
            }
            _ => {
                // A link stays, and what it leads to is replaced.
                let to =
                    if there.is_some() { fs::canonicalize(path).map_err(failed)? } else { path.to_owned() };
                let (file, moved) = begin(to).map_err(failed)?;
                if let Some(there) = &there {
                    file.set_permissions(there.permissions()).map_err(failed)?;
                }
                (file, Some(moved))
            }
        };
        let writer = PcapngWriter::new(BufWriter::new(file), "surrogate").map_err(failed)?;
        Ok(Self(Some(Output { writer, name: path.to_owned(), moved })))
    }

    /// Adds a reply of that moment.
    pub(super) fn write(&mut self, unix_ns: u64, reply: &[u8], comment: &str) -> Result<(), Failure> {
        let Some(Output { writer, name, .. }) = &mut self.0 else { return Ok(()) };
        writer.frame(unix_ns, reply, comment).map_err(|why| cannot_write(name, &why))
    }

    /// It is whole: now it stands where it was asked for.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Some(Output { writer, name, moved }) = self.0 else { return Ok(()) };
        let written = writer.finish().and_then(|mut file| file.flush());
        written.and_then(|()| moved.map_or(Ok(()), Moved::finish)).map_err(|why| cannot_write(&name, &why))
    }
}

impl Moved {
    fn finish(mut self) -> io::Result<()> {
        fs::rename(&self.from, &self.to)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if !self.done {
            // The run has failed already, and has said why.
            let _ = fs::remove_file(&self.from);
        }
    }
}

/// A new file beside `to`.
fn begin(to: PathBuf) -> io::Result<(File, Moved)> {
    let Some(name) = to.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let from = to.with_file_name(beside);
    let file = OpenOptions::new().write(true).create_new(true).open(&from)?;
    Ok((file, Moved { from, to, done: false }))
}

fn is_same(there: &Metadata, capture: &Path) -> bool {
    fs::metadata(capture).is_ok_and(|it| (it.dev(), it.ino()) == (there.dev(), there.ino()))
}

fn cannot_write(path: &Path, why: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {why}", path.display()))
}

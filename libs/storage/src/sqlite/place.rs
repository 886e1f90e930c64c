//! Whether the file is still where it was: SQLite goes on with a file that was removed or moved, and what
//! it writes there is gone with the process, or comes back as a file that nobody opens.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{Error, ErrorKind, Result, Trouble};

/// A file as it was when it was opened: device and number.
type Identity = (u64, u64);

/// A log's file has at least this: a page, of the smallest that there are.
const LEAST_BYTES: u64 = 512;

/// What is added to an append's bytes for what SQLite writes with them.
const OVERHEAD_BYTES: u64 = 64 << 10;
/// No more room than this is looked for: what the largest append takes.
const MOST_BYTES: u64 = 16 << 20;

/// The files of an open log, and where they are.
#[derive(Debug)]
pub(super) struct Place(Vec<(PathBuf, Identity)>);

impl Place {
    /// The files of a log that has just been opened, and been read from, so that they are all there.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // The two others stand beside the file itself, wherever a link leads.
        let path = std::path::absolute(path)?;
        let real = fs::canonicalize(&path)?;
        let beside = |ending: &str| {
            let mut name: OsString = real.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let paths = [path, beside("-wal"), beside("-shm")];
        let files = paths.into_iter().map(|path| {
            let found = fs::metadata(&path)?;
            Ok((path, identity(&found)))
        });
        files.collect::<io::Result<_>>().map(Self)
    }

    /// Syncs the log beside the file. A process that was killed between writing to it and syncing it has left there
    /// what is found when the file is opened, and is read from then on as if it was on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Some((wal, _)) = self.0.get(1) else {
            return Ok(());
        };
        // SQLite keeps no locks on this one, so that closing it loses none.
        fs::File::open(wal)?.sync_all()?;
        if let Some(directory) = wal.parent() {
            // Its name there; not every file system can, and SQLite goes on without too.
            let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }

    /// Fails if one of the files is not there, or another one is in its place, or the log was emptied where it is.
    /// Only looks them up: a file that is opened and closed beside SQLite loses SQLite's locks.
    pub(super) fn check(&self, operation: &'static str) -> Result<()> {
        for (index, (path, expected)) in self.0.iter().enumerate() {
            let what = match fs::metadata(path) {
                Ok(found) if identity(&found) != *expected => {
                    "is another file than the one that was opened".to_owned()
                }
                Ok(found) if index == 0 && found.len() < LEAST_BYTES => {
                    "was emptied since it was opened".to_owned()
                }
                Ok(_) => continue,
                Err(error) => format!("cannot be found any more: {error}"),
            };
            let what = format!(
                "{} {what}; put it back, or start again on what is there",
                path.display()
            );
            return Err(Error::new(ErrorKind::Unavailable, operation)
                .with_trouble(Some(Trouble::Gone))
                .because(what));
        }
        Ok(())
    }

    /// Fails if there is no room for an append of so many bytes: a file that is removed before it is written
    /// takes as much. The header alone may find room where the next append does not.
    pub(super) fn check_room(&self, operation: &'static str, bytes: u64) -> Result<()> {
        let Some((wal, _)) = self.0.get(1) else {
            return Ok(());
        };
        let mut path = wal.clone().into_os_string();
        path.push("-room");
        // Where no file can be made beside the log, the log may be written to all the same.
        let Ok(mut file) = fs::File::create(&path) else {
            return Ok(());
        };
        let removed = fs::remove_file(&path);
        let bytes = (bytes + bytes / 4 + OVERHEAD_BYTES).min(MOST_BYTES);
        let written = removed
            .and_then(|()| io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file))
            .and_then(|_| file.flush());
        written.map_err(|error| {
            let trouble = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Trouble::Full,
                io::ErrorKind::ReadOnlyFilesystem => Trouble::ReadOnly,
                _ => Trouble::Disk,
            };
            Error::new(ErrorKind::Unavailable, operation)
                .with_trouble(Some(trouble))
                .because(error)
        })
    }
}

fn identity(found: &fs::Metadata) -> Identity {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_beside_the_file_is_synced_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.db");
        let paths = ["", "-wal", "-shm"].map(|ending| {
            let mut name = path.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        });
        for path in &paths {
            fs::write(path, "").unwrap();
        }
        let place = Place::of(&path).unwrap();
        place.sync().unwrap();
        fs::remove_file(&paths[1]).unwrap();
        place.sync().unwrap_err();
    }
}

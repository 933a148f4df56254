//! Files that grow by whole records: after a write that failed, nothing of it is left.
//!
//! A disk that fills in the middle of a record leaves half of one. If the next record followed it, the file would look as if
//! somebody had tampered with it. So the length up to which all is well is known here, and the file is cut back to it.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// Where records are written: a file, or in a test something that fails.
pub trait Medium {
    /// Writes at a place.
    ///
    /// # Errors  the system's; a part may have been written
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts it to this length.
    ///
    /// # Errors  the system's
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Makes it durable.
    ///
    /// # Errors  the system's
    fn sync(&mut self) -> io::Result<()>;
}

impl Medium for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that only ever grows, by records that are there whole or not at all.
#[derive(Debug)]
pub struct AppendFile<M = File> {
    medium: M,
    /// Bytes of whole records.
    length: u64,
    /// Whether something may stand behind them that is no record, and could not be cut off yet.
    is_torn: bool,
}

impl<M: Medium> AppendFile<M> {
    /// A file of which the first `length` bytes are whole records. What stands behind them is cut off.
    ///
    /// # Errors  the system's
    pub fn new(mut medium: M, length: u64) -> io::Result<Self> {
        medium.cut(length)?;
        medium.sync()?;
        Ok(Self { medium, length, is_torn: false })
    }

    /// Appends a record; when this returns it is durable.
    ///
    /// # Errors  the system's. Then nothing was appended: what was written of it is cut off, now or before the next one
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.cut_back()?;
        }
        match self.medium.write_at(record, self.length).and_then(|()| self.medium.sync()) {
            Ok(()) => {
                self.length += record.len() as u64;
                Ok(())
            }
            Err(error) => {
                // The error that counts is the first one.
                let _ = self.cut_back();
                Err(error)
            }
        }
    }

    /// Bytes of whole records.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where it is written.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Where it is written, for a test that makes it fail.
    pub fn medium_mut(&mut self) -> &mut M {
        &mut self.medium
    }

    fn cut_back(&mut self) -> io::Result<()> {
        self.is_torn = true;
        self.medium.cut(self.length)?;
        self.medium.sync()?;
        self.is_torn = false;
        Ok(())
    }
}

/// A disk with room for so many bytes, for tests of what grows on it.
#[derive(Clone, Debug, Default)]
pub struct SmallDisk {
    /// What is on it.
    pub bytes: Vec<u8>,
    /// How much fits.
    pub room: usize,
    /// Whether it refuses everything but writing.
    pub is_failing: bool,
}

impl Medium for SmallDisk {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.bytes.truncate(offset as usize);
        let fits = bytes.len().min(self.room.saturating_sub(self.bytes.len()));
        self.bytes.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.is_failing {
            return Err(io::Error::other("the disk fails"));
        }
        self.bytes.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.is_failing { Err(io::Error::other("the disk fails")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(room: usize) -> AppendFile<SmallDisk> {
        AppendFile::new(SmallDisk { room, ..SmallDisk::default() }, 0).unwrap()
    }

    #[test]
    fn wherever_a_disk_is_full_whole_records_stay_and_the_next_one_follows_them() {
        for room in 0..12 {
            let mut file = disk(room);
            let n_whole = (0..3).take_while(|_| file.append(b"abc\n").is_ok()).count();
            assert_eq!((n_whole, file.length()), ((room / 4).min(3), 4 * n_whole as u64));
            assert_eq!(file.medium.bytes, b"abc\n".repeat(n_whole), "room for {room}");
            file.medium.room = 100;
            file.append(b"defg\n").unwrap();
            assert_eq!(file.medium.bytes, [b"abc\n".repeat(n_whole), b"defg\n".to_vec()].concat());
        }
    }

    #[test]
    fn what_cannot_be_cut_off_at_once_is_cut_off_before_the_next_record() {
        let mut file = disk(6);
        file.append(b"abc\n").unwrap();
        file.medium.is_failing = true;
        assert!(file.append(b"abc\n").is_err() && file.append(b"x\n").is_err());
        assert_eq!(file.medium.bytes, b"abc\nab", "half a record stands there");
        file.medium.is_failing = false;
        file.append(b"x\n").unwrap();
        assert_eq!(file.medium.bytes, b"abc\nx\n");
    }

    #[test]
    fn what_is_not_durable_is_not_there() {
        let mut file = disk(100);
        file.medium.is_failing = true;
        assert!(file.append(b"abc\n").is_err());
        file.medium.is_failing = false;
        file.append(b"d\n").unwrap();
        assert_eq!(file.medium.bytes, b"d\n");
    }

    #[test]
    fn half_a_record_at_the_end_is_cut_off_when_a_file_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"abc\nde").unwrap();
        let open = || File::options().write(true).open(&path).unwrap();
        AppendFile::new(open(), 4).unwrap().append(b"fgh\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc\nfgh\n");
    }
}

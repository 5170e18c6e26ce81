//! The FORMAT file and what else says a directory's version.
//!
//! One line, `cresset-journal VERSION CRC`, with the CRC-32 of what stands before the last space; it stays so in every
//! version to come. It is the first file made. Where it is damaged, segments and cursors tell the version too.

use std::io;

use crate::{
    FORMAT, OpenError,
    disk::{Access, read_full, write_all},
    record::checksum,
    recovery::Opening,
    segment::{self, BadHead, Head},
};

pub(crate) const FORMAT_FILE: &str = "FORMAT";

/// Whether this program reads that version: its own and all before it.
pub(crate) fn is_known(version: u16) -> bool {
    (1..=FORMAT).contains(&version)
}

/// What a directory says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// FORMAT says ours.
    Known,
    /// FORMAT says an older one that is read. Before anything is written, it has to say ours.
    Older,
    /// There is no readable FORMAT, but the segments or cursors are ours.
    Unsaid,
    /// There is nothing of a journal.
    New,
}

impl Opening<'_> {
    /// Reads what says the version, and changes nothing.
    pub(crate) fn check_version(&self) -> Result<Format, OpenError> {
        let names = self.disk.list().map_err(self.io("listing the files of"))?;
        let said = match names.iter().any(|n| n == FORMAT_FILE) {
            true => self
                .read_format()
                .map_err(self.io_of(FORMAT_FILE, "reading"))?,
            false => None,
        };
        if let Some(found) = said.filter(|v| !is_known(*v)) {
            return Err(self.version(found));
        }
        let newest = names.iter().filter(|n| segment::base_of(n).is_some()).max();
        if let Some(name) = newest {
            let file = self
                .disk
                .open(name, Access::Read)
                .map_err(self.io_of(name, "opening"))?;
            if let Err(BadHead::Version(found)) =
                Head::read(&*file).map_err(self.io_of(name, "reading"))?
            {
                return Err(self.version(found));
            }
        }
        let ours = newest.is_some() || names.iter().any(|n| n.ends_with(".cursor"));
        match (said, ours) {
            (Some(FORMAT), _) => Ok(Format::Known),
            (Some(_), _) => Ok(Format::Older),
            (None, true) => Ok(Format::Unsaid),
            (None, false) if names.iter().any(|n| n == FORMAT_FILE) => Err(OpenError::Corrupt {
                path: self.path.join(FORMAT_FILE),
                what: "it does not say a format version",
            }),
            (None, false) => Ok(Format::New),
        }
    }

    /// The version in FORMAT; `None` if its line is not whole.
    pub(crate) fn read_format(&self) -> io::Result<Option<u16>> {
        let file = self.disk.open(FORMAT_FILE, Access::Read)?;
        let mut bytes = [0; 64];
        let n = read_full(&*file, &mut bytes, 0)?;
        let text = bytes
            .get(..n)
            .and_then(|b| str::from_utf8(b).ok())
            .unwrap_or_default();
        let parsed = text.trim_end().rsplit_once(' ').and_then(|(said, crc)| {
            let version = said.strip_prefix("cresset-journal ")?.parse().ok()?;
            (u32::from_str_radix(crc, 16).ok()? == checksum(0, said.as_bytes())).then_some(version)
        });
        Ok(parsed)
    }

    pub(crate) fn write_format(&self) -> Result<(), OpenError> {
        let said = format!("cresset-journal {FORMAT}");
        let line = format!("{said} {:08x}\n", checksum(0, said.as_bytes()));
        let temporary = format!("{FORMAT_FILE}.tmp");
        (|| {
            let file = self.disk.create(&temporary)?;
            write_all(&*file, line.as_bytes(), 0)?;
            file.fdatasync()?;
            self.disk.rename(&temporary, FORMAT_FILE)?;
            self.disk.fsync_dir()
        })()
        .map_err(|source| OpenError::NotWritable {
            path: self.path.to_owned(),
            source,
        })
    }
}

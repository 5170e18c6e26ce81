//! The counters as bytes, kept with the cursor.
//!
//! ```text
//! version u8 = 1 │ tables u16 │ table…
//! table: name len u16, bytes │ folded u64 │ values u32 │ (value len u16, bytes │ count u64)…        big-endian
//! ```
//!
//! Tables go by name, so that a counter may be added (it starts from nothing) or dropped (its values are skipped).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::counts::Counts;
use super::table::Table;
use crate::BadSnapshot;

const VERSION: u8 = 1;

pub(super) fn save(counts: &mut Counts) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u16(counts.tables().count() as u16);
    for (name, table) in counts.tables() {
        text(&name, &mut out);
        out.put_u64(table.folded());
        out.put_u32(table.iter().count() as u32);
        for (value, count) in table.iter() {
            text(value, &mut out);
            out.put_u64(count);
        }
    }
    out.freeze()
}

/// Names and values are at most 256 bytes long.
fn text(text: &str, out: &mut BytesMut) {
    out.put_u16(text.len() as u16);
    out.put_slice(text.as_bytes());
}

/// Replaces all counts; on error nothing has changed.
pub(super) fn load(bytes: &[u8], counts: &mut Counts) -> Result<(), BadSnapshot> {
    let mut read = counts.clone();
    parse(bytes, &mut read).map_err(BadSnapshot)?;
    *counts = read;
    Ok(())
}

fn parse(mut bytes: &[u8], counts: &mut Counts) -> Result<(), String> {
    let from = &mut bytes;
    let version = from.try_get_u8().map_err(cut)?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, this program reads {VERSION}"
        ));
    }
    for _ in 0..from.try_get_u16().map_err(cut)? {
        let name = take(from)?;
        let found = counts.tables().find(|(known, _)| *known == name);
        table(from, found.map(|(_, table)| table))?;
    }
    if from.is_empty() {
        Ok(())
    } else {
        Err("bytes follow its end".to_owned())
    }
}

fn table(from: &mut &[u8], mut into: Option<&mut Table>) -> Result<(), String> {
    let folded = from.try_get_u64().map_err(cut)?;
    if let Some(table) = &mut into {
        table.put_folded(folded);
    }
    for _ in 0..from.try_get_u32().map_err(cut)? {
        let value = take(from)?;
        let count = from.try_get_u64().map_err(cut)?;
        if let Some(table) = &mut into {
            table.put(value, count);
        }
    }
    Ok(())
}

fn take<'a>(from: &mut &'a [u8]) -> Result<&'a str, String> {
    let len = usize::from(from.try_get_u16().map_err(cut)?);
    let (text, rest) = from.split_at_checked(len).ok_or("it is cut short")?;
    *from = rest;
    std::str::from_utf8(text).map_err(|_| "a name in it is not UTF-8".to_owned())
}

fn cut(_: bytes::TryGetError) -> String {
    "it is cut short".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        let mut counts = Counts::new(2);
        for (n, (_, table)) in counts.tables().enumerate() {
            for value in ["", "a", "b", "ü"].iter().take(n % 5) {
                table.count(value);
            }
        }
        counts
    }

    #[test]
    fn what_is_saved_is_loaded_to_the_last_value() {
        let mut saved = counts();
        let mut loaded = Counts::new(2);
        load(&save(&mut saved), &mut loaded).unwrap();
        assert_eq!(loaded, saved);
    }

    #[test]
    fn a_snapshot_cut_anywhere_is_refused_whole() {
        let bytes = save(&mut counts());
        let before = counts();
        let mut now = before.clone();
        for cut in 0..bytes.len() {
            assert!(load(&bytes[..cut], &mut now).is_err(), "cut at {cut}");
            assert_eq!(now, before);
        }
    }

    #[test]
    fn a_table_that_is_unknown_here_is_skipped() {
        let mut out = BytesMut::from(&[VERSION][..]);
        out.put_u16(2);
        for name in [
            "kubearmor_alerts_of_tomorrow",
            "kubearmor_alerts_in_pod_total",
        ] {
            text(name, &mut out);
            out.put_u64(3);
            out.put_u32(1);
            text("cart", &mut out);
            out.put_u64(9);
        }
        let mut loaded = Counts::new(2);
        load(&out, &mut loaded).unwrap();
        assert_eq!(loaded.alerts[2].iter().collect::<Vec<_>>(), [("cart", 9)]);
        assert_eq!(loaded.alerts[2].folded(), 3);
    }

    #[test]
    fn another_version_is_named_in_the_refusal() {
        let error = load(&[7, 0, 0], &mut Counts::new(1)).unwrap_err();
        assert!(error.to_string().contains("version 7"), "{error}");
    }
}

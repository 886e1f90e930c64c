//! Files as commands read them: by name or from stdin, compressed or not, and named for what they are
//! where they are neither text nor compressed text.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Chain, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use super::failure::{Failure, words};

/// Enough of a file to tell what it is.
const PEEK: u64 = 16;

/// Most of the first line that is looked at before the file is read.
const FIRST: u64 = 1 << 12;

/// What a file says by its first bytes, if it is not text in UTF-8.
const SIGNATURES: &[(&[u8], Content)] = &[
    (b"\x1f\x8b", Content::Gzip),
    (b"\x28\xb5\x2f\xfd", Content::Zstd),
    (
        b"PK\x03\x04",
        Content::Other(
            "a zip archive, as workbooks (.xlsx, .ods) are too; unpack it, or save the sheet as CSV",
        ),
    ),
    (b"PK\x05\x06", Content::Other("an empty zip archive")),
    (
        b"\xfd7zXZ\0",
        Content::Other("compressed by xz; unpack it with `xz -d`"),
    ),
    (b"BZh", Content::Bzip2),
    (
        b"7z\xbc\xaf\x27\x1c",
        Content::Other("a 7z archive; unpack it"),
    ),
    (b"Rar!\x1a\x07", Content::Other("a RAR archive; unpack it")),
    (
        b"\x04\x22\x4d\x18",
        Content::Other("compressed by lz4; unpack it with `lz4 -d`"),
    ),
    (
        b"\x1f\x9d",
        Content::Other("compressed by compress; unpack it with `uncompress`"),
    ),
    (b"LZIP", Content::Lzip),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        Content::Other("an old workbook (.xls); save the sheet as CSV"),
    ),
    (b"SQLite format 3\0", Content::Other("an SQLite database")),
    (b"PAR1\x15", Content::Other("a Parquet file")),
    (b"%PDF-", Content::Other("a PDF document")),
    (
        b"\xff\xfe",
        Content::Other("text in UTF-16 (or UTF-32); save it as UTF-8"),
    ),
    (
        b"\xfe\xff",
        Content::Other("text in UTF-16; save it as UTF-8"),
    ),
    (
        b"\0\0\xfe\xff",
        Content::Other("text in UTF-32; save it as UTF-8"),
    ),
];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Text,
    Gzip,
    Zstd,
    /// Text may begin with the same letters, so more is looked at.
    Bzip2,
    Lzip,
    /// Nothing that is read here: what it is, and what to do about it.
    Other(&'static str),
}

impl Content {
    fn of(first: &[u8]) -> Self {
        let found = SIGNATURES
            .iter()
            .find(|(magic, _)| first.starts_with(magic));
        match found.map(|(_, content)| *content) {
            Some(Self::Bzip2) if first.get(4..10) == Some(b"1AY&SY") => {
                Self::Other("compressed by bzip2; unpack it with `bzip2 -d`")
            }
            Some(Self::Lzip) if first.get(4) == Some(&1) => {
                Self::Other("compressed by lzip; unpack it with `lzip -d`")
            }
            Some(Self::Bzip2 | Self::Lzip) | None => Self::Text,
            Some(content) => content,
        }
    }
}

/// The text of a file.
pub(crate) type Input = BufReader<Box<dyn Read + Send>>;

/// A file that is being read.
pub(crate) struct Opened {
    /// Its text, unpacked, after a byte order mark if there is one.
    pub(crate) text: Input,
    /// The first line of it, or its beginning.
    pub(crate) first: Vec<u8>,
    /// How many bytes the file itself has, where that is known.
    pub(crate) size: Option<u64>,
    /// How many of those were read.
    pub(crate) read: Arc<AtomicU64>,
}

/// Opens a file, `-` being stdin. Waits for its first bytes.
pub(crate) fn open(path: &Path) -> Result<Opened, Failure> {
    let file = path.display().to_string();
    let unreadable =
        |error: io::Error| Failure::failed(format!("cannot read {file}: {}", words(&error)));
    let (raw, size): (Box<dyn Read + Send>, _) = if file == "-" {
        (Box::new(io::stdin()), None)
    } else {
        let opened = File::open(path).map_err(unreadable)?;
        let about = opened.metadata().map_err(unreadable)?;
        if about.is_dir() {
            return Err(Failure::failed(format!(
                "cannot read {file}: it is a directory"
            )));
        }
        let size = about.is_file().then_some(about.len());
        (Box::new(opened), size)
    };
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        input: raw,
        read: Arc::clone(&read),
    };
    let (first, whole) = peek(counted).map_err(unreadable)?;
    if first.is_empty() && unpacked_name(&file) != file {
        return Err(Failure::failed(format!(
            "cannot read {file}: it is empty, which nothing compressed is, so the file was cut off"
        )));
    }
    let refused = |what: &str| Failure::failed(format!("cannot read {file}: it is {what}"));
    let unpacked: Box<dyn Read + Send> = match Content::of(&first) {
        Content::Gzip => Box::new(Unpacked {
            input: MultiGzDecoder::new(BufReader::new(whole)),
            by: "gzip",
        }),
        Content::Zstd => Box::new(Unpacked {
            input: zstd::Decoder::new(whole).map_err(unreadable)?,
            by: "zstd",
        }),
        Content::Other(what) => return Err(refused(what)),
        Content::Text | Content::Bzip2 | Content::Lzip => {
            return opened(Box::new(whole), size, read).map_err(unreadable);
        }
    };
    let (first, whole) = peek(unpacked).map_err(unreadable)?;
    match Content::of(&first) {
        Content::Text | Content::Bzip2 | Content::Lzip => {
            opened(Box::new(whole), size, read).map_err(unreadable)
        }
        Content::Gzip | Content::Zstd => Err(refused("compressed twice; unpack it once")),
        Content::Other(what) => Err(refused(what)),
    }
}

/// A byte order mark, which some programs begin a file with.
const BOM: &[u8] = b"\xef\xbb\xbf";

fn opened(
    text: Box<dyn Read + Send>,
    size: Option<u64>,
    read: Arc<AtomicU64>,
) -> io::Result<Opened> {
    let mut text = BufReader::new(text);
    let mut first = Vec::new();
    text.by_ref().take(FIRST).read_until(b'\n', &mut first)?;
    if first.starts_with(BOM) {
        first.drain(..BOM.len());
    }
    let whole: Box<dyn Read + Send> = Box::new(Cursor::new(first.clone()).chain(text));
    Ok(Opened {
        text: BufReader::new(whole),
        first,
        size,
        read,
    })
}

/// The name of a file without what says that it is compressed.
pub(crate) fn unpacked_name(name: &str) -> &str {
    let endings = [".gz", ".gzip", ".zst", ".zstd"];
    let ending = endings.iter().find(|ending| {
        let at = name.len().checked_sub(ending.len());
        at.and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(ending))
    });
    ending.map_or(name, |ending| &name[..name.len() - ending.len()])
}

/// An input whose first bytes were looked at.
type Again<R> = Chain<Cursor<Vec<u8>>, R>;

/// The first bytes, and all of them again. A pipe may hand them out one at a time.
fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, Again<R>)> {
    let mut first = Vec::new();
    input.by_ref().take(PEEK).read_to_end(&mut first)?;
    Ok((first.clone(), Cursor::new(first).chain(input)))
}

struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Says of compressed bytes what is wrong with them.
struct Unpacked<R> {
    input: R,
    by: &'static str,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer).map_err(|error| {
            let by = self.by;
            match error.kind() {
                io::ErrorKind::Interrupted => error,
                io::ErrorKind::UnexpectedEof => {
                    io::Error::other(format!("the {by} data ends early, so the file was cut off"))
                }
                _ => io::Error::other(format!("the {by} data is damaged: {error}")),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let opened = open(file.path());
        let mut opened = opened.map_err(|failure| failure.message().unwrap().to_owned())?;
        let mut text = Vec::new();
        opened
            .text
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        assert_eq!(opened.size, Some(bytes.len() as u64));
        assert_eq!(opened.read.load(Ordering::Relaxed), bytes.len() as u64);
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        // As the program does it, with a checksum.
        let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_compressed_is_unpacked() {
        let text = b"id,name\n1,Ann\n".repeat(3_000);
        for packed in [
            text.clone(),
            gzip(&text),
            zstd(&text),
            // As `cat a.gz b.gz` makes them.
            [gzip(&text[..700]), gzip(&text[700..])].concat(),
            [zstd(&text[..700]), zstd(&text[700..])].concat(),
        ] {
            assert_eq!(read(&packed).unwrap(), text);
        }
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"BZh9,LZIP\n").unwrap(), b"BZh9,LZIP\n", "is text");
    }

    #[test]
    fn what_is_compressed_and_cut_or_damaged_is_an_error() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(u32::to_be_bytes).collect();
        for packed in [gzip(&text), zstd(&text)] {
            for cut in [packed.len() - 1, packed.len() - 7, packed.len() / 2, 18] {
                let error = read(&packed[..cut]).unwrap_err();
                assert!(error.contains("ends early"), "{cut}: {error}");
            }
            let mut damaged = packed.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            damaged[middle + 1] ^= 0x55;
            read(&damaged).unwrap_err();
            let error = read(&[&packed[..], b"and then some text"].concat()).unwrap_err();
            assert!(error.contains("is damaged"), "{error}");
        }
    }

    #[test]
    fn a_compressed_file_without_a_byte_was_cut_off() {
        let file = tempfile::Builder::new().suffix(".ndjson.gz").tempfile();
        let file = file.unwrap();
        let opened = open(file.path());
        let refused = opened.err().unwrap();
        assert!(refused.message().unwrap().contains("cut off"));
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        for (first, name) in [
            (&b"PK\x03\x04rest of it"[..], "zip"),
            (b"\xfd7zXZ\0\0\x04", "xz"),
            (b"BZh91AY&SY\x01\x02", "bzip2"),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
            (b"\xff\xfei\0d\0", "UTF-16"),
            (b"\xfe\xff\0i\0d", "UTF-16"),
            (b"SQLite format 3\0abc", "SQLite"),
        ] {
            let error = read(first).unwrap_err();
            assert!(error.contains(name), "{error}");
            let error = read(&gzip(first)).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let error = read(&gzip(&zstd(b"x"))).unwrap_err();
        assert!(error.contains("twice"), "{error}");
    }

    #[test]
    fn the_name_of_what_is_compressed_is_found() {
        for (name, text) in [
            ("a/b.csv.gz", "a/b.csv"),
            ("b.ndjson.ZST", "b.ndjson"),
            ("b.csv", "b.csv"),
            ("gz", "gz"),
            ("ü", "ü"),
        ] {
            assert_eq!(unpacked_name(name), text);
        }
    }
}

//! Compressed messages, as the gRPC specification has them: which encodings there are, and what a
//! compressed message is worth.
//!
//! tonic can do this too. It allows a zstd frame 128 MiB of window, answers INTERNAL to what cannot be
//! decompressed, and compresses messages of ten bytes.

use std::io::{self, Read as _, Write as _};

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{bufread::GzDecoder, write::GzEncoder};
use http::{HeaderMap, HeaderValue};
use stategate_api::Problem;
use stategate_model::{Invalid, limits::MESSAGE_BYTES};
use zstd::zstd_safe;

use crate::{
    framing::{self, HEADER_BYTES},
    headers,
};

/// Most memory that a zstd frame may ask for to be decompressed, as a power of two: 8 MiB, which every
/// decoder should have (RFC 8878, section 3.1.1.1.2) and every level below 20 is content with.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Smaller messages are sent as they are: they would hardly become smaller.
const WORTH_IT: usize = 1_024;
/// Levels that cost little beside what they save.
const ZSTD_LEVEL: i32 = 1;

/// A way to compress messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The value of `grpc-encoding` for it.
    pub fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// What a request says that its messages are compressed with.
    pub fn of_request(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(headers::ENCODING).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) if value == "identity" => Ok(None),
            (Some(value), None) => match Self::named(value.as_bytes()) {
                Some(encoding) => Ok(Some(encoding)),
                None => Err(Problem::UnknownEncoding),
            },
            (Some(_), Some(_)) => Err(Problem::UnknownEncoding),
        }
    }

    /// What an answer may be compressed with, if its caller wants that: it says so by naming one of ours
    /// before `identity`, or by compressing its `request`. Many clients name all that they can
    /// decompress in every call, `identity` first, and did not ask for the time it takes.
    pub fn for_answer(headers: &HeaderMap, request: Option<Self>) -> Option<Self> {
        let lines = headers.get_all(headers::ACCEPT_ENCODING).iter();
        let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        for name in names.map(<[u8]>::trim_ascii) {
            match Self::named(name) {
                Some(encoding) => return Some(encoding),
                None if name == b"identity" && request.is_none() => return None,
                None => {}
            }
        }
        None
    }

    /// Decompresses a message of at most 4 MiB.
    pub(crate) fn decompress(self, packed: &[u8]) -> Result<Vec<u8>, Invalid> {
        let (message, left) = match self {
            Self::Gzip => {
                let mut decoder = GzDecoder::new(packed);
                let message = read(&mut decoder);
                (message, decoder.into_inner())
            }
            Self::Zstd => {
                let size = zstd_safe::get_frame_content_size(packed).ok().flatten();
                if size.is_some_and(|size| size > MESSAGE_BYTES as u64) {
                    return Err(too_large());
                }
                let decoder = zstd::Decoder::with_buffer(packed).and_then(|mut decoder| {
                    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                    Ok(decoder.single_frame())
                });
                match decoder {
                    Ok(mut decoder) => (read(&mut decoder), decoder.finish()),
                    Err(error) => (Err(error), packed),
                }
            }
        };
        match message {
            Ok(message) if message.len() > MESSAGE_BYTES => Err(too_large()),
            Ok(message) if left.is_empty() => Ok(message),
            Ok(_) => {
                let problem = format!(
                    "is a message with {} bytes behind its {} data; compress each message as one",
                    left.len(),
                    self.name()
                );
                Err(Invalid::new("request", problem))
            }
            Err(error) => {
                let name = self.name();
                let problem =
                    format!("is a message that cannot be decompressed as {name}: {error}");
                Err(Invalid::new("request", problem))
            }
        }
    }

    /// Compresses a message; `None` if it is as good as it is.
    fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        if message.len() < WORTH_IT {
            return None;
        }
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(message).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::bulk::compress(message, ZSTD_LEVEL),
        };
        packed.ok().filter(|packed| packed.len() < message.len())
    }
}

/// Reads to the end, or a byte more than a message may have.
fn read(decoder: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let most = MESSAGE_BYTES as u64 + 1;
    decoder.take(most).read_to_end(&mut message)?;
    Ok(message)
}

fn too_large() -> Invalid {
    let problem = format!(
        "is a message of more than {MESSAGE_BYTES} bytes once it is decompressed; at most {MESSAGE_BYTES} are allowed"
    );
    Invalid::too_large("request", problem)
}

/// Compresses the messages of an answer.
#[derive(Debug)]
pub struct Packing {
    /// `None` once a frame was met that is not made of whole messages: from there on everything is
    /// passed on as it is, which a receiver takes at any time.
    encoding: Option<Encoding>,
}

impl Packing {
    /// Compresses with `encoding`.
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding: Some(encoding),
        }
    }

    /// The messages of a frame, those compressed that get smaller. tonic puts whole messages into a
    /// frame, one or several.
    pub fn pack(&mut self, data: Bytes) -> Bytes {
        let Some(encoding) = self.encoding else {
            return data;
        };
        let Some(messages) = framing::whole_messages(&data) else {
            self.encoding = None;
            return data;
        };
        let mut packed = messages
            .into_iter()
            .map(|message| (message, encoding.compress(&message[HEADER_BYTES..])))
            .peekable();
        // Nearly always there is one.
        let mut out = BytesMut::new();
        while let Some((message, smaller)) = packed.next() {
            let Some(smaller) = smaller else {
                if out.is_empty() && packed.peek().is_none() {
                    return data.clone();
                }
                out.extend_from_slice(message);
                continue;
            };
            out.put_u8(1);
            // Smaller than what was there, whose length fitted.
            out.put_u32(u32::try_from(smaller.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(&smaller);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    fn pack(encoding: Encoding, message: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(message).unwrap();
                encoder.finish().unwrap()
            }
            Encoding::Zstd => zstd::bulk::compress(message, 19).unwrap(),
        }
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let name = http::HeaderName::from_static(name);
        let values = values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()));
        values.collect()
    }

    #[test]
    fn encodings_are_known_by_their_names_alone() {
        let of = |values: &[&str]| Encoding::of_request(&headers(headers::ENCODING, values));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["gzip"]), Ok(Some(Encoding::Gzip)));
        assert_eq!(of(&["zstd"]), Ok(Some(Encoding::Zstd)));
        for unknown in [
            &["deflate"][..],
            &["GZIP"],
            &[""],
            &["gzip,zstd"],
            &["gzip", "gzip"],
        ] {
            assert_eq!(of(unknown), Err(Problem::UnknownEncoding), "{unknown:?}");
        }
    }

    #[test]
    fn an_answer_is_compressed_for_who_asks() {
        let gzip = Some(Encoding::Gzip);
        for (accepted, request, expected) in [
            (&[][..], gzip, None),
            (&["identity"], gzip, None),
            (&["gzip,identity"], None, gzip),
            (&["gzip"], None, gzip),
            (&[" deflate ,zstd, gzip"], None, Some(Encoding::Zstd)),
            (&["deflate", "gzip"], None, gzip),
            (&["identity, deflate, gzip"], None, None),
            (&["identity, deflate, gzip"], gzip, gzip),
            (&["snappy,x"], None, None),
        ] {
            let headers = headers(headers::ACCEPT_ENCODING, accepted);
            assert_eq!(
                Encoding::for_answer(&headers, request),
                expected,
                "{accepted:?}"
            );
        }
    }

    #[test]
    fn messages_are_decompressed_up_to_their_limit() {
        for encoding in BOTH {
            for size in [0, 1, 100_000, MESSAGE_BYTES] {
                let message = vec![b'x'; size];
                let unpacked = encoding.decompress(&pack(encoding, &message));
                assert_eq!(unpacked.unwrap(), message, "{encoding:?} {size}");
            }
            for size in [MESSAGE_BYTES + 1, 16 * MESSAGE_BYTES] {
                let packed = pack(encoding, &vec![0; size]);
                let refused = encoding.decompress(&packed).unwrap_err();
                assert_eq!(refused.reason, stategate_model::Reason::RequestTooLarge);
            }
        }
    }

    #[test]
    fn what_is_cut_damaged_or_followed_by_more_is_refused() {
        let message: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
        for encoding in BOTH {
            let good = pack(encoding, &message);
            let mut bad: Vec<Vec<u8>> = (0..good.len())
                .step_by(97)
                .map(|end| good[..end].to_vec())
                .collect();
            bad.push(good[..good.len() - 1].to_vec());
            bad.push([&good[..], b"x"].concat());
            bad.push([&good[..], &good[..]].concat());
            bad.push(b"no such data".to_vec());
            let mut magic = good.clone();
            magic[0] ^= 1;
            bad.push(magic);
            for bad in bad {
                let refused = encoding.decompress(&bad).unwrap_err();
                assert_eq!(
                    refused.reason,
                    stategate_model::Reason::InvalidArgument,
                    "{refused}"
                );
            }
            // Whatever is flipped, nothing panics.
            for at in 0..good.len().min(2_000) {
                let mut flipped = good.clone();
                flipped[at] ^= 0x55;
                let _ = encoding.decompress(&flipped);
            }
        }
    }

    /// A frame without a size that asks for 128 MiB to be decompressed.
    #[test]
    fn a_window_that_is_too_wide_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.write_all(&[b'x'; 100]).unwrap();
        // Flushed before the end: the frame is begun without knowing that it is small.
        encoder.flush().unwrap();
        encoder.write_all(&[b'x'; 100]).unwrap();
        let packed = encoder.finish().unwrap();
        let refused = Encoding::Zstd.decompress(&packed).unwrap_err();
        assert!(refused.problem.contains("memory"), "{refused}");
    }

    #[test]
    fn what_gets_smaller_is_packed_and_nothing_else() {
        let frame = |message: &[u8]| {
            let length = u32::try_from(message.len()).unwrap();
            [&[0], &length.to_be_bytes()[..], message].concat()
        };
        let large = vec![b'x'; 10_000];
        let noise: Vec<u8> = (0..2_000).map(|_| rand_byte()).collect();
        for encoding in BOTH {
            let mut packing = Packing::new(encoding);
            let small = Bytes::from(frame(b"small"));
            assert_eq!(packing.pack(small.clone()), small);
            let data = [frame(b"small"), frame(&large), frame(&noise)].concat();
            let out = packing.pack(data.into());
            let messages = framing::whole_messages(&out).unwrap();
            let flags: Vec<u8> = messages.iter().map(|message| message[0]).collect();
            assert_eq!(flags, [0, 1, 0]);
            assert_eq!(
                encoding.decompress(&messages[1][HEADER_BYTES..]).unwrap(),
                large
            );
            let half = Bytes::from(frame(&large)[..100].to_vec());
            assert_eq!(packing.pack(half.clone()), half);
        }
    }

    fn rand_byte() -> u8 {
        uuid::Uuid::new_v4().as_bytes()[0]
    }
}

//! Frames, headers and bytes that no gRPC client sends, by hand over HTTP/2.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;
use flate2::{read::GzDecoder, write::GzEncoder};
use http::{HeaderMap, Method, Request, StatusCode, response::Parts};
use prost::Message as _;
use stategate_protocol::pb;
use stategate_tests::{Ask, Form, Gateway, Options, PATIENCE, Role, ask, ask::invalid_for};
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::call::{Call, send};

const SET: &str = "/stategate.EntityService/Set";
const STREAM: &str = "/stategate.EventService/Stream";

/// A call by hand.
#[derive(Debug, Clone)]
struct Sent {
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, Vec<u8>)>,
    /// Sent one by one.
    body: Vec<Vec<u8>>,
}

/// What came back.
#[derive(Debug)]
enum Answer {
    /// An answer with a gRPC status.
    Status(Status),
    /// An answer without.
    Http(StatusCode),
    /// The stream or the connection was reset.
    Reset,
}

impl Sent {
    fn new(path: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            method: Method::POST,
            path,
            headers: vec![
                ("content-type", b"application/grpc".to_vec()),
                ("te", b"trailers".to_vec()),
            ],
            body: vec![body.into()],
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self
    }

    async fn send(&self, to: SocketAddr) -> Answer {
        let answer = timeout(PATIENCE, self.exchange(to)).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {self:?}"));
        answer.unwrap_or(Answer::Reset)
    }

    async fn exchange(&self, to: SocketAddr) -> Result<Answer, h2::Error> {
        let (head, _, trailers) = self.whole(to).await?;
        let status = status_of(&head.headers).or_else(|| status_of(&trailers));
        Ok(status.map_or(Answer::Http(head.status), Answer::Status))
    }

    /// Headers, data and trailers of the answer.
    async fn whole(&self, to: SocketAddr) -> Result<(Parts, Vec<u8>, HeaderMap), h2::Error> {
        let socket = TcpStream::connect(to).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await?;
        tokio::spawn(connection);
        let mut client = client.ready().await?;
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("http://{to}{}", self.path));
        for (name, value) in &self.headers {
            request = request.header(*name, value.as_slice());
        }
        let request = request.body(()).unwrap();
        let (answer, mut body) = client.send_request(request, false)?;
        for part in &self.body {
            // Refused early, the rest of a body is not wanted any more.
            if body.send_data(Bytes::copy_from_slice(part), false).is_err() {
                break;
            }
        }
        let _ = body.send_data(Bytes::new(), true);
        let (head, mut data) = answer.await?.into_parts();
        let mut bytes = Vec::new();
        while let Some(part) = data.data().await {
            let part = part?;
            data.flow_control().release_capacity(part.len())?;
            bytes.extend_from_slice(&part);
        }
        let trailers = data.trailers().await?.unwrap_or_default();
        Ok((head, bytes, trailers))
    }
}

fn status_of(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}

/// A message in its frame.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// A message compressed by the library that others use too.
fn packed(encoding: &str, message: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(message).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::bulk::compress(message, 19).unwrap(),
    }
}

fn good() -> Vec<u8> {
    ask::entity("d/t/k", r#"{"n":1}"#).encode_to_vec()
}

#[tokio::test]
async fn every_bad_frame_gets_a_named_error() {
    let with_flag = |flag: u8| {
        let mut frame = framed(&good());
        frame[0] = flag;
        frame
    };
    let lengths = |length: u32| [&[0], &length.to_be_bytes()[..], &good()].concat();
    let mut calls = Vec::new();
    for path in [SET, STREAM] {
        let bad = [
            ("no message", Vec::new()),
            ("half a frame's header", vec![0, 0, 0]),
            ("a frame without its message", lengths(100)[..5].to_vec()),
            ("a message that is cut", framed(&good())[..20].to_vec()),
            ("a message longer than it says", lengths(3)),
            ("a message shorter than it says", lengths(200)),
            ("compressed, but not said how", with_flag(1)),
            ("a flag that is none", with_flag(2)),
            ("another flag that is none", with_flag(255)),
            ("bytes that are no protobuf", framed(&[0xff; 40])),
            ("a tag alone", framed(&[0x0a])),
            ("a group that does not end", framed(&[0x0b])),
            ("the field number 0", framed(&[0x02, 0x00])),
            (
                "a length beyond the message",
                framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
            ),
            ("a number without end", framed(&[0x80; 20])),
            (
                "a string that is no UTF-8",
                framed(&[0x0a, 0x02, 0xc3, 0x28]),
            ),
            (
                "a string where a message belongs",
                framed(&[0x22, 0x01, 0xff]),
            ),
            ("a number where a string belongs", framed(&[0x08, 0x01])),
            ("HTTP/1", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ];
        for (what, body) in bad {
            calls.push((what, Sent::new(path, body)));
        }
        let huge = [&[0], &0x7fff_ffff_u32.to_be_bytes()[..]].concat();
        calls.push(("a length of 2 GiB", Sent::new(path, huge)));
        let slow = framed(&[0xff; 40]);
        let mut bytewise = Sent::new(path, Vec::new());
        bytewise.body = slow.iter().map(|byte| vec![*byte]).collect();
        calls.push(("no protobuf, byte by byte", bytewise));
        for bad in [
            "",
            "S",
            "5",
            "-5S",
            "123456789S",
            "5s",
            "1.5S",
            "\u{e9}",
            "5S,6S",
        ] {
            let sent = Sent::new(path, framed(&good())).header("grpc-timeout", bad);
            calls.push(("a timeout that is none", sent));
        }
        for encoding in ["gzip", "zstd"] {
            let mut sent = |what, body: Vec<u8>| {
                let sent = Sent::new(path, body).header("grpc-encoding", encoding);
                calls.push((what, sent));
            };
            sent("no compressed data", with_flag(1));
            sent(
                "another flag than that of a compressed message",
                with_flag(2),
            );
            let whole = packed(encoding, &good());
            for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
                let mut frame = framed(&whole[..cut]);
                frame[0] = 1;
                sent("compressed data that is cut", frame);
            }
            for behind in [&b"x"[..], &whole] {
                let mut frame = framed(&[&whole, behind].concat());
                frame[0] = 1;
                sent("more behind the compressed data", frame);
            }
            let mut damaged = framed(&whole);
            damaged[0] = 1;
            damaged[5] ^= 0xff;
            sent("compressed data that is damaged", damaged);
            let mut frame = framed(&whole);
            frame[0] = 1;
            frame.truncate(frame.len() - 3);
            sent("a compressed message that is cut", frame);
            let mut frame = framed(&packed(encoding, &[0xff; 40]));
            frame[0] = 1;
            sent("compressed bytes that are no protobuf", frame);
        }
        for unknown in [
            "deflate",
            "snappy",
            "nonsense",
            "GZIP",
            "gzip,zstd",
            "",
            "\u{e9}",
        ] {
            let sent = Sent::new(path, with_flag(1)).header("grpc-encoding", unknown);
            calls.push(("a compression that is not taken", sent));
        }
        let sent = Sent::new(path, with_flag(1)).header("grpc-encoding", "identity");
        calls.push(("compressed, but said not to be", sent));
    }
    let mut refused = 0;
    for form in [Form::One, Form::Three] {
        let mut gateway = Gateway::start(Options::new(form)).await;
        let command = gateway.process(Role::Command).grpc();
        let stream = gateway.process(Role::Stream).grpc();
        for (what, sent) in &calls {
            let to = if sent.path == SET { command } else { stream };
            let answer = sent.send(to).await;
            let Answer::Status(status) = &answer else {
                panic!("{what} at {}: {answer:?}", sent.path);
            };
            let expected = match *what {
                "a compression that is not taken" => Code::Unimplemented,
                _ => Code::InvalidArgument,
            };
            assert_eq!(
                status.code(),
                expected,
                "{what} at {}: {status:?}",
                sent.path
            );
            let info = status.get_details_error_info();
            let info = info.unwrap_or_else(|| panic!("{what} at {}: {status:?}", sent.path));
            assert_eq!(info.domain, "stategate");
            if expected == Code::Unimplemented {
                let accepted = status.metadata().get("grpc-accept-encoding");
                assert_eq!(accepted.unwrap(), "identity,gzip,zstd", "{what}");
            }
            refused += 1;
        }
        gateway.assert_no_errors();
    }
    println!("{refused} bad frames were refused by name");
    assert!(refused >= 100, "only {refused} were refused");
}

#[tokio::test]
async fn requests_that_are_no_grpc_end() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let to = gateway.process(Role::Everything).grpc();
    let body = framed(&good());
    let mut get = Sent::new(SET, Vec::new());
    get.method = Method::GET;
    let mut delete = Sent::new(SET, body.clone());
    delete.method = Method::DELETE;
    let wide = vec![b'x'; 40 << 10];
    let mut many = Sent::new(SET, body.clone());
    for _ in 0..2_000 {
        many.headers.push(("x-many", b"0123456789".to_vec()));
    }
    let calls = [
        ("GET", get),
        ("DELETE", delete),
        (
            "no content type",
            Sent::new(SET, body.clone()).without("content-type"),
        ),
        (
            "another content type",
            Sent::new(SET, body.clone()).header("content-type", "text/html"),
        ),
        (
            "JSON",
            Sent::new(SET, body.clone()).header("content-type", "application/json"),
        ),
        (
            "two messages",
            Sent::new(SET, [body.clone(), body.clone()].concat()),
        ),
        ("no te", Sent::new(SET, body.clone()).without("te")),
        (
            "a header of 40 KiB",
            Sent::new(SET, body.clone()).header("x-wide", wide),
        ),
        ("2,000 headers", many),
        (
            "a path that is no method",
            Sent::new("/a/b/c/%00?x#y", body.clone()),
        ),
        (
            "a binary header that is not",
            Sent::new(SET, body.clone()).header("x-bin", "!!!"),
        ),
        (
            "bytes in a header",
            Sent::new(SET, body).header("x-raw", vec![0xff, 0x80]),
        ),
    ];
    for (what, sent) in calls {
        let answer = sent.send(to).await;
        match &answer {
            Answer::Status(status) => {
                let is_bug = matches!(status.code(), Code::Internal | Code::Unknown);
                assert!(!is_bug, "{what}: {status:?}");
            }
            Answer::Http(status) => assert!(!status.is_server_error(), "{what}: {status}"),
            Answer::Reset => {}
        }
        println!("{what}: {answer:?}");
    }
    let ask = Ask::new(&mut gateway);
    ask.set("d/t/k", "{}").await.unwrap();
    gateway.assert_no_errors();
}

#[tokio::test]
async fn a_message_over_four_mebibytes_is_too_large() {
    for form in [Form::One, Form::Three] {
        let mut gateway = Gateway::start(Options::new(form)).await;
        let ask = Ask::new(&mut gateway);
        let reference = || ask::entity_ref("d/t/k");
        let event = || ask::event_ref("d/t/k", "x");
        for call in [
            Call::Set(ask::entity("d/t/k", "{}")),
            Call::Edit(ask::entity("d/t/k", "{}")),
            Call::Revert(event()),
            Call::Del(reference()),
            Call::Transact(Default::default()),
            Call::Get(reference()),
            Call::Search(Default::default()),
            Call::Event(event()),
            Call::History(Default::default()),
            Call::Stream(Default::default()),
        ] {
            // Padded by a field that nobody knows.
            let padded = |size: usize| {
                let mut message = call.encoded();
                message.extend([0xfa, 0x7f]);
                let left = size - message.len() - 4;
                let length = [
                    left & 0x7f | 0x80,
                    left >> 7 & 0x7f | 0x80,
                    left >> 14 & 0x7f | 0x80,
                    left >> 21,
                ];
                message.extend(length.map(|byte| u8::try_from(byte).unwrap()));
                message.resize(size, b'x');
                message
            };
            let most = 4 << 20;
            let answer = send(&ask, call.path(), &padded(most + 1)).await;
            invalid_for(answer, "REQUEST_TOO_LARGE", "request");
            // Just as large as allowed it is looked at.
            let answer = send(&ask, call.path(), &padded(most)).await;
            if let Err(status) = answer {
                let info = status.get_details_error_info().unwrap();
                assert_ne!(info.reason, "REQUEST_TOO_LARGE", "{status:?}");
            }
        }
        gateway.assert_no_errors();
    }
}

/// A message in its frame, compressed.
fn framed_packed(encoding: &str, message: &[u8]) -> Vec<u8> {
    let mut frame = framed(&packed(encoding, message));
    frame[0] = 1;
    frame
}

/// The largest resident set that the process ever had, in KiB.
fn peak_memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[tokio::test]
async fn a_small_message_that_becomes_a_large_one_is_too_large_at_once() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let process = gateway.process(Role::Everything);
    let (to, id) = (process.grpc(), process.pid());
    let zeros = vec![0; 128 << 20];
    let mut bombs = Vec::new();
    for encoding in ["gzip", "zstd"] {
        bombs.push((encoding, framed_packed(encoding, &zeros)));
        bombs.push((encoding, framed_packed(encoding, &zeros[..(4 << 20) + 1])));
    }
    drop(zeros);
    // The first one of each kind also pays for what is made once.
    Sent::new(SET, bombs[0].1.clone()).send(to).await;
    let (before, begun) = (peak_memory(id), Instant::now());
    let mut refused = 0;
    for round in 0..25 {
        for (encoding, bomb) in &bombs {
            for path in [SET, STREAM] {
                let sent = Sent::new(path, bomb.clone()).header("grpc-encoding", *encoding);
                let answer = sent.send(to).await;
                let Answer::Status(status) = &answer else {
                    panic!("{encoding} at {path}, round {round}: {answer:?}");
                };
                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                let info = status.get_details_error_info().unwrap();
                assert_eq!(info.reason, "REQUEST_TOO_LARGE");
                refused += 1;
            }
        }
    }
    let grown = peak_memory(id).saturating_sub(before);
    println!(
        "{refused} refused in {:?}; {grown} KiB more",
        begun.elapsed()
    );
    assert!(grown < 96 << 10, "{grown} KiB more");
    // As large as a message may be, it is looked at.
    let most = vec![0xff; 4 << 20];
    for encoding in ["gzip", "zstd"] {
        let sent = Sent::new(SET, framed_packed(encoding, &most));
        let Answer::Status(status) = sent.header("grpc-encoding", encoding).send(to).await else {
            panic!("no status");
        };
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "INVALID_ARGUMENT", "{status:?}");
    }
    gateway.assert_no_errors();
}

#[tokio::test]
async fn compressed_requests_are_taken_byte_by_byte_too() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let to = gateway.process(Role::Everything).grpc();
    let mut versions = 0;
    for encoding in ["gzip", "zstd"] {
        let whole = framed_packed(encoding, &good());
        for mut body in [
            vec![whole.clone()],
            whole.iter().map(|byte| vec![*byte]).collect(),
            // Said to be compressed, and not: the flag of the message decides.
            vec![framed(&good())],
        ] {
            let mut sent = Sent::new(SET, Vec::new()).header("grpc-encoding", encoding);
            sent.body.clear();
            sent.body.append(&mut body);
            let answer = sent.send(to).await;
            assert!(
                matches!(&answer, Answer::Status(status) if status.code() == Code::Ok),
                "{encoding}: {answer:?}"
            );
            versions += 1;
        }
    }
    let ask = Ask::new(&mut gateway);
    let got = ask.get("d/t/k").await.unwrap();
    assert_eq!(got.get_ref().version, versions);
    gateway.assert_no_errors();
}

/// The messages of an answer, and whether each was compressed.
fn messages(encoding: &str, mut data: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut messages = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = data {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (message, behind) = rest.split_at(length);
        data = behind;
        let is_packed = *flag == 1;
        let message = match (is_packed, encoding) {
            (false, _) => message.to_vec(),
            (true, "gzip") => {
                let mut unpacked = Vec::new();
                GzDecoder::new(message).read_to_end(&mut unpacked).unwrap();
                unpacked
            }
            (true, _) => zstd::decode_all(message).unwrap(),
        };
        messages.push((is_packed, message));
    }
    messages
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    const GET: &str = "/stategate.EntityService/Get";
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let to = gateway.process(Role::Everything).grpc();
    let ask = Ask::new(&mut gateway);
    let text = "stategate ".repeat(1_000);
    ask.set("d/t/large", &format!(r#"{{"text":"{text}"}}"#))
        .await
        .unwrap();
    ask.set("d/t/small", r#"{"n":1}"#).await.unwrap();
    let of = |key: &str| framed(&ask::entity_ref(&format!("d/t/{key}")).encode_to_vec());
    let file = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::FileByFilename(
                "stategate/entity.proto".into(),
            ),
        ),
    };
    let file = file.encode_to_vec();
    let calls = [
        (GET, of("large"), true),
        (GET, of("small"), false),
        (CHECK, framed(&[]), false),
        (REFLECTION, framed(&file), true),
    ];
    for (path, body, is_large) in calls {
        let plain = Sent::new(path, body.clone()).whole(to).await.unwrap();
        assert!(!plain.0.headers.contains_key("grpc-encoding"), "{path}");
        let expected = messages("", &plain.1);
        assert!(!expected.is_empty(), "{path}: {plain:?}");
        for (accepted, encoding) in [
            ("gzip", Some("gzip")),
            ("zstd", Some("zstd")),
            ("gzip,identity", Some("gzip")),
            ("deflate, zstd,gzip", Some("zstd")),
            // What many clients send with every call, whether they want it or not.
            ("identity, deflate, gzip", None),
            ("identity", None),
            ("snappy", None),
            ("", None),
        ] {
            let sent = Sent::new(path, body.clone()).header("grpc-accept-encoding", accepted);
            let (head, data, trailers) = sent.whole(to).await.unwrap();
            let named = head.headers.get("grpc-encoding");
            let named = named.map(|value| value.to_str().unwrap());
            assert_eq!(named, encoding, "{path}, {accepted:?}");
            assert_eq!(trailers["grpc-status"], "0", "{path}, {accepted:?}");
            let got = messages(encoding.unwrap_or_default(), &data);
            let is_packed = encoding.is_some() && is_large;
            assert!(
                got.iter().all(|(packed, _)| *packed == is_packed),
                "{path}, {accepted:?}"
            );
            let unpacked = |all: &[(bool, Vec<u8>)]| -> Vec<Vec<u8>> {
                all.iter().map(|(_, message)| message.clone()).collect()
            };
            assert_eq!(unpacked(&got), unpacked(&expected), "{path}, {accepted:?}");
            if is_packed {
                assert!(
                    data.len() < plain.1.len(),
                    "{} of {}",
                    data.len(),
                    plain.1.len()
                );
            }
        }
    }
    // Who compresses its request is answered in kind, and every service takes it.
    for encoding in ["gzip", "zstd"] {
        for (path, message) in [
            (GET, ask::entity_ref("d/t/large").encode_to_vec()),
            (CHECK, Vec::new()),
            (REFLECTION, file.clone()),
        ] {
            let sent = Sent::new(path, framed_packed(encoding, &message))
                .header("grpc-encoding", encoding)
                .header("grpc-accept-encoding", "identity, deflate, gzip, zstd");
            let (head, _, trailers) = sent.whole(to).await.unwrap();
            assert_eq!(trailers["grpc-status"], "0", "{path}: {head:?}");
            assert_eq!(head.headers["grpc-encoding"], "gzip", "{path}");
        }
    }
    // An error has nothing to compress.
    let sent = Sent::new(GET, of("none")).header("grpc-accept-encoding", "gzip");
    let (head, ..) = sent.whole(to).await.unwrap();
    assert_eq!(head.headers["grpc-status"], "5");
    assert!(!head.headers.contains_key("grpc-encoding"));
    gateway.assert_no_errors();
}

#[tokio::test]
async fn streams_are_compressed_for_those_who_ask() {
    let mut gateway = Gateway::start(Options::new(Form::One)).await;
    let to = gateway.process(Role::Everything).grpc();
    let ask = Ask::new(&mut gateway);
    let text = "stategate ".repeat(1_000);
    for n in 0..20 {
        let values = match n % 2 {
            0 => format!(r#"{{"n":{n},"text":"{text}"}}"#),
            _ => format!(r#"{{"n":{n}}}"#),
        };
        ask.set("d/t/k", &values).await.unwrap();
    }
    let opts = pb::StreamOpts {
        domain: "d".into(),
        r#type: "t".into(),
        start: Some(pb::stream_opts::Start::FromBeginning(true)),
        ..pb::StreamOpts::default()
    };
    for encoding in ["gzip", "zstd"] {
        // It ends at its deadline, with everything that was there.
        let sent = Sent::new(STREAM, framed(&opts.encode_to_vec()))
            .header("grpc-accept-encoding", encoding)
            .header("grpc-timeout", "2S");
        let (head, data, trailers) = sent.whole(to).await.unwrap();
        assert_eq!(head.headers["grpc-encoding"], encoding);
        assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
        let got = messages(encoding, &data);
        assert_eq!(got.len(), 20);
        for (n, (is_packed, message)) in got.iter().enumerate() {
            let event = pb::Event::decode(message.as_slice()).unwrap();
            assert_eq!(event.version, i64::try_from(n).unwrap() + 1);
            assert_eq!(*is_packed, n % 2 == 0);
        }
    }
    gateway.assert_no_errors();
}

//! Frames, headers and bytes that no gRPC client sends, by hand over HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use prost::Message as _;
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
        let answer = answer.await?;
        let (head, mut data) = answer.into_parts();
        if let Some(status) = status_of(&head.headers) {
            return Ok(Answer::Status(status));
        }
        while let Some(part) = data.data().await {
            let length = part?.len();
            data.flow_control().release_capacity(length)?;
        }
        let trailers = data.trailers().await?.unwrap_or_default();
        Ok(match status_of(&trailers) {
            Some(status) => Answer::Status(status),
            None => Answer::Http(head.status),
        })
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
        let sent = Sent::new(path, with_flag(1)).header("grpc-encoding", "gzip");
        calls.push(("a compression that is not taken", sent));
        let sent = Sent::new(path, with_flag(1)).header("grpc-encoding", "nonsense");
        calls.push(("a compression that nobody knows", sent));
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
                "a compression that is not taken" | "a compression that nobody knows" => {
                    Code::Unimplemented
                }
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

//! Calls that cannot be served get a named error.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use stategate_protocol::{Encoded, codec::Codec, pb};
use tokio::net::TcpStream;
use tonic::{Code, Request, Status, client::Grpc};
use tonic_types::StatusExt as _;

use crate::support::{Started, entity, entity_ref, everything, start};

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// What a method answers to bytes that are no request of it.
async fn send_bytes(started: &Started, path: &'static str, bytes: &'static [u8]) -> Status {
    let mut grpc = Grpc::new(started.channel().await);
    grpc.ready().await.unwrap();
    let request = Request::new(Encoded(Bytes::from_static(bytes)));
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(request, path, Codec::<Encoded, ()>::default())
        .await
        .unwrap_err()
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_header() {
    let started = start(&[]).await;
    let mut client = started.entities().await;
    for _ in 0..3 {
        let huge = pb::Entity {
            key: "x".repeat(5 << 20),
            ..entity()
        };
        let refused = client.edit(huge).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(reason(&refused), "REQUEST_TOO_LARGE");
    }
    // What is read is refused for what is in it.
    let most = pb::Entity {
        key: "x".repeat((4 << 20) - 20),
        ..entity()
    };
    let refused = client.edit(most).await.unwrap_err();
    let violations = refused.get_error_details().bad_request().cloned();
    assert_eq!(violations.unwrap().field_violations[0].field, "key");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_mistake() {
    let started = start(&[]).await;
    let garbage = b"\xff\xff\xff\xff";
    for path in [
        "/stategate.EntityService/Set",
        "/stategate.EventService/Stream",
    ] {
        let refused = send_bytes(&started, path, garbage).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}: {refused}");
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    }
}

#[tokio::test]
async fn unknown_methods_and_services_and_those_elsewhere_are_named() {
    let started = start(&[]).await;
    for (path, expected) in [
        ("/stategate.EntityService/Sett", "UNSUPPORTED"),
        ("/stategate.Nothing/Set", "UNSUPPORTED"),
        ("/nothing", "UNSUPPORTED"),
        ("/stategate.EntityService/Get", "OTHER_SERVICE"),
    ] {
        let refused = send_bytes(&started, path, b"").await;
        assert_eq!(refused.code(), Code::Unimplemented, "{path}: {refused}");
        assert_eq!(reason(&refused), expected, "{path}");
    }
}

/// Each method that lives elsewhere is refused for that, whatever is wrong with the call besides, and
/// without waiting for its request.
#[tokio::test]
async fn a_method_of_another_service_is_refused_before_its_request_is_there() {
    let started = start(&[("STATEGATE_MAX_CALLS", "1")]).await;
    // There are as many calls as allowed.
    let mut client = started.entities().await;
    let _first = tokio::spawn(async move { client.set(entity()).await });
    started.service.arrived.acquire().await.unwrap().forget();
    for path in [
        "/stategate.EntityService/Get",
        "/stategate.EntityService/Search",
        "/stategate.EventService/Get",
        "/stategate.EventService/Search",
    ] {
        for body in [
            None,
            EMPTY_MESSAGE,
            Some(&b""[..]),
            Some(b"\xff\xff\xff\xff\xff"),
            Some(b"\0\0\0\0\x04\xff\xff\xff\xff"),
            Some(b"\0\x7f\xff\xff\xff"),
            Some(b"\x01\0\0\0\x01x"),
        ] {
            for timeout in ["10S", "soon"] {
                let (headers, ..) = by_hand(&started, path, timeout, body).await;
                assert_eq!(headers["grpc-status"], "12", "{path} {body:?}: {headers:?}");
                assert_eq!(headers["service"], "query", "{path} {body:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_bug_in_a_handler_is_that_calls_problem_alone() {
    let started = start(&[]).await;
    let mut client = started.entities().await;
    let refused = client
        .revert(pb::EventRef {
            domain: "d".to_owned(),
            r#type: "t".to_owned(),
            key: "k".to_owned(),
            id: "2f1b7c3e-6a0d-4d0b-9b57-0d6f0d6ef0aa".to_owned(),
        })
        .await
        .unwrap_err();
    // It may have been written before the bug: what is internal would be surely not written.
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(reason(&refused), "OUTCOME_UNKNOWN");
    assert!(refused.get_details_retry_info().is_none());
    assert!(!refused.message().contains("a bug"), "{refused}");
    let answer = client.del(entity_ref()).await.unwrap();
    let accepted = answer.metadata().get("grpc-accept-encoding").unwrap();
    assert_eq!(accepted, "identity,gzip,zstd", "every answer says so");
}

#[tokio::test]
async fn a_bug_in_a_stream_is_that_streams_problem_alone() {
    let started = start(&[]).await;
    let mut client = started.events().await;
    let mut other = client.stream(everything()).await.unwrap();
    let opts = pb::StreamOpts {
        key: "bug".to_owned(),
        ..everything()
    };
    let mut stream = client.stream(opts).await.unwrap().into_inner();
    // What is being put together with what fails goes with it.
    let ended = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(ended.code(), Code::Internal, "{ended}");
    assert_eq!(reason(&ended), "INTERNAL");
    // The other one is on the same connection.
    for _ in 0..3 {
        other.get_mut().message().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_call_too_many_is_told_to_come_back() {
    let started = start(&[("STATEGATE_MAX_CALLS", "1")]).await;
    let mut client = started.entities().await;
    let mut waiting = client.clone();
    let first = tokio::spawn(async move { waiting.set(entity()).await });
    started.service.arrived.acquire().await.unwrap().forget();
    let refused = client.del(entity_ref()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().is_some());

    started.service.answered.add_permits(1);
    first.await.unwrap().unwrap();
    // The slot is free once the answer is gone from the server, which its client cannot see.
    while let Err(status) = client.del(entity_ref()).await {
        assert_eq!(status.code(), Code::ResourceExhausted);
    }
}

/// A call by hand, for tonic's client ends a call at its deadline by itself. Answers the headers and
/// trailers, and how much data there was between them. `None` leaves the request unfinished.
async fn by_hand(
    started: &Started,
    path: &str,
    timeout: &str,
    message: Option<&'static [u8]>,
) -> (HeaderMap, HeaderMap, usize) {
    let socket = TcpStream::connect(started.running.addresses().grpc)
        .await
        .unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    if let Some(message) = message {
        // Refused before it came, it is not wanted any more.
        let _ = body.send_data(Bytes::from_static(message), true);
    }
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut length = 0;
    while let Some(data) = body.data().await {
        length += data.unwrap().len();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    (head.headers, trailers, length)
}

const EMPTY_MESSAGE: Option<&[u8]> = Some(&[0; 5]);
/// An entity without values.
const ENTITY: Option<&[u8]> = Some(b"\0\0\0\0\x0b\x0a\x01d\x12\x01t\x1a\x01k\x22\0");
/// A subscription to everything.
const EVERYTHING: Option<&[u8]> = Some(b"\0\0\0\0\x06\x0a\x01*\x12\x01*");

#[tokio::test]
async fn the_deadline_is_kept_and_called_by_its_name() {
    let started = start(&[]).await;
    for _ in 0..20 {
        let path = "/stategate.EntityService/Set";
        let (headers, ..) = by_hand(&started, path, "20m", ENTITY).await;
        assert_eq!(headers["grpc-status"], "4", "{headers:?}");
    }
    let path = "/stategate.EntityService/Set";
    let (headers, ..) = by_hand(&started, path, "20m", None).await;
    assert_eq!(headers["grpc-status"], "4", "a request that never came");

    let path = "/stategate.EventService/Stream";
    let (_, trailers, length) = by_hand(&started, path, "50m", EVERYTHING).await;
    assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
    assert!(length > 0, "events came before the deadline");

    let path = "/stategate.EntityService/Edit";
    let (headers, ..) = by_hand(&started, path, "soon", EMPTY_MESSAGE).await;
    assert_eq!(headers["grpc-status"], "3", "{headers:?}");
}

#[tokio::test]
async fn a_handler_knows_the_deadline() {
    let started = start(&[]).await;
    let mut client = started.entities().await;
    let mut request = Request::new(entity());
    request.set_timeout(Duration::from_secs(30));
    let has_deadline = |answer: tonic::Response<pb::Entity>| {
        let values = answer.into_inner().values.unwrap().into_object();
        format!("{values:?}").contains("true")
    };
    assert!(has_deadline(client.edit(request).await.unwrap()));
    let without = client.edit(entity()).await.unwrap();
    assert!(!has_deadline(without));
}

//! Connections come to an end that their clients can deal with.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use stategate_protocol::pb::entity_service_client::EntityServiceClient;
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{Started, entity_ref, everything, start};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection by hand, and how it ends.
async fn connect(
    started: &Started,
) -> (
    h2::client::SendRequest<Bytes>,
    tokio::task::JoinHandle<Result<(), h2::Error>>,
) {
    let socket = TcpStream::connect(started.running.addresses().grpc)
        .await
        .unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    (client, tokio::spawn(connection))
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_away_and_nothing_is_cut() {
    let started = start(&[("STATEGATE_MAX_CONNECTION_AGE_SECONDS", "1")]).await;
    let (_client, connection) = connect(&started).await;
    let mut subscriber = started.events().await;
    let stream = subscriber.stream(everything()).await.unwrap();
    let mut stream = stream.into_inner();
    let (mut calls, begun) = (0, Instant::now());
    let mut client: EntityServiceClient<_> = started.entities().await;
    let mut unsent = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        match client.del(entity_ref()).await {
            Ok(_) => calls += 1,
            // hyper's client gives up what it has not sent yet when it hears of it.
            Err(status) if status.code() == Code::Cancelled => unsent += 1,
            Err(status) => panic!("{status}"),
        }
    }
    println!("{calls} calls, {unsent} not sent");
    assert!(calls > 100, "only {calls} calls");
    assert!(unsent <= 5, "one for each connection at most");
    // Without anything on it, a connection ends at once, in good order.
    let ended = tokio::time::timeout(PATIENCE, connection).await;
    ended.unwrap().unwrap().unwrap();
    // A stream has no part in it while there is no grace to end.
    for _ in 0..100 {
        stream.next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_stream_on_an_old_connection_has_the_grace_time() {
    let started = start(&[
        ("STATEGATE_MAX_CONNECTION_AGE_SECONDS", "1"),
        ("STATEGATE_MAX_CONNECTION_AGE_GRACE_SECONDS", "2"),
    ])
    .await;
    let begun = Instant::now();
    let mut subscriber = started.events().await;
    let stream = subscriber.stream(everything()).await.unwrap();
    let mut stream = stream.into_inner();
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(status) = stream.next().await.unwrap() {
                break status;
            }
        }
    });
    let ended = ended.await.unwrap();
    assert!(
        matches!(ended.code(), Code::Unavailable | Code::Unknown),
        "{ended}"
    );
    let lasted = begun.elapsed();
    assert!(lasted >= Duration::from_millis(2_900), "{lasted:?}");
    assert!(lasted < Duration::from_secs(10), "{lasted:?}");
}

#[tokio::test]
async fn an_old_connection_says_so_before_it_is_closed() {
    let started = start(&[
        ("STATEGATE_MAX_CONNECTION_AGE_SECONDS", "1"),
        ("STATEGATE_MAX_CONNECTION_AGE_GRACE_SECONDS", "3"),
    ])
    .await;
    let (client, connection) = connect(&started).await;
    let mut client = client.ready().await.unwrap();
    let request = http::Request::post("http://x/stategate.EventService/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    let everything = Bytes::from_static(b"\0\0\0\0\x06\x0a\x01*\x12\x01*");
    body.send_data(everything, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let begun = Instant::now();
    let read = tokio::spawn(async move {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
    });
    // A new call is refused by the client itself once it was told.
    let told = async {
        while std::future::poll_fn(|cx| client.poll_ready(cx))
            .await
            .is_ok()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    let at = begun.elapsed();
    assert!(at < Duration::from_millis(2_500), "told after {at:?}");
    assert!(!read.is_finished(), "the stream goes on");
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    let _ = connection.await;
}

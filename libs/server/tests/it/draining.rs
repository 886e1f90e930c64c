//! Ending: nothing in flight is cut (invariant I12).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{entity, everything, start};

#[tokio::test]
async fn a_call_in_flight_finishes_a_stream_ends_and_then_things_are_closed() {
    let started = start(&[]).await;
    started.running.ready().await;
    let addresses = started.running.addresses();
    let closed = Arc::new(AtomicBool::new(false));
    let close = Arc::clone(&closed);
    started
        .drain
        .on_close("flag", async move { close.store(true, SeqCst) });

    let mut writer = started.entities().await;
    let write = tokio::spawn(async move { writer.set(entity()).await });
    started.service.arrived.acquire().await.unwrap().forget();
    let mut subscriber = started.events().await;
    let stream = subscriber.stream(everything()).await.unwrap();
    let mut stream = stream.into_inner();
    stream.next().await.unwrap().unwrap();

    started.drain.begin();
    let ended = tokio::spawn(started.running.ended());
    let mut delivered = 0;
    let end = loop {
        match stream.next().await.unwrap() {
            Ok(_) => delivered += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    while TcpStream::connect(addresses.grpc).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!write.is_finished(), "the write is still under way");
    assert!(!ended.is_finished(), "and is waited for");
    assert!(!closed.load(SeqCst), "with nothing closed under it");

    started.service.answered.add_permits(1);
    write.await.unwrap().unwrap();
    ended.await.unwrap().unwrap();
    assert!(closed.load(SeqCst));
    println!("1 write finished, 1 stream ended after {delivered} more events, 1 closer run");
}

#[tokio::test]
async fn what_does_not_end_is_left_behind_within_the_grace_time() {
    let started = start(&[("STATEGATE_GRACE_SECONDS", "1")]).await;
    let closed = Arc::new(AtomicBool::new(false));
    let close = Arc::clone(&closed);
    started
        .drain
        .on_close("flag", async move { close.store(true, SeqCst) });
    let mut writer = started.entities().await;
    let write = tokio::spawn(async move { writer.set(entity()).await });
    started.service.arrived.acquire().await.unwrap().forget();

    let begun = Instant::now();
    started.drain.begin();
    started.running.ended().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(closed.load(SeqCst), "closers have their share of the time");
    write.abort();
}

#[tokio::test]
async fn the_end_that_came_before_the_beginning() {
    let started = start(&[]).await;
    started.drain.begin();
    started.running.ready().await;
    assert!(started.http("/readyz").await.starts_with("HTTP/1.1 503"));
    started.running.ended().await.unwrap();
}

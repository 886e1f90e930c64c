//! What the server says about itself.

use std::sync::atomic::Ordering;

use futures::{FutureExt as _, StreamExt as _};
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::{v1, v1alpha};

use stategate_server::{Tasks, Unfit};

use crate::support::{Fitness, Started, entity, start};

async fn status(client: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let service = service.to_owned();
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    answer.into_inner().status()
}

/// A watch of the process's health, which serves.
async fn watch(started: &Started) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(started.channel().await);
    let watched = client.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    let seen = watched.next().await.unwrap().unwrap().status();
    assert_eq!(seen, ServingStatus::Serving);
    watched
}

#[tokio::test]
async fn nothing_is_serving_before_it_is_ready() {
    let started = start(&[]).await;
    let mut client = HealthClient::new(started.channel().await);
    let names = ["", "stategate.EntityService", "stategate.EventService"];
    for name in names {
        assert_eq!(status(&mut client, name).await, ServingStatus::NotServing);
    }
    assert!(started.http("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(started.http("/healthz").await.starts_with("HTTP/1.1 200"));

    started.running.ready().await;
    for name in names {
        assert_eq!(status(&mut client, name).await, ServingStatus::Serving);
    }
    assert!(started.http("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(started.http("/metrics").await.starts_with("HTTP/1.1 200"));
    assert!(started.http("/nothing").await.starts_with("HTTP/1.1 404"));

    let nobody = HealthCheckRequest {
        service: "nobody".to_owned(),
    };
    let absent = client.check(nobody).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
}

#[tokio::test]
async fn what_a_service_does_without_is_told_and_it_stays_ready() {
    let started = start(&[]).await;
    let body = async || {
        let answer = started.http("/readyz").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.starts_with("HTTP/1.1 200"), body.to_owned())
    };
    started.service.is_degraded.store(true, Ordering::Relaxed);
    assert_eq!(body().await, (false, "not ready\n".to_owned()));
    started.running.ready().await;
    let degraded = "ready\ndegraded: a part\n";
    assert_eq!(body().await, (true, degraded.to_owned()));
    started.service.is_degraded.store(false, Ordering::Relaxed);
    assert_eq!(body().await, (true, "ready\n".to_owned()));
}

#[tokio::test]
async fn a_service_that_cannot_do_its_work_is_not_ready_and_says_why_until_it_can() {
    let started = start(&[]).await;
    started.running.ready().await;
    let mut client = HealthClient::new(started.channel().await);
    let watched = client.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watched = watched.into_inner();
    let mut next = async || watched.next().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::Serving);

    let unfit = |why: &str| Unfit {
        why: why.to_owned(),
        cause: "everything that is known".to_owned(),
        is_for_good: false,
    };
    let is = |fitness| *started.service.fitness.lock().unwrap() = fitness;
    for (fitness, why) in [
        (
            Fitness::Unfit(unfit("storage: is full")),
            "storage: is full\n",
        ),
        (Fitness::Silent, "the service does not answer how it is\n"),
    ] {
        is(fitness);
        assert_eq!(next().await, ServingStatus::NotServing);
        let answer = started.http("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with(&format!("not ready\n{why}")), "{answer}");
        assert!(!answer.contains("everything"), "{answer}");
        is(Fitness::Fit);
        assert_eq!(next().await, ServingStatus::Serving);
        assert!(started.http("/readyz").await.ends_with("\n\r\nready\n"));
    }
    assert!(!started.drain.has_begun());
}

/// One commit that takes long is no reason to be sent elsewhere.
#[tokio::test]
async fn one_question_without_an_answer_changes_nothing() {
    let started = start(&[]).await;
    started.running.ready().await;
    let mut watched = watch(&started).await;

    *started.service.fitness.lock().unwrap() = Fitness::SilentOnce;
    let before = started.service.asked.load(Ordering::Relaxed);
    // The one that is not answered, one that is, and one that begins when that was noted.
    while started.service.asked.load(Ordering::Relaxed) < before + 3 {
        assert!(started.http("/readyz").await.ends_with("\n\r\nready\n"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(watched.next().now_or_never().is_none(), "health said more");
}

#[tokio::test]
async fn a_service_that_never_can_again_ends_the_process_as_a_failure() {
    let started = start(&[]).await;
    started.running.ready().await;
    let mut writer = started.entities().await;
    let write = tokio::spawn(async move { writer.set(entity()).await });
    started.service.arrived.acquire().await.unwrap().forget();

    *started.service.fitness.lock().unwrap() = Fitness::Unfit(Unfit {
        why: "storage: has ended a part of itself".to_owned(),
        cause: String::new(),
        is_for_good: true,
    });
    started.drain.token().cancelled().await;
    let answer = started.http("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("ending: the services cannot go on: storage: has ended"),
        "{answer}"
    );

    started.service.answered.add_permits(1);
    let (ended, written) = tokio::join!(started.running.ended(), write);
    written.unwrap().unwrap();
    let failure = ended.unwrap_err().to_string();
    assert!(failure.contains("has ended a part of itself"), "{failure}");
}

#[tokio::test]
async fn an_essential_task_that_ends_ends_the_process_as_a_failure() {
    let started = start(&[]).await;
    started.running.ready().await;
    let task = Tasks::of(&started.drain).essential("a part", async { panic!("planted") });
    task.await.unwrap();
    let answer = started.http("/readyz").await;
    assert!(
        answer.ends_with("not ready\nending: a part panicked\n"),
        "{answer}"
    );
    let failure = started.running.ended().await.unwrap_err().to_string();
    assert!(failure.contains("a part panicked"), "{failure}");
}

#[tokio::test]
async fn a_watch_sees_the_end_coming_and_does_not_hold_it_up() {
    let started = start(&[]).await;
    started.running.ready().await;
    let mut watched = watch(&started).await;

    started.drain.begin();
    let ended = tokio::spawn(started.running.ended());
    let seen = watched.next().await.unwrap().unwrap().status();
    assert_eq!(seen, ServingStatus::NotServing);
    let end = watched.next().await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    use v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let started = start(&[]).await;
    let ask = |question| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let questions = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "stategate.EntityService".to_owned(),
        )),
    ]);
    let mut client = ServerReflectionClient::new(started.channel().await);
    let answers = client.server_reflection_info(questions).await.unwrap();
    let mut answers = answers.into_inner();
    let services = answers.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = services else {
        panic!("{services:?}");
    };
    let names: Vec<_> = services.service.into_iter().map(|s| s.name).collect();
    for name in [
        "stategate.EntityService",
        "stategate.EventService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    let file = answers.next().await.unwrap().unwrap().message_response;
    assert!(
        matches!(file, Some(MessageResponse::FileDescriptorResponse(_))),
        "{file:?}"
    );

    let question = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(started.channel().await);
    let answers = client.server_reflection_info(futures::stream::iter([question]));
    let mut answers = answers.await.unwrap().into_inner();
    assert!(answers.next().await.unwrap().is_ok());
}

//! gRPC over TLS.

use stategate_protocol::pb::entity_service_client::EntityServiceClient;
use stategate_server::{Config, Env, Server};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};

use crate::support::{entity_ref, start};

#[tokio::test]
async fn a_certificate_and_its_key_are_all_it_takes() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let started = start(&[
        ("STATEGATE_TLS_CERT_FILE", cert.to_str().unwrap()),
        ("STATEGATE_TLS_KEY_FILE", key.to_str().unwrap()),
    ])
    .await;

    let port = started.running.addresses().grpc.port();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    let channel = Channel::from_shared(format!("https://127.0.0.1:{port}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    EntityServiceClient::new(channel)
        .del(entity_ref())
        .await
        .unwrap();
    assert!(
        started.http("/readyz").await.starts_with("HTTP/1.1 503"),
        "health is in the clear"
    );
}

#[tokio::test]
async fn files_that_cannot_be_used_and_ports_that_are_taken_are_named() {
    let open = ("STATEGATE_AUTH_DISABLED", "true".to_owned());
    let host = ("STATEGATE_HOST", "127.0.0.1".to_owned());
    let free = ("STATEGATE_PORT", "0".to_owned());
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port().to_string();
    let no_pem = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").to_owned();
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let path = |ending| folder.path().join(format!("{name}.{ending}"));
        std::fs::write(path("cert"), made.cert.pem()).unwrap();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        ["cert", "key"].map(|ending| path(ending).display().to_string())
    };
    let ([cert_file, key_file], [_, other_key]) = (make("one"), make("other"));
    let tls = |cert: &str, key: &str| {
        let cert = ("STATEGATE_TLS_CERT_FILE", cert.to_owned());
        let key = ("STATEGATE_TLS_KEY_FILE", key.to_owned());
        vec![free.clone(), cert, key]
    };
    let (certificate, key) = ("STATEGATE_TLS_CERT_FILE", "STATEGATE_TLS_KEY_FILE");

    for (variables, named) in [
        (vec![("STATEGATE_PORT", taken)], "STATEGATE_PORT"),
        (tls("/nowhere.pem", &key_file), certificate),
        (tls(&no_pem, &key_file), certificate),
        (tls(&key_file, &cert_file), certificate),
        (tls(&cert_file, "/nowhere.pem"), key),
        (tls(&cert_file, &no_pem), key),
        (tls(&cert_file, &other_key), key),
    ] {
        let variables = variables.into_iter().chain([open.clone(), host.clone()]);
        let config = Config::read(&Env::of(variables), &[]).unwrap();
        let refused = Server::bind(&config).await.unwrap_err().to_string();
        assert!(refused.starts_with(named), "{refused}");
    }
}

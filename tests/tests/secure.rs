//! The command line over TLS, and with a token.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on ends"
)]

use std::{fs, path::Path};

use stategate_tests::{
    Cli, Form, Gateway, Options, Role,
    cli::{DONE, UNAVAILABLE, USAGE},
};

/// An authority, a certificate that it signed for `gateway.example`, and the certificate's key.
fn certificates(folder: &Path) -> [String; 3] {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut about = rcgen::CertificateParams::new(Vec::new()).unwrap();
    about.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = about.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(about, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let about = rcgen::CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
    let certificate = about.signed_by(&key, &issuer).unwrap();
    let files = [
        ("ca.pem", authority.pem()),
        ("cert.pem", certificate.pem()),
        ("key.pem", key.serialize_pem()),
    ];
    files.map(|(name, pem)| {
        let path = folder.join(name);
        fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[tokio::test]
async fn a_gateway_is_trusted_by_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let [authority, certificate, key] = certificates(folder.path());
    let options = Options::new(Form::One)
        .env("STATEGATE_TLS_CERT_FILE", certificate.as_str())
        .env("STATEGATE_TLS_KEY_FILE", key.as_str());
    let mut gateway = Gateway::start(options).await;
    let address = gateway.process(Role::Everything).grpc();
    let cli = Cli::new(&mut gateway);
    let over = |scheme: &str| format!("{scheme}://{address}");
    let token = folder.path().join("token");
    fs::write(&token, "abc.def\n").unwrap();
    let token = token.to_str().unwrap();
    let set = ["set", "d", "t", "k", "{}"];
    let run = |scheme: &str, more: &[&str]| {
        let address = over(scheme);
        let fixed = ["--addr", address.as_str(), "--timeout", "3s"];
        cli.run(&[&fixed[..], more, &set[..]].concat())
    };
    let trusting = ["--tls-ca", &authority, "--tls-name", "gateway.example"];
    run("https", &[&trusting[..], &["--token-file", token]].concat()).ends(DONE);
    // Another name, no authority, no TLS.
    run("https", &["--tls-ca", &authority]).ends(UNAVAILABLE);
    run("https", &["--tls-name", "gateway.example"]).ends(UNAVAILABLE);
    run("http", &[]).ends(UNAVAILABLE);
    // What cannot be used is named.
    run("https", &["--tls-ca", "/nowhere.pem"])
        .ends(USAGE)
        .says(&["--tls-ca", "/nowhere.pem"]);
    gateway.assert_no_errors();
}

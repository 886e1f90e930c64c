//! `stategate dev --auth`: tenants apart in a minute, with tokens that it prints and `stategate token`
//! makes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, with a message"
)]

use std::path::Path;

use stategate_tests::{
    Cli, Process, alone, binaries,
    cli::{REFUSED, USAGE},
};
use tempfile::TempDir;

/// Starts it on this file; the tokens that it printed, of Alice and of Bob.
async fn start(data: &Path) -> (Process, [String; 2]) {
    let folder = data.parent().unwrap();
    let file = data.to_str().unwrap();
    let arguments = ["dev", "--auth", "--port", "0", "--data", file];
    let program = binaries::find("stategate");
    let process = Process::start("stategate", &program, &arguments, &[], folder).await;
    let ends = |line: &str| line == "Ctrl-C ends it.";
    process.line(0, "says what to try", ends).await;
    let tokens = ["ALICE", "BOB"].map(|name| {
        let said = process.said(&format!("  export {name}="));
        said.first().expect("a token").clone()
    });
    (process, tokens)
}

fn with_token(process: &Process, token: &str) -> Cli {
    Cli::at(process.grpc()).with("STATEGATE_TOKEN", token)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_does_not_read_search_or_stream_the_state_of_another() {
    let _turn = alone().await;
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("try.db");
    let (mut process, [alice, bob]) = start(&data).await;
    let (acme, globex) = (with_token(&process, &alice), with_token(&process, &bob));

    acme.run(&["set", "acme", "user", "ada", r#"{"name": "Ada"}"#])
        .ends(0);
    globex
        .run(&["set", "globex", "user", "gil", r#"{"name": "Gil"}"#])
        .ends(0);
    let history = acme.line(&["history", "acme", "user", "ada", "--ndjson"]);
    assert_eq!(history["claims"]["sub"], "alice", "{history}");
    assert_eq!(history["claims"]["tenant"], "acme", "{history}");
    let seen = acme.line(&[
        "watch",
        "--domain",
        "acme",
        "--from",
        "beginning",
        "--limit",
        "1",
    ]);
    assert_eq!(seen["claims"]["sub"], "alice", "{seen}");

    // Every command that asks a gateway for something, by whoever may not have it.
    let export = folder.path().join("export.ndjson");
    let export = export.to_str().unwrap();
    let asked: [&[&str]; 13] = [
        &["get", "acme", "user", "ada"],
        &["set", "acme", "user", "ada", "{}"],
        &["edit", "acme", "user", "ada", "{}"],
        &["del", "acme", "user", "ada"],
        &["revert", "acme", "user", "ada", "--version", "1"],
        &["history", "acme", "user", "ada"],
        &["diff", "acme", "user", "ada", "1"],
        &["search", "acme", "user"],
        &["events", "acme", "user"],
        &["watch", "--domain", "acme", "--limit", "1"],
        &["watch", "--limit", "1"],
        &["stats"],
        &["export", "acme", "--out", export, "--overwrite"],
    ];
    for arguments in asked {
        let refused = globex.run(arguments).ends(REFUSED);
        assert!(
            !refused.stdout.contains("Ada"),
            "{arguments:?}: {}",
            refused.stdout
        );
        assert!(
            !refused.stderr.contains("Ada"),
            "{arguments:?}: {}",
            refused.stderr
        );
        let nobody = Cli::at(process.grpc()).run(arguments).ends(REFUSED);
        assert!(
            nobody.stderr.contains("--token-file"),
            "{arguments:?}: {}",
            nobody.stderr
        );
        // The same commands are permitted, or fail for another reason, with the token of that tenant.
    }
    let kept = acme.line(&["get", "acme", "user", "ada"]);
    assert_eq!(kept["values"]["name"], "Ada");

    // The keys are where whoever has to verify a token finds them.
    let shown = process.http("/.well-known/jwks.json").await.unwrap();
    let file = std::fs::read_to_string(folder.path().join("try.db.auth/jwks.json")).unwrap();
    assert!(shown.ends_with(&file), "{shown}");

    // A second start has the same key.
    process.terminate();
    process.gone().await;
    let (process, _) = start(&data).await;
    let acme = with_token(&process, &alice);
    assert_eq!(
        acme.line(&["get", "acme", "user", "ada"])["values"]["name"],
        "Ada"
    );
    process.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_one_s_own_making_is_accepted() {
    let _turn = alone().await;
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("try.db");
    let nowhere = Cli::at(([127, 0, 0, 1], 9).into());
    let carol = [
        "token", "--sub", "carol", "--tenant", "acme", "--claim", "level=3", "--data",
    ];
    let carol: Vec<&str> = carol.into_iter().chain([data.to_str().unwrap()]).collect();
    nowhere
        .run(&carol)
        .ends(USAGE)
        .says(&["stategate dev --auth"]);
    let (process, _) = start(&data).await;
    let made = nowhere.run(&carol).ends(0);
    let token = made.stdout.trim_end();
    assert_eq!(made.stdout, format!("{token}\n"));

    let file = folder.path().join("token");
    std::fs::write(&file, &made.stdout).unwrap();
    let cli = Cli::at(process.grpc()).with("STATEGATE_TOKEN_FILE", file.to_str().unwrap());
    cli.run(&["set", "acme", "user", "ada", "{}"]).ends(0);
    let event = cli.line(&["history", "acme", "user", "ada", "--ndjson"]);
    assert_eq!(event["claims"]["level"], 3, "{event}");
    let of_another = [
        "token",
        "--sub",
        "carol",
        "--tenant",
        "globex",
        "--data",
        data.to_str().unwrap(),
    ];
    let of_another = nowhere.run(&of_another).ends(0);
    let refused = with_token(&process, of_another.stdout.trim());
    refused.run(&["get", "acme", "user", "ada"]).ends(REFUSED);
    process.terminate();
}

//! Writes, reads, changes, watches and takes back. Start a gateway with `stategate dev` first.

use stategate_client::{
    At, Client, Condition, EntityRef, Start, Subscription, Transaction, Version, json,
};

#[tokio::main]
async fn main() -> Result<(), stategate_client::Error> {
    let address = std::env::var("STATEGATE_ADDR").unwrap_or("http://127.0.0.1:8080".to_owned());
    let client = Client::connect(address)?;
    let ada = EntityRef::new("quickstart", "user", "ada")?;
    let bob = EntityRef::new("quickstart", "user", "bob")?;

    // Everything from here on is seen by this subscription, once and in order.
    let subscription = Subscription::new("quickstart", "*")
        .key("{ada,bob}")
        .from(Start::Live);
    let mut changes = client.subscribe(subscription).await?;

    client
        .set(&ada, json!({ "name": "Ada", "credits": 10 }))
        .await?;
    client
        .set(&bob, json!({ "name": "Bob", "credits": 0 }))
        .await?;

    // Read, change, write; again if somebody else was faster.
    client
        .update(&ada, |values| {
            let credits = values["credits"].as_i64().unwrap_or(0);
            values["credits"] = json!(credits + 5);
        })
        .await?;

    // Both or neither, and only if Ada is as she was when she was read.
    let read = client.get(&ada).await?;
    let transfer = Transaction::new("quickstart")
        .edit_if(
            Condition::Version(read.version),
            &ada,
            json!({ "credits": 0 }),
        )?
        .edit(&bob, json!({ "credits": 15 }))?;
    client.transact(transfer).await?;

    // The past is all there.
    let first = client
        .event_of_version(&ada, Version::new(read.version.get() - 1))
        .await?;
    assert_eq!(
        client.get_at(&ada, At::Time(first.time)).await?.values["credits"],
        10
    );
    client.del(&ada).await?;
    let back = client.revert(&ada, first.id).await?;
    assert_eq!(back.values["credits"], 10);

    for _ in 0..7 {
        let event = changes.next().await?;
        println!(
            "{} version {}: {}",
            event.entity, event.version, event.method
        );
    }
    if let Some(token) = changes.token() {
        println!("a subscription after {token} goes on from here");
    }
    Ok(())
}

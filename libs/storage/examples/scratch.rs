use rusqlite::Connection;
use stategate_model::*;
use stategate_storage::*;
use std::{sync::Arc, time::Instant};
#[tokio::main]
async fn main() {
    let n: u64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let versions: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("a.db");
    let store = Arc::new(
        Sqlite::open(&SqliteConfig {
            path: path.clone(),
            lanes: None,
        })
        .await
        .unwrap(),
    );
    let mut pos = 0u64;
    for v in 1..=versions {
        let mut k = 0;
        while k < n {
            let mut events = vec![];
            let exp = Position::new(pos);
            for _ in 0..1000.min(n - k) {
                pos += 1;
                events.push(Event{ id: EventId::random(), entity: EntityRef::new("accounting","invoice",&format!("invoice-{k:08}")).unwrap(), values: Values::from_canonical(format!(r#"{{"amount":{},"customer":"customer-{}","state":"open","tags":["a","b"]}}"#, k, k%977)), version: Version::new(v), lane: Lane(0), position: Position::new(pos), time: Timestamp(pos as i64), method: Method::Set, claims: Claims::none(), trace_parent: None});
                k += 1;
            }
            store
                .append(
                    Lane(0),
                    exp,
                    Arc::new(Batch {
                        events,
                        keys: vec![],
                    }),
                )
                .await
                .unwrap();
        }
    }
    for filter in [r#"{"amount":-1}"#, ""] {
        for sort in [
            None,
            Some(Sort {
                path: Path::parse_entity("s", "customer").unwrap(),
                reverse: true,
            }),
        ] {
            let q = EntityQuery {
                of: KindRef::new("accounting", "invoice").unwrap(),
                filter: Filter::parse_entity(filter).unwrap(),
                sort: sort.clone(),
                page: PageRequest::new(100, 0, None).unwrap(),
            };
            let t = Instant::now();
            for _ in 0..3 {
                store.search_entities(&q).await.unwrap();
            }
            println!(
                "entities {filter} sort {}: {:?}",
                sort.is_some(),
                t.elapsed() / 3
            );
        }
    }
    for filter in [
        r#"{"entity.values.amount":-1}"#,
        "",
        r#"{"entity.key":"invoice-00000007"}"#,
    ] {
        for sort in [
            None,
            Some(Sort {
                path: Path::parse_event("s", "time").unwrap(),
                reverse: true,
            }),
            Some(Sort {
                path: Path::parse_event("s", "entity.values.customer").unwrap(),
                reverse: true,
            }),
        ] {
            let q = EventQuery {
                of: KindRef::new("accounting", "invoice").unwrap(),
                filter: Filter::parse_event(filter).unwrap(),
                min: None,
                max: None,
                sort: sort.clone(),
                page: PageRequest::new(100, 0, None).unwrap(),
            };
            let t = Instant::now();
            for _ in 0..3 {
                store.search_events(&q).await.unwrap();
            }
            println!(
                "events {filter} sort {:?}: {:?}",
                sort.as_ref().map(|s| s.path.segments().join(".")),
                t.elapsed() / 3
            );
        }
    }
    let c = Connection::open(&path).unwrap();
    let t = Instant::now();
    c.query_row("select count(*) from (select key, max(version), vals from events where domain='accounting' and type='invoice' group by key having json_extract(vals,'$.amount') = -1)", [], |r| r.get::<_,i64>(0)).unwrap();
    println!("sql json_extract group by: {:?}", t.elapsed());
    c.execute_batch("create table entities(domain text, type text, key text, version integer, seq integer, deleted integer, primary key(domain,type,key)) without rowid; insert into entities select domain,type,key,max(version),seq,0 from events group by 1,2,3").unwrap();
    let t = Instant::now();
    let mut st = c.prepare("select n.key, n.version, e.vals from entities n join events e on e.seq=n.seq where n.domain='accounting' and n.type='invoice' and not deleted order by n.key").unwrap();
    let mut rows = st.query([]).unwrap();
    let mut x = 0;
    while let Some(r) = rows.next().unwrap() {
        let v: &str = r.get_ref(2).unwrap().as_str().unwrap();
        let v = Values::from_canonical(v);
        x += v.object().unwrap().len();
    }
    println!("entities table join + parse: {:?} {x}", t.elapsed());
    drop(rows);
    // gets
    let t = Instant::now();
    let m = 200_000u64;
    let mut st = c.prepare("SELECT version, vals FROM events WHERE domain = ?1 AND type = ?2 AND key = ?3 ORDER BY version DESC LIMIT 1").unwrap();
    for i in 0..m {
        let k = (i * 7919) % n;
        let key = format!("invoice-{k:08}");
        st.query_row(("accounting", "invoice", &key), |r| {
            let v: String = r.get(1)?;
            x += v.len();
            Ok(())
        })
        .unwrap();
    }
    let raw = m as f64 / t.elapsed().as_secs_f64();
    println!("raw select/s {raw:.0}");
    for tasks in [1u64, 8, 64, 256] {
        let t = Instant::now();
        let m = if tasks == 1 { 20_000 } else { 200_000 };
        let mut hs = vec![];
        for task in 0..tasks {
            let store = store.clone();
            hs.push(tokio::spawn(async move {
                for i in 0..m / tasks {
                    let k = ((i * tasks + task) * 7919) % n;
                    let e = EntityRef::new("accounting", "invoice", &format!("invoice-{k:08}"))
                        .unwrap();
                    assert!(store.get(&e).await.unwrap().value.values.is_some());
                }
            }));
        }
        for h in hs {
            h.await.unwrap();
        }
        let rate = m as f64 / t.elapsed().as_secs_f64();
        println!("get/s with {tasks}: {rate:.0} ({:.2} of raw)", rate / raw);
    }
    let t = Instant::now();
    for _ in 0..2000 {
        store.heads().await.unwrap();
    }
    println!("heads {:?}", t.elapsed() / 2000);
    let mut after = Position::ZERO;
    let t = Instant::now();
    loop {
        let e = store
            .read_log(
                Lane(0),
                after,
                ReadLimit {
                    events: 1000,
                    bytes: 1 << 20,
                },
            )
            .await
            .unwrap();
        match e.last() {
            Some(l) => after = l.position,
            None => break,
        }
    }
    println!(
        "read_log {:.0} ev/s",
        pos as f64 / t.elapsed().as_secs_f64()
    );
    store.close().await;
}

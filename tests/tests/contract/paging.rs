//! Page tokens and the size of pages (contract §§4, 5).

use std::collections::HashSet;

use prost::Message as _;
use stategate_protocol::pb::{self, Sort};
use stategate_tests::{Ask, ask::invalid};

use crate::in_every_form;

const PAGE: usize = 3 << 20;

fn opts(limit: i32, sort: Option<(&str, bool)>) -> pb::SearchEntityOpts {
    pb::SearchEntityOpts {
        domain: "d".into(),
        r#type: "t".into(),
        query_string: r#"{"n":{"$exists":true}}"#.into(),
        limit,
        sort: sort.map(|(field, reverse)| Sort {
            field: field.into(),
            reverse,
        }),
        ..pb::SearchEntityOpts::default()
    }
}

/// All pages, doing something between each two.
async fn pages(
    ask: &Ask,
    mut opts: pb::SearchEntityOpts,
    between: impl AsyncFn(usize),
) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = ask.search(opts.clone()).await.unwrap().into_inner();
        let keys = page.entities.into_iter().map(|entity| entity.key);
        pages.push(keys.collect());
        if page.next_page_token.is_empty() {
            return pages;
        }
        opts.page_token = page.next_page_token;
        between(pages.len()).await;
    }
}

#[tokio::test]
async fn pages_neither_skip_nor_repeat_what_did_not_change() {
    in_every_form(async |ask| {
        let all = 60;
        for n in 0..all {
            // Ties and mixed kinds, so that the place of a page's end is no plain number.
            let values = match n % 3 {
                0 => format!(r#"{{"n":{}}}"#, n / 12),
                1 => format!(r#"{{"n":"{}"}}"#, n / 12),
                _ => r#"{"n":null}"#.to_owned(),
            };
            ask.set(&format!("d/t/{n:03}"), &values).await.unwrap();
        }
        let sorts = [
            None,
            Some(("n", false)),
            Some(("n", true)),
            Some(("missing", true)),
        ];
        let mut count = 0;
        for (sorting, sort) in sorts.into_iter().enumerate() {
            let whole = pages(&ask, opts(10_000, sort), async |_| {}).await;
            assert_eq!(whole.len(), 1);
            for limit in [1, 7, 59, 60] {
                let found = pages(&ask, opts(limit, sort), async |_| {}).await;
                let size = usize::try_from(limit).unwrap();
                assert!(found.iter().all(|page| page.len() <= size));
                assert_eq!(found.len(), 60_usize.div_ceil(size));
                assert_eq!(found.concat(), whole[0], "{sort:?} by {limit}");
                count += found.len();
            }

            // While others come, go and change around it.
            let found = pages(&ask, opts(7, sort), async |page| {
                for other in ["!", "030-", "~"] {
                    let name = format!("d/t/{other}{sorting}-{page}");
                    ask.set(&name, r#"{"n":2}"#).await.unwrap();
                }
                if page > 2 {
                    let name = format!("d/t/030-{sorting}-{}", page - 2);
                    ask.del(&name).await.unwrap();
                }
            })
            .await
            .concat();
            let stable: Vec<_> = found.iter().filter(|key| key.len() == 3).collect();
            assert_eq!(stable, whole[0].iter().collect::<Vec<_>>(), "{sort:?}");
            let others: HashSet<_> = found.iter().collect();
            assert_eq!(others.len(), found.len(), "nothing twice");
            for other in pages(&ask, opts(10_000, None), async |_| {}).await.concat() {
                if other.len() > 3 {
                    ask.del(&format!("d/t/{other}")).await.unwrap();
                }
            }
        }
        println!("{count} pages");
    })
    .await;
}

#[tokio::test]
async fn the_place_of_a_page_outlives_its_last_item() {
    in_every_form(async |ask| {
        for n in 0..9 {
            ask.set(&format!("d/t/{n:03}"), &format!(r#"{{"n":{n}}}"#))
                .await
                .unwrap();
        }
        for sort in [None, Some(("n", false))] {
            let found = pages(&ask, opts(3, sort), async |page| {
                let last = format!("d/t/{:03}", page * 3 - 1);
                ask.del(&last).await.unwrap();
            })
            .await;
            assert_eq!(found.concat().len(), 9, "{found:?}");
            for n in [2, 5] {
                ask.set(&format!("d/t/{n:03}"), &format!(r#"{{"n":{n}}}"#))
                    .await
                    .unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_token_belongs_to_its_request() {
    in_every_form(async |ask| {
        for n in 0..9 {
            let values = format!(r#"{{"n":{n}}}"#);
            ask.set(&format!("d/t/{n:03}"), &values).await.unwrap();
            ask.set(&format!("d/u/{n:03}"), &values).await.unwrap();
            ask.set(&format!("e/t/{n:03}"), &values).await.unwrap();
        }
        let first = ask.search(opts(3, None)).await.unwrap().into_inner();
        let page_token = first.next_page_token.clone();
        assert!(!page_token.is_empty());
        let good = || pb::SearchEntityOpts {
            page_token: page_token.clone(),
            ..opts(3, None)
        };
        // How much is wanted may change between pages.
        let more = pb::SearchEntityOpts {
            limit: 100,
            ..good()
        };
        let more = ask.search(more).await.unwrap().into_inner();
        assert_eq!((more.entities.len(), &*more.entities[0].key), (6, "003"));

        let sort = |field: &str, reverse| {
            Some(Sort {
                field: field.into(),
                reverse,
            })
        };
        let others = [
            pb::SearchEntityOpts {
                domain: "e".into(),
                ..good()
            },
            pb::SearchEntityOpts {
                r#type: "u".into(),
                ..good()
            },
            pb::SearchEntityOpts {
                query_string: String::new(),
                ..good()
            },
            pb::SearchEntityOpts {
                query_string: r#"{"n":1}"#.into(),
                ..good()
            },
            pb::SearchEntityOpts {
                sort: sort("n", false),
                ..good()
            },
            pb::SearchEntityOpts {
                page_token: "x".into(),
                ..good()
            },
            pb::SearchEntityOpts {
                page_token: page_token[1..].to_owned(),
                ..good()
            },
            pb::SearchEntityOpts {
                page_token: page_token[..page_token.len() - 4].to_owned(),
                ..good()
            },
            pb::SearchEntityOpts {
                page_token: format!("{page_token}AAAA"),
                ..good()
            },
        ];
        for other in others {
            invalid(ask.search(other).await, "page_token");
        }
        let offset = pb::SearchEntityOpts {
            offset: 1,
            ..good()
        };
        invalid(ask.search(offset).await, "offset");
        let forward = ask
            .search(opts(3, Some(("n", false))))
            .await
            .unwrap()
            .into_inner();
        let backward = pb::SearchEntityOpts {
            page_token: forward.next_page_token,
            ..opts(3, Some(("n", true)))
        };
        invalid(ask.search(backward).await, "page_token");

        // Nor does it belong to the other search, and that one's has as many bindings.
        let events = |page_token: &str| pb::SearchEventOpts {
            domain: "d".into(),
            r#type: "t".into(),
            limit: 3,
            page_token: page_token.to_owned(),
            ..pb::SearchEventOpts::default()
        };
        invalid(ask.history(events(&page_token)).await, "page_token");
        let page = ask.history(events("")).await.unwrap().into_inner();
        let good = || events(&page.next_page_token);
        let next = ask.history(good()).await.unwrap().into_inner();
        let last = page.events[2].position;
        let is_after = |event: &pb::Event| event.position > last;
        assert!(next.events.len() == 3 && next.events.iter().all(is_after));
        let max = next.events[2].time;
        let others = [
            pb::SearchEventOpts { min: 1, ..good() },
            pb::SearchEventOpts { max, ..good() },
            pb::SearchEventOpts {
                query_string: "{}".into(),
                ..good()
            },
            pb::SearchEventOpts {
                sort: sort("position", true),
                ..good()
            },
            pb::SearchEventOpts {
                r#type: "u".into(),
                ..good()
            },
        ];
        for other in others {
            invalid(ask.history(other).await, "page_token");
        }
    })
    .await;
}

/// Two bytes a number as JSON, eleven on the wire.
fn numbers(count: usize) -> String {
    format!(r#"{{"n":[{}1]}}"#, "1,".repeat(count - 1))
}

#[tokio::test]
async fn a_page_ends_at_three_mebibytes_on_the_wire() {
    in_every_form(async |ask| {
        let mut sizes = Vec::new();
        for (key, count) in [
            ("a", 40_000),
            ("b", 80_000),
            ("c", 160_000),
            ("d", 240_000),
            ("e", 350_000),
            ("f", 5),
            ("g", 120_000),
            ("h", 160_000),
            ("i", 1),
        ] {
            ask.set(&format!("d/t/{key}"), &numbers(count))
                .await
                .unwrap();
            sizes.push(count * 11);
        }
        for sort in [None, Some(("missing", false)), Some(("missing", true))] {
            let mut request = opts(0, sort);
            let mut found = String::new();
            let mut pages = 0;
            loop {
                // The client takes no more than 4 MiB, which is what clients take by default.
                let page = ask.search(request.clone()).await.unwrap().into_inner();
                let size = page.encoded_len();
                assert!(
                    size <= PAGE + 1_024 || page.entities.len() == 1,
                    "{size} bytes of {} entities",
                    page.entities.len()
                );
                found.extend(page.entities.iter().map(|entity| entity.key.as_str()));
                pages += 1;
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let expected = match sort {
                Some((_, true)) => "ihgfedcba",
                _ => "abcdefghi",
            };
            assert_eq!(found, expected);
            assert!(pages >= 4, "{pages} pages");
        }

        let mut request = pb::SearchEventOpts {
            domain: "d".into(),
            r#type: "t".into(),
            ..pb::SearchEventOpts::default()
        };
        let mut positions = Vec::new();
        loop {
            let page = ask.history(request.clone()).await.unwrap().into_inner();
            let size = page.encoded_len();
            assert!(
                size <= PAGE + 1_024 || page.events.len() == 1,
                "{size} bytes"
            );
            positions.extend(page.events.iter().map(|event| event.position));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        assert_eq!(positions, (1..=9).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn many_large_entities_are_found_page_by_page() {
    in_every_form(async |ask| {
        let text = format!(r#"{{"n":"{}"}}"#, "x".repeat(700_000));
        for n in 0..12 {
            ask.set(&format!("d/t/{n:03}"), &text).await.unwrap();
        }
        let found = pages(&ask, opts(10_000, None), async |_| {}).await;
        assert!(found.iter().all(|page| page.len() <= 4), "{found:?}");
        assert_eq!(found.concat().len(), 12);
    })
    .await;
}

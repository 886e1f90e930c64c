//! Filters: the hand-checked corpus of the model, asked of the store.

use stategate_model::{
    Filter, KindRef, Method,
    filter::corpus::{self, Expected},
};

use super::world::{World, by_event, by_value, entity, entity_query, event_query, values};

pub(super) async fn entity_filters_mean_what_the_contract_says(world: World) {
    let mut draft = world.next().await;
    // What was before, and what was deleted, matches nothing.
    for (key, json) in corpus::documents() {
        draft
            .set(&entity(key), r#"{"g":"old","v":1,"t":"a","l":[1]}"#)
            .await;
        draft.set(&entity(key), json).await;
        let gone = entity(&format!("gone-{key}"));
        draft.set(&gone, json).await;
        draft.del(&gone).await;
    }
    draft.commit().await;
    let (mut answered, mut refused) = (0, 0);
    for case in corpus::cases() {
        match (Filter::parse_entity(case.filter), case.expect) {
            (Ok(filter), Expected::Keys(expected)) => {
                let mut query = entity_query("");
                query.filter = filter;
                assert_eq!(world.keys(&query).await, expected, "{}", case.filter);
                query.sort = by_value("v", true);
                let mut sorted = world.keys(&query).await;
                sorted.sort();
                assert_eq!(sorted, expected, "{}, sorted", case.filter);
                answered += 1;
            }
            (Err(_), Expected::Refused(_)) => refused += 1,
            (parsed, expected) => panic!("{}: {parsed:?}, not {expected:?}", case.filter),
        }
    }
    assert!(
        answered >= 100,
        "only {answered} filters asked, {refused} refused"
    );
}

/// The corpus's events have places that no log gives, so what is stored is alike but for those; the
/// evaluator, which the corpus holds to its word, says what each filter finds in it.
pub(super) async fn event_filters_mean_what_the_contract_says(world: World) {
    let mut kinds = Vec::new();
    for (_, like) in corpus::events().unwrap() {
        let mut draft = world.draft(world.lane_of(&like.entity)).await;
        draft
            .event(like.method, &like.entity, like.values.clone())
            .await;
        let last = draft.last();
        (last.id, last.claims) = (like.id, like.claims.clone());
        // And one that differs from it.
        draft
            .event(Method::Set, &like.entity, values(r#"{"n":7}"#))
            .await;
        draft.commit().await;
        kinds.push(KindRef::new(like.entity.domain(), like.entity.kind()).unwrap());
    }
    let (mut found, mut asked) = (0, 0);
    for case in corpus::event_cases() {
        let Ok(filter) = Filter::parse_event(case.filter) else {
            assert!(
                matches!(case.expect, Expected::Refused(_)),
                "{}",
                case.filter
            );
            continue;
        };
        for of in &kinds {
            let mut query = event_query("");
            (query.of, query.filter) = (of.clone(), filter.clone());
            let mut log = world.log(world.lanes().of(of.domain.as_str())).await;
            log.retain(|event| {
                event.entity.domain() == of.domain.as_str()
                    && event.entity.kind() == of.kind.as_str()
                    && filter.matches_event(event).unwrap()
            });
            assert_eq!(world.events(&query).await.items, log, "{}", case.filter);
            query.sort = by_event("id", false);
            assert_eq!(
                world.events(&query).await.items.len(),
                log.len(),
                "{}",
                case.filter
            );
            found += log.len();
            asked += 1;
        }
    }
    assert!(asked >= 100 && found >= 100, "asked {asked}, found {found}");
}

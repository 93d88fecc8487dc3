//! Why a call would go where it would go.

use super::*;
use crate::forward::ExplainAsk;
use crate::routing::EndpointId;

#[test]
fn it_says_what_would_be_chosen_and_changes_nothing() {
    let (mut world, links): (World, [LinkKey; 2]) = World::several(0, idempotent);
    world.view(links[0], View::Down, 0);
    let ask = ExplainAsk { user_id: "alice".to_owned(), ..ExplainAsk::default() };
    let answers: Vec<_> = (0..3).map(|_| world.forwarder.explain(world.now, &ask).unwrap()).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    let answer = &answers[0];
    assert_eq!(answer.explanation.chosen.map(|(id, _)| id), Ok(EndpointId(2)));
    assert_eq!(answer.explanation.endpoints.len(), 2);
    assert!(!answer.explanation.endpoints[0].usable && answer.explanation.endpoints[1].usable);
    assert!(answer.retry.contains("up to 2 times"), "{}", answer.retry);
    assert_eq!((answer.canary, answer.pinned), (false, None));
    assert!(world.forwarder.explain(world.now, &ExplainAsk { service: ServiceId(7), ..ask }).is_none());
}

#[test]
fn it_says_where_a_session_keeps_to() {
    let (mut world, links) = World::two(0);
    world.ask_as(9, ORDERED, b"");
    let (on, _) = world.call_on_any(&links);
    let ask = ExplainAsk { route: RouteId(1), session_id: vec![9; 16], ..ExplainAsk::default() };
    let answer = world.forwarder.explain(world.now, &ask).unwrap();
    assert_eq!(answer.pinned, Some(EndpointId([1, 2][on])));
    assert!(answer.retry.contains("not executed"), "{}", answer.retry);
}

#[test]
fn call_before_the_first_link_is_explained_as_waiting() {
    let ask = ExplainAsk::default();
    let explained = |world: &World| world.forwarder.explain(world.now, &ask).unwrap().is_awaiting_link;
    let mut world = World::new(1);
    assert!(explained(&world), "never linked");
    world.ask(b"1");
    assert_eq!((world.settled(), world.forwarder.calls()), (vec![], 1), "which is what happens");
    let (mut world, link) = World::ready(1);
    assert!(!explained(&world), "linked");
    world.forwarder.link_lost(world.now, link, &"gone");
    assert!(!explained(&world), "lost");
    let ticket = world.ask(b"2");
    assert_eq!(world.settled(), [(ticket, no_endpoint())], "which is what happens");
}

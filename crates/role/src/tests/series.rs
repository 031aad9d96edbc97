use super::*;

const NEWER: Series = (9, 7);

fn peer(node: NodeId, healthy: bool, series: Series) -> Candidate {
    Candidate {
        node,
        healthy,
        behind: 0,
        series,
    }
}

#[test]
fn a_newer_server_leaves_leadership_to_an_older_one_until_it_comes_back() {
    let mut node = Node::replica();
    node.step(Input::Series(NEWER));
    node.step(Input::Peers(vec![
        peer(NodeId(3), true, NEWER),
        peer(OTHER, false, SERIES),
    ]));
    node.step(Input::Peers(vec![
        peer(NodeId(3), true, NEWER),
        peer(OTHER, true, SERIES),
    ]));
    let transfer = Effect::Transfer {
        leader: leader(3, ME),
        to: OTHER,
    };
    let effects = node.lead(3);
    assert!(effects.contains(&transfer), "{effects:?}");
    node.follow(4);
    // The older one could not take it: better a newer primary than none, and that is said.
    node.now += ms(600);
    assert_eq!(node.lead(5), [propose(5, None)]);
    let (_, effects) = node.apply(leader(5, ME), None);
    assert_eq!(effects, [propose(5, Some(ME))]);
    let (_, effects) = node.apply(leader(5, ME), Some(ME));
    assert!(
        matches!(&effects[0], Effect::Report(why) if why.contains("node 2 runs 8.4")),
        "{effects:?}"
    );
    assert!(matches!(starts(&effects), Some(Job::Promote { .. })));
}

#[test]
fn an_older_server_is_promoted_and_takes_no_order_to_make_a_newer_one_primary() {
    let (mut node, _) = Node::primary();
    node.step(Input::Series(SERIES));
    node.step(Input::Peers(vec![peer(OTHER, true, NEWER)]));
    assert_eq!(node.step(Input::Switchover { to: OTHER }), []);
    // It is the only one left when this one ends, and is given leadership then.
    assert!(transfers(&node.step(Input::Server(ServerEvent::Exited))));
}

#[test]
fn leadership_goes_to_the_oldest_series_before_it_goes_to_the_nearest() {
    let (mut node, _) = Node::primary();
    node.step(Input::Series(NEWER));
    let far = Candidate {
        behind: 9,
        ..peer(NodeId(3), true, SERIES)
    };
    node.step(Input::Peers(vec![peer(OTHER, true, NEWER), far]));
    let effects = node.step(Input::Server(ServerEvent::Exited));
    assert!(effects.contains(&Effect::Transfer {
        leader: leader(3, ME),
        to: NodeId(3)
    }));
}

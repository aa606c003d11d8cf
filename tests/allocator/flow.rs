//! The solver alone: the references' graphs, and objectives that follow each other.

use raft_autopilot::allocator::flow::{Arc, Network};

fn network(nodes: usize, arcs: &[(usize, usize, i64)]) -> (Network, Vec<Arc>) {
    let mut network = Network::new(nodes);
    let arcs = arcs.iter().map(|(from, to, cap)| network.add_arc(*from, *to, *cap)).collect();
    (network, arcs)
}

fn flows(network: &Network, arcs: &[Arc]) -> Vec<i64> {
    arcs.iter().map(|arc| network.flow(*arc)).collect()
}

#[test]
fn the_first_graph_of_the_reference_carries_fourteen() {
    // S 0, T 1, A 2, B 3, C 4, D 5
    let arcs = [
        (0, 2, 15),
        (0, 4, 4),
        (2, 3, 12),
        (3, 4, 3),
        (3, 1, 7),
        (4, 5, 10),
        (5, 2, 5),
        (5, 1, 10),
    ];
    let (mut network, arcs) = network(6, &arcs);
    assert_eq!(network.max_flow(0, 1), 14);
    assert_eq!(flows(&network, &arcs), [10, 4, 10, 3, 7, 7, 0, 7]);
}

#[test]
fn the_second_graph_of_the_reference_carries_five() {
    // S 0, T 1, O 2, P 3, Q 4, R 5
    let arcs =
        [(0, 2, 3), (0, 3, 3), (2, 4, 3), (2, 3, 2), (3, 5, 2), (4, 1, 2), (4, 5, 4), (5, 1, 3)];
    let (mut network, arcs) = network(6, &arcs);
    assert_eq!(network.max_flow(0, 1), 5);
    assert_eq!(flows(&network, &arcs), [3, 2, 3, 0, 2, 2, 1, 3]);
}

#[test]
fn an_arc_into_a_full_node_carries_what_the_node_can_pass_on() {
    let mut arcs: Vec<(usize, usize, i64)> = (2..5).map(|node| (0, node, 1)).collect();
    arcs.extend((2..5).map(|node| (node, 5, 1)));
    arcs.push((5, 1, 1));
    let (mut narrow, _) = network(6, &arcs);
    assert_eq!(narrow.max_flow(0, 1), 1);
    arcs.pop();
    arcs.push((5, 1, 2));
    let (mut wide, _) = network(6, &arcs);
    assert_eq!(wide.max_flow(0, 1), 2);
}

#[test]
fn a_later_objective_chooses_among_the_best_of_an_earlier_one() {
    // Three ways of one unit each; two units are to be sent.
    let list = [(0, 2, 2), (2, 3, 1), (2, 4, 1), (2, 5, 1), (3, 1, 1), (4, 1, 1), (5, 1, 1)];
    let (mut network, arcs) = network(6, &list);
    assert_eq!(network.max_flow(0, 1), 2);
    // The first way costs one; the other two are equal, so both are taken.
    assert_eq!(network.minimise(&[0, 1]), 0);
    assert_eq!(flows(&network, &arcs)[1..4], [0, 1, 1]);
    // Nothing that comes later brings the first way back.
    assert_eq!(network.minimise(&[0, -5, 1, 1]), 2);
    assert_eq!(flows(&network, &arcs)[1..4], [0, 1, 1]);
}

#[test]
fn a_cheaper_cycle_is_found_though_the_flow_is_the_largest() {
    // 0 -> 2 -> 1 directly, or by 3, which pays back.
    let list = [(0, 2, 4), (2, 1, 4), (2, 3, 3), (3, 1, 2)];
    let (mut network, arcs) = network(4, &list);
    assert_eq!(network.max_flow(0, 1), 4);
    assert_eq!(network.minimise(&[0, 2, 1, -3]), 4 + 2 - 6);
    assert_eq!(flows(&network, &arcs), [4, 2, 2, 2]);
}

#[test]
fn what_is_sent_first_stays_where_it_can() {
    let list = [(0, 2, 1), (2, 3, 1), (2, 4, 1), (3, 1, 1), (4, 1, 1)];
    let (mut network, arcs) = network(5, &list);
    assert_eq!(network.send(&[arcs[0], arcs[2], arcs[4]], 1), 1);
    assert_eq!(network.max_flow(0, 1), 0);
    assert_eq!(flows(&network, &arcs), [1, 0, 1, 0, 1]);
}

//! The facts of the pool: the reference's table of states, and the range that it had to give up.

use std::collections::BTreeSet;

use raft_autopilot::ids::{IdRange, Pool, RangeError};

fn pool(first: u64, last: u64) -> Pool {
    Pool::new(IdRange::new(first, last).unwrap())
}

fn lease_all(pool: &mut Pool) -> BTreeSet<u64> {
    let mut leased = BTreeSet::new();
    let mut random = 7;
    while let Some(id) = pool.lease(random) {
        assert!(leased.insert(id), "{id} was leased twice");
        random = random * 31 + 5;
    }
    leased
}

#[test]
fn every_id_is_leased_once() {
    let mut pool = pool(1, 5);
    assert_eq!(lease_all(&mut pool), BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(pool.lease(0), None);
}

#[test]
fn what_is_available_or_out_of_range_is_not_inserted() {
    let mut pool = pool(2, 6);
    for id in 1..=7 {
        // The reference takes 1 and 7 in, and gives them out then.
        assert!(!pool.insert(id) && !pool.insert(id));
    }
    assert_eq!(lease_all(&mut pool), BTreeSet::from([2, 3, 4, 5, 6]));
}

#[test]
fn what_is_removed_comes_back_by_insertion_only() {
    let mut pool = pool(1, 5);
    for id in 1..=5 {
        assert!(pool.remove(id) && !pool.remove(id));
    }
    assert_eq!(pool.lease(3), None);
    for id in 1..=5 {
        assert!(pool.insert(id) && !pool.insert(id));
    }
    for id in [1, 3, 5] {
        assert!(pool.remove(id));
    }
    assert_eq!(lease_all(&mut pool), BTreeSet::from([2, 4]));
}

#[test]
fn what_is_leased_is_released_once_and_not_after_it_was_removed() {
    let mut pool = pool(1, 5);
    lease_all(&mut pool);
    for id in 1..=5 {
        assert!(pool.release(id) && !pool.release(id));
    }
    lease_all(&mut pool);
    for id in 1..=5 {
        assert!(!pool.remove(id), "it was not available");
        assert!(!pool.release(id), "it is not leased any more");
    }
    assert_eq!(pool.lease(0), None);
}

#[test]
fn an_available_id_is_neither_released_nor_taken_nor_inserted() {
    let mut pool = pool(1, 5);
    for id in 1..=5 {
        assert!(!pool.release(id) && !pool.take(id) && !pool.insert(id));
    }
    assert_eq!(pool.available(), 5);
    for id in 1..=5 {
        assert!(pool.remove(id));
    }
    assert_eq!((pool.lease(9), pool.release(3)), (None, false));
}

#[test]
fn a_leased_id_is_taken_once_and_stays_leased_when_it_is_inserted() {
    let mut pool = pool(1, 5);
    lease_all(&mut pool);
    for id in 1..=5 {
        assert!(pool.take(id) && !pool.take(id));
    }
    assert_eq!((pool.lease(0), pool.unavailable()), (None, 5));
    let mut pool = self::pool(1, 5);
    lease_all(&mut pool);
    for id in 1..=5 {
        assert!(!pool.insert(id) && pool.release(id));
    }
    lease_all(&mut pool);
    for id in 1..=5 {
        assert!(!pool.remove(id) && !pool.take(id));
    }
    assert_eq!(pool.lease(0), None);
}

#[test]
fn an_unavailable_id_can_only_be_inserted() {
    let mut pool = pool(1, 5);
    for id in 1..=5 {
        pool.remove(id);
        assert!(!pool.release(id) && !pool.take(id) && !pool.remove(id));
        assert!(pool.insert(id));
        assert!(!pool.take(id) && !pool.release(id));
    }
    assert_eq!(lease_all(&mut pool).len(), 5);
}

#[test]
fn a_pool_is_never_empty_while_ids_come_back() {
    let mut pool = pool(1, 6_000);
    let mut queue = std::collections::VecDeque::new();
    let mut random: u64 = 1;
    for _ in 0..60_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let id = pool.lease(random).unwrap();
        assert!(pool.take(id));
        queue.push_back(id);
        if queue.len() > 100 {
            assert!(pool.insert(queue.pop_front().unwrap()));
        }
    }
    assert_eq!(pool.available(), 5_900);
}

#[test]
fn the_widest_range_costs_nothing_and_gives_ids() {
    let mut pool = Pool::new(IdRange::default());
    assert_eq!(pool.range().total(), u64::MAX);
    let leased: BTreeSet<u64> = [0, 0, u64::MAX, u64::MAX - 1, u64::MAX - 1]
        .map(|random| pool.lease(random).unwrap())
        .into();
    assert_eq!(leased.len(), 5);
    assert!(leased.contains(&u64::MAX) && !leased.contains(&0));
}

#[test]
fn a_range_has_at_least_one_id_and_never_zero() {
    assert_eq!(IdRange::new(0, 5), Err(RangeError::Zero));
    assert_eq!(IdRange::new(3, 2), Err(RangeError::Empty { first: 3, last: 2 }));
    assert_eq!(IdRange::new(3, 3).unwrap().total(), 1);
}

#[test]
fn a_mask_moves_a_range_and_never_folds_it() {
    let range = IdRange::new(256, 65_535).unwrap();
    let masked = range.masked(1 << 16).unwrap();
    assert_eq!((masked.first(), masked.last()), (65_792, 131_071));
    // Bits that are in the range already change nothing.
    assert_eq!(masked.masked(1 << 16), Ok(masked));
    assert_eq!(range.masked(1 << 8), Err(RangeError::Mask { mask: 1 << 8, range }));
    assert!(IdRange::default().masked(1 << 63).is_err());
    assert_eq!(IdRange::new(4, 4).unwrap().masked(3).unwrap().first(), 7);
}

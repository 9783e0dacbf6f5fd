//! What is counted apart becomes one, in any order, within bounds, and comes back from its records.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::collector::{Collector, DAYS_MAX};
use crate::day::{DAY_SECONDS, Day, Event, Kind, Lost, OtherDay, Went};
use crate::shelf::Limit;

/// A kind with so little room that everything overflows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Small;

impl Kind for Small {
    type Policy = u32;
    type Row = u32;
    const RECORD: &'static str = "a small day";
    const DAY: Limit = Limit { entries: 4, bytes: 3_000 };
    const DOMAIN: Limit = Limit { entries: 3, bytes: 800 };
    const POLICY: Limit = Limit { entries: 3, bytes: 200 };
}

/// A domain, a policy, a row or none, and how it went.
type Counted = (u8, u32, Option<u32>, bool);

fn counted() -> impl Strategy<Value = Vec<Counted>> {
    vec((0u8..7, 0u32..5, proptest::option::of(0u32..6), any::<bool>()), 0..60)
}

fn event(of: &Counted) -> (String, Event<Small>) {
    let (domain, policy, row, is_well) = *of;
    let went = if is_well { Went::Well } else { Went::Badly };
    (format!("d{domain}.test"), Event { policy, went, row })
}

fn day_of(all: &[Counted]) -> Day<Small> {
    let mut day = Day::new(9);
    for (domain, event) in all.iter().map(event) {
        day.count(domain, event);
    }
    day
}

fn merged(days: &[&Day<Small>]) -> Day<Small> {
    let mut all = Day::new(9);
    days.iter().for_each(|day| all.merge((*day).clone()).unwrap());
    all
}

fn assert_bounded(day: &Day<Small>) {
    assert!(day.bytes() <= Small::DAY.bytes && day.domains().count() <= Small::DAY.entries, "{day:?}");
    for name in day.domains() {
        let domain = day.domain(name).unwrap();
        assert!(domain.policies.len() <= Small::DOMAIN.entries);
        assert!(domain.policies.iter().all(|(_, policy)| policy.rows.len() <= Small::POLICY.entries));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn days_become_one_in_any_order_and_none_is_counted_twice_or_forgotten(all in vec(counted(), 4)) {
        let total: u64 = all.iter().map(|all| all.len() as u64).sum();
        let days: Vec<Day<Small>> = all.iter().map(|all| day_of(all)).collect();
        let [a, b, c, d] = [&days[0], &days[1], &days[2], &days[3]];
        let one = merged(&[a, b, c, d]);
        prop_assert_eq!(one.total(), total);
        assert_bounded(&one);
        for order in [[a, c, b, d], [b, d, a, c], [d, b, c, a], [c, a, d, b], [d, c, b, a]] {
            prop_assert_eq!(&merged(&order), &one);
        }
        prop_assert_eq!(&merged(&[a, &merged(&[b, &merged(&[c, d])])]), &one);
        // Both were cut, each elsewhere.
        for [first, second] in [[[a, b], [c, d]], [[a, c], [b, d]], [[d, a], [c, b]]] {
            prop_assert_eq!(&merged(&[&merged(&first), &merged(&second)]), &one);
        }
        prop_assert_eq!(&merged(&[&one]), &one);
    }

    #[test]
    fn what_is_counted_after_a_merge_stays_within_the_bounds(a in counted(), b in counted(), c in counted()) {
        let mut day = merged(&[&day_of(&a), &day_of(&b)]);
        let before = day.total();
        for (domain, event) in c.iter().map(event) {
            day.count(domain, event);
            assert_bounded(&day);
        }
        prop_assert_eq!(day.total(), before + c.len() as u64);
    }

    #[test]
    fn a_day_comes_back_from_its_records(a in counted(), b in counted()) {
        for day in [day_of(&a), merged(&[&day_of(&a), &day_of(&b)])] {
            let parts: Vec<Day<Small>> = day.encode().iter().map(|part| Day::decode(part).unwrap()).collect();
            prop_assert_eq!(merged(&parts.iter().collect::<Vec<_>>()), day);
        }
    }

    #[test]
    fn damaged_records_are_refused_or_become_a_bounded_day(bytes in vec(any::<u8>(), 0..200), a in counted(), at in any::<usize>()) {
        if let Ok(day) = Day::<Small>::decode(&bytes) {
            assert_bounded(&day);
        }
        let mut part = day_of(&a).encode().remove(0);
        let at = at % part.len();
        part[at] ^= 1 << (at % 8);
        if let Ok(day) = Day::<Small>::decode(&part) {
            assert_bounded(&day);
        }
    }
}

#[test]
fn what_is_lost_in_which_way_is_told() {
    let rows: Vec<Counted> = (0..5).map(|row| (0, 0, Some(row), true)).collect();
    assert_eq!(day_of(&rows).lost(), Lost { untold: 0, unlisted: 3 });
    let policies: Vec<Counted> = (0..5).map(|policy| (0, policy, None, true)).collect();
    assert_eq!(day_of(&policies).lost(), Lost { untold: 2, unlisted: 0 });
    let domains: Vec<Counted> = (0..6).map(|domain| (domain, 0, None, true)).collect();
    assert_eq!(day_of(&domains).lost(), Lost { untold: 2, unlisted: 0 });
}

#[test]
fn another_day_is_not_counted_to_this_one() {
    let mut day = day_of(&[(0, 0, None, true)]);
    let before = day.clone();
    assert_eq!(day.merge(Day::new(8)), Err(OtherDay { ours: 9, theirs: 8 }));
    assert_eq!(day, before);
}

#[test]
fn a_record_of_a_later_version_or_with_what_is_no_domain_is_refused() {
    let part = day_of(&[(0, 0, Some(0), true)]).encode().remove(0);
    assert!(Day::<Small>::decode(&part).is_ok());
    let mut newer = part.clone();
    newer[0] += 1;
    assert!(Day::<Small>::decode(&newer).unwrap_err().to_string().contains("a small day"));
    let at = part.windows(2).position(|two| two == b"d0").unwrap();
    for octet in [b'\n', b'D', b' '] {
        let mut odd = part.clone();
        odd[at] = octet;
        assert!(Day::<Small>::decode(&odd).is_err(), "{octet}");
    }
    assert!(Day::<Small>::decode(&part[..part.len() - 1]).is_err());
    assert!(Day::<Small>::decode(b"").is_err());
}

fn count(collector: &mut Collector<Small>, now_unix_s: u64) {
    let (domain, event) = event(&(0, 0, Some(0), true));
    collector.count_event(now_unix_s, domain, event);
}

#[test]
fn a_day_ends_at_midnight_and_is_there_until_it_is_told() {
    let mut collector = Collector::<Small>::default();
    count(&mut collector, DAY_SECONDS - 1);
    count(&mut collector, DAY_SECONDS);
    count(&mut collector, 2 * DAY_SECONDS - 1);
    let total = |collector: &Collector<Small>, day| collector.day(day).map(Day::total);
    assert_eq!([0, 1, 2].map(|day| total(&collector, day)), [Some(1), Some(2), None]);
    assert_eq!(collector.forget_told(0).map(|day| day.total()), Some(1));
    assert_eq!(collector.forget_told(0), None);
    // What comes late for a day that was told is there anew.
    count(&mut collector, DAY_SECONDS - 1);
    assert_eq!([0, 1].map(|day| total(&collector, day)), [Some(1), Some(2)]);
}

#[test]
fn days_that_nobody_takes_are_bounded_and_a_clock_that_was_wrong_leaves_none() {
    let mut collector = Collector::<Small>::default();
    let far = 40_000 * DAY_SECONDS;
    count(&mut collector, far);
    for day in 0..5 {
        count(&mut collector, day * DAY_SECONDS);
    }
    assert_eq!(collector.lost(), Lost { untold: 4, unlisted: 0 });
    let days: Vec<u64> = (0..=far / DAY_SECONDS).filter(|day| collector.day(*day).is_some()).collect();
    assert_eq!(days, [3, 4]);
    assert_eq!(days.len(), DAYS_MAX);
}

#[test]
fn what_a_node_counted_is_there_after_a_restart_and_goes_on() {
    let mut collector = Collector::<Small>::default();
    count(&mut collector, 5);
    count(&mut collector, DAY_SECONDS);
    let records = collector.encode();
    let read = |records: &[Vec<u8>]| Collector::<Small>::decode(records.iter().map(Vec::as_slice), DAY_SECONDS);
    let mut again = read(&records).unwrap();
    assert_eq!(again, collector);
    count(&mut again, DAY_SECONDS + 1);
    assert_eq!([0, 1].map(|day| again.day(day).map(Day::total)), [Some(1), Some(2)]);
    assert!(read(&[vec![1, 2, 3]]).is_err());
    assert_eq!(read(&[]).unwrap(), Collector::default());
}

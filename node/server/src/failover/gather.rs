//! What the region's nodes say of themselves, where one of them may hang: it keeps nobody waiting whose answers are enough.

use std::collections::BTreeMap;
use std::time::Duration;

use mailraft_storage::NodeId;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::facts::Facts;

/// Once the answers are enough, the rest is waited for so long: they are near, and what they say is shown.
const REST_MAX: Duration = Duration::from_millis(150);

/// What each of these nodes says, None of one that does not: as soon as all have answered, or those that have are enough and
/// [`REST_MAX`] has passed. Who was not waited for is not asked any more.
pub async fn gather(
    nodes: &[NodeId],
    mut asking: JoinSet<(NodeId, Option<Facts>)>,
    is_enough: impl Fn(&BTreeMap<NodeId, Option<Facts>>) -> bool,
) -> BTreeMap<NodeId, Option<Facts>> {
    let (asked, mut rest_until) = (Instant::now(), None);
    let mut facts: BTreeMap<NodeId, Option<Facts>> = nodes.iter().map(|node| (*node, None)).collect();
    loop {
        let next = match rest_until {
            None => asking.join_next().await,
            Some(until) => timeout_at(until, asking.join_next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok((node, said))) => drop(facts.insert(node, said)),
            Some(Err(_)) => {}
            None => break,
        }
        if rest_until.is_none() && is_enough(&facts) {
            rest_until = Some(Instant::now() + REST_MAX);
        }
    }
    // Whoever said it first may have said it at the beginning.
    let waited_ms = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
    facts.into_iter().map(|(node, said)| (node, said.map(|said| said.after(waited_ms)))).collect()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::super::plan::tests::facts;
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(4), NodeId(5), NodeId(6)];

    fn answers(facts: &BTreeMap<NodeId, Option<Facts>>) -> Vec<u64> {
        facts.iter().filter(|(_, said)| said.is_some()).map(|(node, _)| node.0).collect()
    }

    #[tokio::test]
    async fn a_node_that_hangs_keeps_nobody_waiting_where_the_others_are_enough() {
        let mut asking = JoinSet::new();
        asking.spawn(pending());
        asking.spawn(ready((NodeId(4), Some(facts(4)))));
        asking.spawn(ready((NodeId(5), Some(facts(5)))));
        let (begun, two) = (Instant::now(), |known: &BTreeMap<_, _>| answers(known).len() > 1);
        let known = gather(&NODES, asking, two).await;
        assert_eq!((known.len(), answers(&known)), (3, vec![4, 5]));
        assert!(begun.elapsed() >= REST_MAX, "the third could have answered yet");
    }

    #[tokio::test]
    async fn all_are_waited_for_where_the_others_are_not_enough_and_what_they_said_grows_older() {
        let mut asking = JoinSet::new();
        let (late, answer) = tokio::sync::oneshot::channel();
        asking.spawn(ready((NodeId(4), Some(facts(4)))));
        asking.spawn(ready((NodeId(5), None)));
        asking.spawn(async { (NodeId(6), answer.await.ok()) });
        let longer = tokio::spawn(async move {
            tokio::time::sleep(2 * REST_MAX).await;
            late.send(facts(6))
        });
        let known = gather(&NODES, asking, |known| answers(known).len() > 1).await;
        assert!(longer.await.is_ok_and(|sent| sent.is_ok()));
        assert_eq!(answers(&known), [4, 6]);
        let age = |facts: &Facts| facts.confirmed_ago_ms;
        let (said, by) = (age(&facts(4)), known[&NodeId(4)].as_ref().and_then(age));
        assert!(by >= said.map(|ms| ms + 300), "{by:?}");
    }
}

//! Nodes tell each other of guesses at passwords: an attacker that goes from one to the next gains nothing by it.

use std::sync::Arc;
use std::time::Duration;

use mailraft_storage::NodeId;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::links::Rpc;
use crate::region;
use crate::services::Services;

/// A node tells this often of what was guessed there, if anything was.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// The others have so long to hear of it; what is lost counts where it was guessed.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Tells the nodes that are reached, for ever.
pub async fn tell_other_nodes(services: Services) {
    let mut pause = tokio::time::interval(TELL_EVERY);
    loop {
        pause.tick().await;
        let Some(news) = services.credentials.guess_news() else { continue };
        let mut telling = JoinSet::new();
        let regions = region::regions(&services.cluster);
        // Nobody logs in at a node of a backup region.
        let is_home = |node: &NodeId| regions.as_ref().is_none_or(|regions| regions.is_home(*node));
        for node in services.cluster.connected().into_iter().filter(is_home) {
            let (links, news) = (Arc::clone(&services.links), news.clone());
            telling.spawn(async move { links.ask(node, Rpc::Guesses(news)).await });
        }
        let all = async { while telling.join_next().await.is_some() {} };
        // Whoever is too slow for it is not waited for.
        let _ = timeout(HEARD_WITHIN, all).await;
    }
}

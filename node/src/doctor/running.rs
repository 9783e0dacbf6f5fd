//! What the cluster says of itself, where the node of this configuration runs.

use mailraft_server::config::Config;
use mailraft_server::status::ClusterStatus;

use crate::admin_client::AdminClient;
use crate::options::Target;

/// How the cluster is, or why it can't be asked.
pub fn status(config: &Config) -> Result<ClusterStatus, String> {
    let target = Target {
        dir: None,
        admin: Some(config.admin.listen.to_string()),
        token_file: Some(config.admin.token_file.clone()),
    };
    let answer = AdminClient::of(&target).and_then(|c| c.read("/api/v1/status")).map_err(|e| e.sentence)?;
    serde_json::from_value(answer).map_err(|e| format!("its status is of a version that this one does not know ({e})"))
}

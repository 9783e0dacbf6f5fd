//! Reports to other domains, when an operator does not wait for them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::api::error;
use crate::reports::NotSent;

/// Sends yesterday's reports now. The answer says how many domains there are; it does not wait for them.
pub(super) async fn send(State(admin): State<Admin>) -> Response {
    match admin.reports.send_now().await {
        Ok(begun) => Json(begun).into_response(),
        Err(why) => {
            let status = match why {
                NotSent::Off | NotSent::UnderWay | NotSent::GoesOn => StatusCode::CONFLICT,
                NotSent::Reporter(_) | NotSent::NoResolver => StatusCode::SERVICE_UNAVAILABLE,
            };
            error(status, &why.to_string())
        }
    }
}

//! `POST /tls/reload` on the admin socket: reads the certificates anew and answers with what is served now, or why not.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;

use super::client::DECLINED;
use crate::tls::reload::{self, Certificates, Trigger};

pub(super) fn router(certificates: Arc<Certificates>) -> Router {
    Router::new().route("/tls/reload", post(reload)).with_state(certificates)
}

async fn reload(State(certificates): State<Arc<Certificates>>) -> (StatusCode, String) {
    match reload::reload(&certificates, Trigger::Command).await {
        Ok(served) => (StatusCode::OK, served.iter().map(|served| format!("{served}\n")).collect()),
        Err(error) => (DECLINED, error.to_string()),
    }
}

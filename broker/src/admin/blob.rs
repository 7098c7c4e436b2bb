//! Requests about blobs (docs/protocol.md section 13): the operator puts them in, says who may read them, and removes them.

use super::api::{Api, Query, value};
use super::body::{AdminBody, next_piece, nothing, parse, shown};
use super::command::{Command, CommandError};
use super::error::ApiError;
use super::im::outcome;
use hyper::body::{Body, Incoming};
use hyper::{Response, StatusCode};
use parlor_core::{BlobOrder, Look, NewBlob};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::Value;

/// Bytes that are gathered before they go to the disk together.
const PART_BYTES: usize = 256 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
}

impl Api {
    async fn order_blob(&self, order: BlobOrder) -> Result<Value, ApiError> {
        if !self.has_messaging() {
            return Err(ApiError::NoMessaging);
        }
        outcome(self.ask(|reply| Command::Blob { order, reply }).await??)
    }

    pub(super) async fn blobs(&self) -> Result<Response<AdminBody>, ApiError> {
        Ok(shown(StatusCode::OK, &self.look(Look::Blobs).await?))
    }

    pub(super) async fn blob_put(&self, mut query: Query, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let Ok(_turn) = self.uploads.try_lock() else { return Err(CommandError::Busy("another upload").into()) };
        let mut text = |key| value(&mut query, key).unwrap_or_default();
        let readers = addresses(&text("for"));
        let (name, version, signature) = (text("name"), text("version"), text("signature"));
        let blob = NewBlob { name, version, signature, readers: readers.clone(), ..NewBlob::default() };
        let begun = self.order_blob(BlobOrder::Begin { readers, size: body.size_hint().exact() }).await?;
        let upload = begun["upload"].as_u64().unwrap_or_default();
        let put = self.blob_pieces(upload, blob, body).await;
        if put.is_err() {
            // It may be gone already; and what is left of a client that went away goes with the next upload.
            let _ = self.order_blob(BlobOrder::Abort { upload }).await;
        }
        let put = put?;
        let is_new = put["dup"] != true;
        let id = put["id"].as_str().unwrap_or_default();
        tracing::info!(id, size = %put["size"], is_new, "operator puts in a blob");
        Ok(shown(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &put))
    }

    async fn blob_pieces(&self, upload: u64, mut blob: NewBlob, mut body: Incoming) -> Result<Value, ApiError> {
        let mut digest = Context::new(&SHA256);
        let mut part = Vec::new();
        while let Some(piece) = next_piece(&mut body).await? {
            digest.update(&piece);
            part.extend_from_slice(&piece);
            if part.len() >= PART_BYTES {
                let bytes = std::mem::take(&mut part);
                self.order_blob(BlobOrder::Append { upload, bytes }).await?;
            }
        }
        if !part.is_empty() {
            self.order_blob(BlobOrder::Append { upload, bytes: part }).await?;
        }
        blob.sha256.copy_from_slice(digest.finish().as_ref());
        self.order_blob(BlobOrder::Finish { upload, blob }).await
    }

    pub(super) async fn blob_grant(&self, id: String, body: Incoming) -> Result<Response<AdminBody>, ApiError> {
        let Grant { add, remove } = parse(body).await?;
        tracing::info!(id, ?add, ?remove, "operator says who reads a blob");
        Ok(shown(StatusCode::OK, &self.order_blob(BlobOrder::Grant { id, add, remove }).await?))
    }

    pub(super) async fn blob_remove(&self, id: String) -> Result<Response<AdminBody>, ApiError> {
        tracing::info!(id, "operator removes a blob");
        self.order_blob(BlobOrder::Remove { id }).await?;
        Ok(nothing())
    }
}

/// Addresses with commas between them.
fn addresses(text: &str) -> Vec<String> {
    text.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect()
}

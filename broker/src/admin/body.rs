//! Bodies of requests and answers: read within bounds, written whole or as a stream.

use super::command::{BackupChunk, CommandError};
use super::error::ApiError;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// Largest JSON body, bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Largest JSON body with a message, bytes: one of 64 KiB in which every byte is written as `\u00XX`.
const MESSAGE_BODY_BYTES_MAX: usize = 400 * 1024;
/// How long a JSON body may take, and each piece of an uploaded backup or blob.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Largest backup that is taken, bytes.
const RESTORE_BYTES_MAX: u64 = 1 << 40;
/// Pieces of a backup on their way.
pub(super) const BACKUP_CHUNKS_MAX: usize = 4;

/// Writes a body to a file and says how long it is; the file is on disk then. There is no file after an error, nor when
/// the client goes away and nobody waits for this any more.
pub(super) async fn upload(mut body: Incoming, file: PathBuf) -> Result<u64, ApiError> {
    let (pieces, waiting) = mpsc::channel::<Piece>(BACKUP_CHUNKS_MAX);
    let writer = tokio::task::spawn_blocking(move || write_pieces(waiting, &file));
    let mut total = 0;
    while let Some(piece) = next_piece(&mut body).await? {
        total += piece.len() as u64;
        if total > RESTORE_BYTES_MAX {
            return Err(ApiError::TooLarge(RESTORE_BYTES_MAX));
        }
        if pieces.send(Piece::Data(piece)).await.is_err() {
            // The writer has ended, and says below why.
            break;
        }
    }
    let _ = pieces.send(Piece::End).await;
    writer.await.map_err(|_| ApiError::Gone)?.map_err(ApiError::Disk)?;
    Ok(total)
}

/// The bytes of a body that come next; `None`: that was all.
pub(super) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>, ApiError> {
    loop {
        match tokio::time::timeout(BODY_TIME, body.frame()).await {
            Err(_) => return Err(ApiError::Slow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(ApiError::Broken),
            Ok(Some(Ok(frame))) => {
                // Trailers are no bytes of it.
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// What is written to a file on another thread.
enum Piece {
    Data(Bytes),
    /// That was all. Without it the file is not kept.
    End,
}

fn write_pieces(waiting: mpsc::Receiver<Piece>, path: &Path) -> io::Result<()> {
    let written = create_private(path).and_then(|file| write_all_pieces(waiting, file));
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

fn create_private(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn write_all_pieces(mut waiting: mpsc::Receiver<Piece>, mut file: std::fs::File) -> io::Result<()> {
    loop {
        match waiting.blocking_recv() {
            Some(Piece::Data(piece)) => file.write_all(&piece)?,
            Some(Piece::End) => return file.sync_all(),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

pub(super) async fn parse<T: DeserializeOwned>(body: Incoming) -> Result<T, ApiError> {
    serde_json::from_slice(&read(body, BODY_BYTES_MAX).await?).map_err(ApiError::Json)
}

/// Reads a body that holds a message: its text takes more bytes as JSON.
pub(super) async fn parse_message<T: DeserializeOwned>(body: Incoming) -> Result<T, ApiError> {
    serde_json::from_slice(&read(body, MESSAGE_BODY_BYTES_MAX).await?).map_err(ApiError::Json)
}

/// Reads a body that may be left out.
pub(super) async fn parse_or_default<T: DeserializeOwned + Default>(body: Incoming) -> Result<T, ApiError> {
    let bytes = read(body, BODY_BYTES_MAX).await?;
    if bytes.is_empty() { Ok(T::default()) } else { serde_json::from_slice(&bytes).map_err(ApiError::Json) }
}

async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, bytes_max).collect()).await {
        Err(_) => Err(ApiError::Slow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge(bytes_max as u64)),
        Ok(Err(_)) => Err(ApiError::Broken),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

/// Body of an answer.
pub(super) enum AdminBody {
    /// All there is.
    Whole(Option<Bytes>),
    /// A backup, as it is read.
    Backup {
        /// The piece that was waited for.
        first: Option<BackupChunk>,
        /// Those that follow.
        pieces: mpsc::Receiver<BackupChunk>,
    },
}

/// A backup that ends early breaks the answer off, so that nobody takes it for a whole one.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Failed(CommandError),
    #[error("the backup was cut off")]
    CutOff,
}

impl AdminBody {
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Backup { first, pieces } => {
                let piece = match first.take() {
                    Some(piece) => Some(piece),
                    None => match pieces.poll_recv(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(piece) => piece,
                    },
                };
                Poll::Ready(match piece {
                    Some(BackupChunk::Data(bytes)) => Some(Ok(Frame::data(bytes.into()))),
                    Some(BackupChunk::End) => None,
                    Some(BackupChunk::Failed(error)) => {
                        tracing::error!(%error, "backup broken off");
                        Some(Err(BodyError::Failed(error)))
                    }
                    None => Some(Err(BodyError::CutOff)),
                })
            }
        }
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Whole(text) => hyper::body::SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Backup { .. } => hyper::body::SizeHint::default(),
        }
    }
}

pub(super) fn typed(status: StatusCode, kind: &'static str, text: &str) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::whole(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn plain(status: StatusCode, text: &str) -> Response<AdminBody> {
    typed(status, "text/plain; charset=utf-8", &format!("{text}\n"))
}

pub(super) fn shown<T: Serialize>(status: StatusCode, value: &T) -> Response<AdminBody> {
    let text = serde_json::to_string(value).expect("every type here has text keys and no failing serializer");
    typed(status, "application/json", &text)
}

pub(super) fn nothing() -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

//! The native link over TCP and TLS.

use super::driver::{Engine, Over, drive};
use super::native::NativeCodec;
use super::{Down, End, Login, Up};
use crate::error::ConnectError;
use crate::options::Filter;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// Lives one connection; with `tls`, an encrypted one.
pub(super) async fn run(
    login: Arc<Login>,
    tls: Option<Arc<rustls::ClientConfig>>,
    filters: Vec<Filter>,
    ups: mpsc::Receiver<Up>,
    down: mpsc::Sender<Down>,
) {
    let mut engine = Engine { ups, down: down.clone(), keep_alive: login.options.keep_alive };
    if let Err(end) = connect(&login, tls, filters, &mut engine).await {
        let _ = down.send(Down::Ended(end)).await;
    }
}

async fn connect(
    login: &Arc<Login>,
    tls: Option<Arc<rustls::ClientConfig>>,
    filters: Vec<Filter>,
    engine: &mut Engine,
) -> Result<(), End> {
    let target = &login.target;
    let lost = |error: std::io::Error| End::Lost(format!("{target}: {error}"));
    let mut codec = NativeCodec::new(Arc::clone(login), filters, false);
    let tcp = TcpStream::connect((target.bare_host(), target.port)).await.map_err(lost)?;
    tcp.set_nodelay(true).map_err(lost)?;
    let over = match tls {
        None => {
            let (reader, writer) = tcp.into_split();
            drive(&mut codec, reader, writer, (None, &mut None), Vec::new(), engine).await
        }
        Some(config) => {
            let fatal = |why: String| End::Fatal(ConnectError::Tls { target: target.clone(), why });
            let name = ServerName::try_from(target.bare_host().to_owned()).map_err(|error| fatal(error.to_string()))?;
            let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|error| {
                // Only what rustls says is about certificates and versions.
                let is_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some();
                if is_tls { fatal(error.to_string()) } else { lost(error) }
            })?;
            let (reader, writer) = tokio::io::split(stream);
            drive(&mut codec, reader, writer, (None, &mut None), Vec::new(), engine).await
        }
    };
    match over {
        Over::Ended(end) => Err(end),
        Over::Left | Over::Again(_) => Ok(()),
    }
}

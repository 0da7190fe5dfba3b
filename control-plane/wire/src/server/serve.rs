//! The listening socket of the discovery service: TLS 1.3, HTTP/2, keep-alives.

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use kit_process::drain::Drain;
use rustls::{ServerConfig, server::ResolvesServerCert};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::{
    Authenticator, DiscoveryService,
    admission::{Admission, Admitted},
};
use crate::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};

/// TLS handshakes at one moment; further connections wait.
const HANDSHAKES: usize = 1024;

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// How long connections may take to end once the drain has begun.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Pause after an `accept` that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the service does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// TLS 1.3 cannot be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
    /// The socket failed.
    #[error("serve discovery")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `service` on `listener` over TLS 1.3 with the certificate that `resolver` gives for each connection (so that it
/// may be rotated), until `drain`; then open streams end and connections get 5 s.
///
/// # Errors: [`ServeError`] where TLS cannot be set up, or the socket fails.
pub async fn serve<A: Authenticator>(
    listener: TcpListener,
    resolver: Arc<dyn ResolvesServerCert>,
    service: DiscoveryService<A>,
    drain: Drain,
) -> Result<(), ServeError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let incoming = connections(listener, service.admission())
        .map(move |stream| handshake(acceptor.clone(), stream))
        .buffer_unordered(HANDSHAKES)
        .filter_map(std::future::ready);
    run(incoming.map(Ok::<_, io::Error>), service, drain).await
}

/// As [`serve`], without TLS: for loopback and tests, as tokens and private keys go over the wire.
///
/// # Errors: [`ServeError`] where the socket fails.
pub async fn serve_plain<A: Authenticator>(
    listener: TcpListener,
    service: DiscoveryService<A>,
    drain: Drain,
) -> Result<(), ServeError> {
    let incoming = connections(listener, service.admission());
    run(incoming.map(Ok::<_, io::Error>), service, drain).await
}

fn connections(listener: TcpListener, admission: Admission) -> impl Stream<Item = Admitted> {
    let accepted = TcpListenerStream::new(listener).filter_map(|accepted| async {
        match accepted {
            Ok(stream) => {
                // Updates are small and wanted at once. Where it fails the connection works all the same.
                let _ = stream.set_nodelay(true);
                Some(stream)
            }
            Err(error) => {
                tracing::warn!(%error, "discovery connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    });
    accepted.filter_map(move |stream| std::future::ready(admission.admit(stream)))
}

async fn handshake(acceptor: TlsAcceptor, stream: Admitted) -> Option<TlsStream<Admitted>> {
    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "discovery TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn run<A: Authenticator, C>(
    incoming: impl Stream<Item = Result<C, io::Error>>,
    service: DiscoveryService<A>,
    drain: Drain,
) -> Result<(), ServeError>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + tonic::transport::server::Connected + Unpin + Send + 'static,
{
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(16)
        .add_service(service.into_server())
        .serve_with_incoming_shutdown(incoming, drain.signaled());
    let limit = async {
        drain.signaled().await;
        tokio::time::sleep(DRAIN_LIMIT).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = limit => Ok(()),
    }
}

//! A connection to the control plane, with the token and the CA of this moment.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use http::uri::Scheme;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::ClientOptions;
use crate::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_LIMIT, proto::discovery_client::DiscoveryClient};

/// How long TCP and TLS may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// HTTP/2 flow control window: a whole part of a transaction is on its way while the one before is decoded.
const WINDOW: u32 = 2 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no certificate in PEM form")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds no bearer token")]
    NoToken { path: PathBuf },
    #[error("{0} needs a CA file")]
    NoCaFile(http::Uri),
    #[error("{0}: a control plane that is not on loopback is reached by https alone")]
    Insecure(http::Uri),
    #[error("{0} does not answer within 5 s")]
    Slow(http::Uri),
    #[error("connect to {endpoint}")]
    Connect {
        endpoint: http::Uri,
        #[source]
        source: tonic::transport::Error,
    },
}

/// The token that the file holds now, as the value of `authorization`.
pub(super) async fn authorization(options: &ClientOptions) -> Result<MetadataValue<Ascii>, ConnectError> {
    let path = &options.token_file;
    let token = read(path).await?;
    let no_token = || ConnectError::NoToken { path: path.clone() };
    let token = str::from_utf8(&token).map(str::trim).map_err(|_| no_token())?;
    if token.is_empty() {
        return Err(no_token());
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| no_token())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Connects by TCP and TLS.
pub(super) async fn connect(options: &ClientOptions) -> Result<DiscoveryClient<Channel>, ConnectError> {
    let error = |source| ConnectError::Connect { endpoint: options.endpoint.clone(), source };
    let mut endpoint = Endpoint::new(options.endpoint.clone())
        .map_err(error)?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    if options.endpoint.scheme() == Some(&Scheme::HTTPS) {
        endpoint = endpoint.tls_config(tls(options).await?).map_err(error)?;
    } else if !is_loopback(&options.endpoint) {
        return Err(ConnectError::Insecure(options.endpoint.clone()));
    }
    let channel = tokio::time::timeout(CONNECT_LIMIT, endpoint.connect())
        .await
        .map_err(|_| ConnectError::Slow(options.endpoint.clone()))?
        .map_err(error)?;
    Ok(DiscoveryClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT))
}

async fn tls(options: &ClientOptions) -> Result<ClientTlsConfig, ConnectError> {
    let path = options.ca_file.as_ref().ok_or_else(|| ConnectError::NoCaFile(options.endpoint.clone()))?;
    let pem = read(path).await?;
    if !CertificateDer::pem_slice_iter(&pem).any(|certificate| certificate.is_ok()) {
        return Err(ConnectError::NoCertificate { path: path.clone() });
    }
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path).await.map_err(|source| ConnectError::Read { path: path.clone(), source })
}

fn is_loopback(endpoint: &http::Uri) -> bool {
    let host = endpoint.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

//! One health check of one endpoint, on a connection of its own.
//!
//! Source: `grpc.health.v1` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>). Invariant: ends within its
//! limit, and reads no more than [`MAX_ANSWER`] bytes.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use control_plane_model::{HealthCheck, HealthProbe, StatusRange};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use policy_resilience::GrpcCode;
use tokio::net::TcpStream;

use super::grpc_status;
use crate::spawn::WorkerExecutor;

const USER_AGENT: HeaderValue = HeaderValue::from_static("nebula-health-check");
/// Bytes of a gRPC answer; the expected one has seven.
const MAX_ANSWER: usize = 4 << 10;
/// `SERVING` in `HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;

/// Why an endpoint did not pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotHealthy {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{}", kit_process::error::chain(.0))]
    Exchange(#[from] hyper::Error),
    #[error("the check cannot be written as a request: {0}")]
    Request(#[from] http::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("gRPC answer is not SERVING")]
    NotServing,
}

/// Asks the endpoint at `address` what `check` says. Cancel-safe: dropping it closes the connection.
pub(super) async fn ask(address: SocketAddr, check: &HealthCheck) -> Result<(), NotHealthy> {
    let port = check.port.map_or(address.port(), std::num::NonZeroU16::get);
    let address = SocketAddr::new(address.ip(), port);
    let asking = async {
        let stream = TcpStream::connect(address).await?;
        match &check.probe {
            HealthProbe::Tcp => Ok(()),
            HealthProbe::Http { path, host, statuses } => {
                let host = host.clone().map_or_else(|| HeaderValue::from_str(&address.to_string()), Ok);
                let request = Request::get(&**path)
                    .header(header::HOST, host.map_err(http::Error::from)?)
                    .header(header::USER_AGENT, USER_AGENT)
                    .header(header::CONNECTION, "close")
                    .body(Full::default())?;
                http(stream, request, statuses).await
            }
            HealthProbe::Grpc { service } => grpc(stream, address, service).await,
        }
    };
    tokio::time::timeout(check.timeout, asking).await.unwrap_or(Err(NotHealthy::Timeout(check.timeout)))
}

async fn http(stream: TcpStream, request: Request<Full<Bytes>>, good: &[StatusRange]) -> Result<(), NotHealthy> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(sender.send_request(request));
    let response: Response<Incoming> = tokio::select! {
        biased;
        response = answer.as_mut() => response?,
        ended = connection.as_mut() => {
            ended?;
            answer.await?
        }
    };
    let status = response.status();
    let is_good = if good.is_empty() {
        status.is_success()
    } else {
        good.iter().any(|range| (range.first..=range.last).contains(&status.as_u16()))
    };
    if is_good { Ok(()) } else { Err(NotHealthy::Status(status)) }
}

async fn grpc(stream: TcpStream, address: SocketAddr, service: &str) -> Result<(), NotHealthy> {
    let (mut sender, connection) = http2::handshake(WorkerExecutor, TokioIo::new(stream)).await?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(health_request(service)))?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        if parts.status != StatusCode::OK {
            return Err(NotHealthy::Status(parts.status));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| NotHealthy::NotServing)?;
        let code = body.trailers().and_then(grpc_status).or_else(|| grpc_status(&parts.headers));
        let is_serving = code == Some(GrpcCode::Ok) && is_serving(&body.to_bytes());
        if is_serving { Ok(()) } else { Err(NotHealthy::NotServing) }
    };
    tokio::select! {
        biased;
        answered = exchange => answered,
        ended = connection => {
            ended?;
            Err(NotHealthy::NotServing)
        }
    }
}

/// A gRPC message with `HealthCheckRequest { service }`.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 3);
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

/// Whether this is one gRPC message, not compressed, with `HealthCheckResponse { status: SERVING }`. A field that is not known
/// makes it something else.
fn is_serving(framed: &[u8]) -> bool {
    framed == [0, 0, 0, 0, 2, 1 << 3, SERVING]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_service_as_protobuf_does() {
        assert_eq!(health_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(health_request("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = health_request(&"x".repeat(200));
        assert_eq!(long.get(..8), Some(&[0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01][..]));
    }
}

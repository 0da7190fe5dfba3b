//! Every limit and timeout that the engine holds against clients and backends, in one place.
//!
//! Invariant: the default of each is safe for a proxy on the open internet; nothing in the engine waits without one.

use std::time::Duration;

use control_plane_model::TransferRate;

/// Limits of one proxy process. The defaults are what a proxy on the open internet needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head: request line and fields with their line ends (HTTP/1), or the uncompressed field
    /// list by the counting of RFC 9113 §6.5.2 (HTTP/2). Above: 431 `headers_too_large`. Default 64 KiB.
    pub max_head_bytes: usize,
    /// Fields in a request's head, each cookie crumb of HTTP/2 counted. Above: 431 `too_many_headers`. Default 100.
    pub max_headers: usize,
    /// Bytes of path and query as sent. Above: 414 `uri_too_long`. Default 8 KiB.
    pub max_uri_bytes: usize,
    /// Fields that one request's `Connection` may nominate. Above: 400 `invalid_connection_header`. Default 16.
    pub max_connection_options: usize,
    /// From the first byte of a request's head to its last. Above: closed without an answer. Default 10 s.
    pub header_read_timeout: Duration,
    /// Between two requests on a client's connection, and before the first one. Above: closed. Default 75 s.
    pub downstream_idle_timeout: Duration,
    /// Between two pieces of a request's body, until its response begins. Above: 408 `request_timeout`. Default 30 s.
    pub request_body_idle_timeout: Duration,
    /// Bytes of requests' bodies that are held whole for a filter, of all requests together. Above: 503
    /// `buffer_memory_exhausted`. Default 128 MiB.
    pub request_buffer_bytes: usize,
    /// From the first byte of a body asked for that is held whole to its last. Above: 408 `request_timeout`. Default 60 s.
    pub request_buffer_timeout: Duration,
    /// How long a client may take none of a response that is ready. Above: the stream is reset. Default 30 s.
    pub response_write_idle_timeout: Duration,
    /// From the connection accepted to the TLS handshake done. Above: closed. Default 10 s.
    pub tls_handshake_timeout: Duration,
    /// Connections of clients that one worker holds. Above: new ones are closed. Default 16,384.
    pub max_connections_per_worker: usize,
    /// Connections of clients at one socket, of all workers. Above: new ones are closed. Default: no limit.
    pub max_connections_per_socket: usize,
    /// Those of one client's address; of an IPv6 one the first 64 bits count. Above: new ones are closed. Default: no limit.
    pub max_connections_per_client: usize,
    /// Requests of one connection over its life. The last one's answer says that the connection closes (HTTP/1), or the
    /// client is told to open a new one (HTTP/2). Default: no limit.
    pub max_requests_per_connection: u32,
    /// How fast a request's body must come, over the time that it is waited for. Below: 408 `request_timeout`. Default: no
    /// rate.
    pub minimum_transfer_rate: Option<TransferRate>,
    /// Streams open at once on one HTTP/2 connection of a client. Default 128.
    pub h2_max_concurrent_streams: u32,
    /// Streams that a client may reset before the engine has taken them up (CVE-2023-44487). Above: the connection
    /// ends. Default 20.
    pub h2_max_pending_accept_reset_streams: usize,
    /// Streams that a client may make the engine reset, over a connection's life (CVE-2025-8671). Above: the
    /// connection ends. Default 1,024.
    pub h2_max_local_error_reset_streams: usize,
    /// Bytes of responses that wait for one HTTP/2 stream's client to read. Default 256 KiB.
    pub h2_max_send_buffer_bytes: usize,
    /// How much of a request's body a client may send ahead on one HTTP/2 stream. Default 256 KiB.
    pub h2_stream_window_bytes: u32,
    /// How much a client may send ahead on one HTTP/2 connection. Default 1 MiB.
    pub h2_connection_window_bytes: u32,
    /// Between two pings on a silent HTTP/2 connection. Default 30 s.
    pub h2_ping_interval: Duration,
    /// How long the peer may take to answer a ping. Above: the connection ends. Default 10 s.
    pub h2_ping_timeout: Duration,
    /// From the first packet to the connection with an endpoint, TLS included. Above: 503
    /// `upstream_connect_timeout`. Default 5 s.
    pub connect_timeout: Duration,
    /// From the request sent to the response's head, where the route sets no timeout; begins anew while the request's
    /// body goes on. Above: 504 `upstream_timeout`. Default 60 s.
    pub response_head_timeout: Duration,
    /// Between two pieces of a response's body, while the request's stands still too. Above: the stream is reset.
    /// Default 300 s, for slow streams of events.
    pub response_body_idle_timeout: Duration,
    /// How long an unused connection to an endpoint is kept. Below the 75 s and more of common servers, so that it is
    /// the proxy which closes first. Default 60 s.
    pub upstream_idle_timeout: Duration,
    /// Unused HTTP/1 connections kept for one endpoint and worker; what is above is closed, and made again in the next
    /// burst. Default 256.
    pub upstream_max_idle_per_endpoint: usize,
    /// Bytes of a response's head. Above: 502 `upstream_protocol_error`. Default 64 KiB.
    pub upstream_max_head_bytes: usize,
    /// Both directions of an upgraded connection silent. Above: closed. Default 1 h.
    pub upgrade_idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_head_bytes: 64 << 10,
            max_headers: 100,
            max_uri_bytes: 8 << 10,
            max_connection_options: 16,
            header_read_timeout: Duration::from_secs(10),
            downstream_idle_timeout: Duration::from_secs(75),
            request_body_idle_timeout: Duration::from_secs(30),
            request_buffer_bytes: 128 << 20,
            request_buffer_timeout: Duration::from_mins(1),
            response_write_idle_timeout: Duration::from_secs(30),
            tls_handshake_timeout: Duration::from_secs(10),
            max_connections_per_worker: 16_384,
            max_connections_per_socket: usize::MAX,
            max_connections_per_client: usize::MAX,
            max_requests_per_connection: u32::MAX,
            minimum_transfer_rate: None,
            h2_max_concurrent_streams: 128,
            h2_max_pending_accept_reset_streams: 20,
            h2_max_local_error_reset_streams: 1_024,
            h2_max_send_buffer_bytes: 256 << 10,
            h2_stream_window_bytes: 256 << 10,
            h2_connection_window_bytes: 1 << 20,
            h2_ping_interval: Duration::from_secs(30),
            h2_ping_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            response_head_timeout: Duration::from_mins(1),
            response_body_idle_timeout: Duration::from_mins(5),
            upstream_idle_timeout: Duration::from_mins(1),
            upstream_max_idle_per_endpoint: 256,
            upstream_max_head_bytes: 64 << 10,
            upgrade_idle_timeout: Duration::from_hours(1),
        }
    }
}

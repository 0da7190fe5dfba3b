//! The closed list of reasons for which the engine itself answers, and what each one means on the wire.
//!
//! Invariant: a reason's word never changes once released; `docs/errors.md` explains every word (a test compares).

use control_plane_model::Unavailable;
use http::StatusCode;

/// Status codes of gRPC that local replies use.
/// Source: <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum GrpcStatus {
    /// The request is not valid.
    InvalidArgument = 3,
    /// It took too long.
    DeadlineExceeded = 4,
    /// The client may not.
    PermissionDenied = 7,
    /// More than is allowed.
    ResourceExhausted = 8,
    /// Nothing here serves the method.
    Unimplemented = 12,
    /// A fault of the proxy or its configuration.
    Internal = 13,
    /// May work when tried again.
    Unavailable = 14,
    /// Nobody knows who the client is.
    Unauthenticated = 16,
}

/// Whether an HTTP/1 connection lives on after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It serves the next request.
    Keep,
    /// It closes: where a next request begins may be in doubt.
    Close,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $word:literal $status:ident $grpc:ident $connection:ident $title:literal $detail:literal;)*) => {
        /// Why the engine answers by itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable word for it: response flag in logs and metrics, value of `x-nebula-reason`, anchor in
            /// `docs/errors.md`.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// The gRPC status.
            pub const fn grpc_status(self) -> GrpcStatus {
                match self { $(Self::$name => GrpcStatus::$grpc,)* }
            }

            /// Whether an HTTP/1 connection lives on.
            pub const fn connection(self) -> Connection {
                match self { $(Self::$name => Connection::$connection,)* }
            }

            /// What happened, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What happened, in a sentence.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$name => $detail,)* }
            }
        }
    };
}

reasons! {
    /// Not HTTP, or cut short.
    MalformedRequest "malformed_request" BAD_REQUEST InvalidArgument Close
        "Malformed request" "The request is not valid HTTP.";
    /// `Content-Length` and `Transfer-Encoding` in one request.
    ConflictingLength "conflicting_length" BAD_REQUEST InvalidArgument Close
        "Conflicting body length" "The request has both Content-Length and Transfer-Encoding.";
    /// `Content-Length` more than once, as a list, or not a number.
    InvalidContentLength "invalid_content_length" BAD_REQUEST InvalidArgument Close
        "Invalid Content-Length" "The request needs one Content-Length of digits only.";
    /// `Transfer-Encoding` other than `chunked`, or in HTTP/1.0.
    InvalidTransferEncoding "invalid_transfer_encoding" BAD_REQUEST InvalidArgument Close
        "Invalid Transfer-Encoding" "The only Transfer-Encoding is chunked, in HTTP/1.1, once.";
    /// A line ends without CR, or a CR stands alone.
    InvalidLineEnd "invalid_line_end" BAD_REQUEST InvalidArgument Close
        "Invalid line end" "Every line of a request ends with CR LF.";
    /// A field's name or value has characters that it must not have, is folded, or poses as a framing field.
    InvalidHeader "invalid_header" BAD_REQUEST InvalidArgument Close
        "Invalid header" "A header's name or value is not valid.";
    /// HTTP/1 without `Host`, HTTP/2 without `:authority` and `host`.
    MissingHost "missing_host" BAD_REQUEST InvalidArgument Close
        "Missing host" "The request does not say which host it is for.";
    /// More than one `Host`.
    DuplicateHost "duplicate_host" BAD_REQUEST InvalidArgument Close
        "Duplicate host" "The request names its host more than once.";
    /// Not a host name or address with an optional port.
    InvalidHost "invalid_host" BAD_REQUEST InvalidArgument Close
        "Invalid host" "The request's host is not a host name or address with an optional port.";
    /// Request target and `Host` name different hosts.
    HostMismatch "host_mismatch" BAD_REQUEST InvalidArgument Close
        "Host mismatch" "The request target and the Host header name different hosts.";
    /// A request target of a form that the method does not allow.
    InvalidTarget "invalid_target" BAD_REQUEST InvalidArgument Close
        "Invalid request target" "The request target is not a path, nor an http or https URL.";
    /// Characters or percent encodings that a path must not have.
    InvalidPath "invalid_path" BAD_REQUEST InvalidArgument Close
        "Invalid path" "The path has characters or percent encodings that it must not have.";
    /// A path that servers read in different ways.
    AmbiguousPath "ambiguous_path" BAD_REQUEST InvalidArgument Close
        "Ambiguous path" "The path can be read in more than one way.";
    /// `..` climbs above `/`.
    PathAboveRoot "path_above_root" BAD_REQUEST InvalidArgument Close
        "Path above root" "The path climbs above its root.";
    /// `Connection` nominates a field that it must not, or too many.
    InvalidConnectionHeader "invalid_connection_header" BAD_REQUEST InvalidArgument Close
        "Invalid Connection header" "The Connection header names a header that must not be removed, or too many.";
    /// `Forwarded` of a trusted proxy that cannot be read in one way alone.
    InvalidForwarded "invalid_forwarded" BAD_REQUEST InvalidArgument Close
        "Invalid Forwarded header" "The Forwarded header is not valid.";
    /// `Upgrade` to several protocols, with a body, or with a method that the protocol does not allow.
    InvalidUpgrade "invalid_upgrade" BAD_REQUEST InvalidArgument Close
        "Invalid upgrade" "An upgrade names one protocol and has no body.";
    /// CONNECT.
    ConnectRefused "connect_refused" METHOD_NOT_ALLOWED Unimplemented Close
        "CONNECT is refused" "This is not a forward proxy.";
    /// `Expect` other than `100-continue`.
    ExpectationFailed "expectation_failed" EXPECTATION_FAILED InvalidArgument Close
        "Expectation failed" "The only expectation that can be met is 100-continue.";
    /// Path and query above the limit.
    UriTooLong "uri_too_long" URI_TOO_LONG InvalidArgument Close
        "URI too long" "Path and query are longer than the limit.";
    /// The head above its limit in bytes.
    HeadersTooLarge "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE ResourceExhausted Close
        "Headers too large" "The request's headers are larger than the limit.";
    /// More fields than the limit.
    TooManyHeaders "too_many_headers" REQUEST_HEADER_FIELDS_TOO_LARGE ResourceExhausted Close
        "Too many headers" "The request has more headers than the limit.";
    /// A version of HTTP that the listener's ClientPolicy leaves out.
    ProtocolDisabled "protocol_disabled" HTTP_VERSION_NOT_SUPPORTED Unimplemented Close
        "HTTP version not supported" "This version of HTTP is not served here.";
    /// The client was too slow with its head or body.
    RequestTimeout "request_timeout" REQUEST_TIMEOUT DeadlineExceeded Close
        "Request timeout" "The request did not arrive in time.";
    /// The body ended early or broke its framing.
    RequestBodyError "request_body_error" BAD_REQUEST InvalidArgument Close
        "Request body error" "The request's body ended early or is not framed as announced.";
    /// The body has more bytes than a policy allows.
    RequestBodyTooLarge "request_body_too_large" PAYLOAD_TOO_LARGE ResourceExhausted Close
        "Request body too large" "The request's body is larger than the limit.";
    /// The request is valid HTTP and breaks a rule of a policy's schema.
    RequestInvalid "request_invalid" BAD_REQUEST InvalidArgument Keep
        "Invalid request" "The request does not satisfy the schema.";
    /// The same, where the policy asks for 422.
    RequestUnprocessable "request_unprocessable" UNPROCESSABLE_ENTITY InvalidArgument Keep
        "Unprocessable request" "The request does not satisfy the schema.";
    /// A policy does not know the body's media type or coding.
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE InvalidArgument Keep
        "Unsupported media type" "The body has a media type or a coding that is not accepted here.";
    /// No operation of a policy's OpenAPI document has the path.
    OperationNotFound "operation_not_found" NOT_FOUND Unimplemented Keep
        "No such operation" "The API has no operation with this path.";
    /// Operations of the document with this path have other methods.
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED Unimplemented Keep
        "Method not allowed" "The API has no operation with this method and path.";
    /// Bodies that are held whole take all the memory that they may.
    BufferMemoryExhausted "buffer_memory_exhausted" SERVICE_UNAVAILABLE ResourceExhausted Close
        "Out of buffer memory" "Too many request bodies are held at this moment; try again.";
    /// No listener of the port serves the host.
    NoListener "no_listener" NOT_FOUND Unimplemented Keep
        "Unknown host" "No listener of this port serves the request's host.";
    /// No rule matches.
    NoRoute "no_route" NOT_FOUND Unimplemented Keep
        "No route" "No route matches the request.";
    /// The TLS connection was made for another listener than the one that serves the host.
    Misdirected "misdirected_request" MISDIRECTED_REQUEST Unavailable Keep
        "Misdirected request" "The connection was made for another host; open a new one for this host.";
    /// A policy wants credentials, and there are none.
    CredentialsMissing "credentials_missing" UNAUTHORIZED Unauthenticated Keep
        "Credentials missing" "The request has no credentials.";
    /// Credentials that cannot be read, or that stand twice.
    CredentialsMalformed "credentials_malformed" BAD_REQUEST InvalidArgument Close
        "Credentials malformed" "The request's credentials cannot be read, or there is more than one of them.";
    /// A token, a proof of possession or a key that is not good.
    CredentialsRefused "credentials_refused" UNAUTHORIZED Unauthenticated Keep
        "Credentials refused" "The request's credentials are not accepted.";
    /// A token without a scope that is needed.
    InsufficientScope "insufficient_scope" FORBIDDEN PermissionDenied Keep
        "Insufficient scope" "The token lacks a scope that is needed here.";
    /// Nobody can tell who the client is.
    IdentityProviderUnavailable "identity_provider_unavailable" SERVICE_UNAVAILABLE Unavailable Keep
        "Identity provider unavailable" "The identity provider cannot be reached; try again.";
    /// More passwords at once than can be checked.
    AuthenticationBusy "authentication_busy" SERVICE_UNAVAILABLE Unavailable Keep
        "Authentication busy" "Too many passwords are being checked; try again.";
    /// The rule names a Service or port that does not exist.
    BackendNotFound "backend_not_found" INTERNAL_SERVER_ERROR Unavailable Keep
        "Backend not found" "The route names a backend that does not exist.";
    /// The rule's backend is not a Service.
    InvalidKind "invalid_kind" INTERNAL_SERVER_ERROR Unavailable Keep
        "Invalid kind of backend" "The route names a backend of a kind that cannot serve it.";
    /// No ReferenceGrant allows the rule's backend.
    RefNotPermitted "ref_not_permitted" INTERNAL_SERVER_ERROR Unavailable Keep
        "Reference not permitted" "The route names a backend in a namespace that does not allow it.";
    /// The backend speaks a protocol that the route cannot.
    UnsupportedProtocol "unsupported_protocol" INTERNAL_SERVER_ERROR Unavailable Keep
        "Unsupported protocol" "The route's backend speaks a protocol that the route cannot use.";
    /// The rule holds a value that this version does not support.
    UnsupportedValue "unsupported_value" INTERNAL_SERVER_ERROR Unavailable Keep
        "Unsupported value" "The route holds a value that this version does not support.";
    /// The rule's filter cannot be honoured.
    InvalidFilter "invalid_filter" INTERNAL_SERVER_ERROR Unavailable Keep
        "Invalid filter" "The route has a filter that cannot be honoured.";
    /// A policy on the request's way is not here, or was refused by this proxy.
    PolicyUnavailable "policy_unavailable" INTERNAL_SERVER_ERROR Unavailable Keep
        "Policy unavailable" "A policy for this request is not in force yet, so the request is not let through.";
    /// A policy on the request's way cannot be honoured as it is written.
    PolicyInvalid "policy_invalid" INTERNAL_SERVER_ERROR Unavailable Keep
        "Policy invalid" "A policy for this request is not valid, so the request is not let through.";
    /// More than a limit allows.
    RateLimited "rate_limited" TOO_MANY_REQUESTS ResourceExhausted Keep
        "Too many requests" "The client has used up its rate limit.";
    /// More at once than a limit allows.
    ConcurrencyLimited "concurrency_limited" TOO_MANY_REQUESTS ResourceExhausted Keep
        "Too many requests at once" "The client has as many requests under way as it may have.";
    /// The rule has no backend, or none with a weight.
    NoBackend "no_backend" INTERNAL_SERVER_ERROR Unavailable Keep
        "No backend" "The route has no backend that takes requests.";
    /// The backend has no endpoint that is ready.
    NoEndpoints "no_endpoints" SERVICE_UNAVAILABLE Unavailable Keep
        "No endpoints" "The backend has no endpoint that is ready.";
    /// Every endpoint is unhealthy or ejected.
    NoHealthyEndpoints "no_healthy_endpoints" SERVICE_UNAVAILABLE Unavailable Keep
        "No healthy endpoints" "Every endpoint of the backend is unhealthy just now.";
    /// The backend's breaker is open.
    CircuitOpen "circuit_open" SERVICE_UNAVAILABLE Unavailable Keep
        "Circuit open" "The backend has failed too often and is left alone for a while.";
    /// The backend's limit of requests at once is reached, and none may wait or this one has waited too long.
    BackendAtLimit "backend_at_limit" SERVICE_UNAVAILABLE Unavailable Keep
        "Backend at its limit" "The backend has as many requests under way as it may.";
    /// As many requests wait for the backend as may.
    TooManyPending "too_many_pending" SERVICE_UNAVAILABLE Unavailable Keep
        "Too many pending requests" "As many requests wait for the backend as may.";
    /// The backend's adaptive limit of requests at once is reached.
    AdaptiveLimit "adaptive_limit" SERVICE_UNAVAILABLE Unavailable Keep
        "Adaptive limit reached" "The backend has as many requests under way as it can work on without delay.";
    /// No connection with any endpoint tried.
    ConnectFailed "upstream_connect_failed" SERVICE_UNAVAILABLE Unavailable Keep
        "Connect failed" "The backend refused the connection.";
    /// No connection in time.
    ConnectTimeout "upstream_connect_timeout" SERVICE_UNAVAILABLE Unavailable Keep
        "Connect timeout" "The backend did not accept the connection in time.";
    /// The connection broke before the response's head.
    UpstreamReset "upstream_reset" BAD_GATEWAY Unavailable Keep
        "Backend reset" "The backend closed the connection before it answered.";
    /// The response is not valid HTTP.
    UpstreamProtocolError "upstream_protocol_error" BAD_GATEWAY Internal Keep
        "Backend protocol error" "The backend's answer is not valid HTTP.";
    /// The backend changed to a protocol that was not asked for.
    UpgradeRefused "upgrade_refused" BAD_GATEWAY Internal Close
        "Upgrade refused" "The backend switched to a protocol that the client did not ask for.";
    /// One attempt took too long.
    UpstreamTimeout "upstream_timeout" GATEWAY_TIMEOUT DeadlineExceeded Keep
        "Backend timeout" "The backend did not answer in time.";
    /// All attempts together took too long.
    DeadlineExceeded "deadline_exceeded" GATEWAY_TIMEOUT DeadlineExceeded Keep
        "Deadline exceeded" "The request was not answered within the route's timeout.";
    /// A fault of the proxy.
    Internal "internal_error" INTERNAL_SERVER_ERROR Internal Close
        "Internal error" "The proxy failed; this is a bug.";
}

impl From<Unavailable> for Reason {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::BackendNotFound => Self::BackendNotFound,
            Unavailable::InvalidKind => Self::InvalidKind,
            Unavailable::RefNotPermitted => Self::RefNotPermitted,
            Unavailable::UnsupportedProtocol => Self::UnsupportedProtocol,
            Unavailable::UnsupportedValue => Self::UnsupportedValue,
            Unavailable::InvalidFilter => Self::InvalidFilter,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_distinct_and_made_of_small_letters() {
        let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn a_request_that_is_bad_as_http_closes_the_connection() {
        let is_bad =
            |reason: &&Reason| reason.status() == StatusCode::BAD_REQUEST && **reason != Reason::RequestInvalid;
        for reason in Reason::ALL.iter().filter(is_bad) {
            assert_eq!(reason.connection(), Connection::Close, "{reason:?}");
        }
    }

    #[test]
    fn the_page_on_errors_explains_every_reason_and_no_other() {
        let page = include_str!("../../../../docs/errors.md");
        let explained: BTreeSet<(&str, String)> = page
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .map(|word| {
                let section = page.split(&format!("\n### {word}\n")).nth(1).unwrap_or_default();
                let status = section.lines().find(|line| !line.is_empty()).unwrap_or_default();
                (word, status.to_owned())
            })
            .collect();
        let expected: BTreeSet<(&str, String)> = Reason::ALL
            .iter()
            .map(|reason| {
                let closes = if reason.connection() == Connection::Close { " The connection closes." } else { "" };
                let status = reason.status().as_u16();
                let grpc = reason.grpc_status();
                (reason.word(), format!("HTTP {status}, gRPC {} {grpc:?}.{closes}", grpc as u16))
            })
            .collect();
        assert_eq!(explained, expected);
    }
}

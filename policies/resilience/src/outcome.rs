//! What the end of a call says about its backend.
//!
//! Invariant: pure; each lookup is one bit of a table built in advance.

use std::ops::RangeInclusive;

/// What the end of a call says about its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The backend did its work, whether the client likes the answer or not.
    Success,
    /// The backend did not do its work.
    Failure,
    /// The call says nothing: the client went away, or the operator said so. It counts in no rate.
    Ignored,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// An HTTP answer with this status.
    Http(u16),
    /// A gRPC answer; its HTTP status is 200 and says nothing.
    Grpc(GrpcCode),
    /// No answer.
    Local(LocalError),
}

/// Why there is no answer, as this proxy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LocalError {
    /// No connection: refused, unreachable, or TLS failed.
    ConnectFailed,
    /// No connection in time.
    ConnectTimeout,
    /// No answer in time.
    ResponseTimeout,
    /// The backend reset the stream or closed the connection before the answer was whole.
    Reset,
    /// What the backend sent is not HTTP, or not allowed.
    ProtocolError,
    /// The client went away first.
    Cancelled,
}

impl LocalError {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::ResponseTimeout,
        Self::Reset,
        Self::ProtocolError,
        Self::Cancelled,
    ];
}

/// A gRPC status code (`google.rpc.Code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the codes are explained at https://grpc.io/docs/guides/status-codes/")]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcCode {
    /// Every code, by its number.
    pub const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The code of a `grpc-status` header. A number that is no code is `Unknown`, as the gRPC protocol says.
    pub fn from_number(number: u32) -> Self {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        Self::ALL.get(index).copied().unwrap_or(Self::Unknown)
    }
}

/// A range of HTTP statuses is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} to {last} is no range of HTTP statuses (100 to 599, the lower one first)")]
pub struct InvalidStatusRange {
    first: u16,
    last: u16,
}

/// A set of HTTP statuses, 100 to 599.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet([u64; 10]);

impl StatusSet {
    /// The union of `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Result<Self, InvalidStatusRange> {
        let mut set = Self::default();
        for range in ranges {
            let (first, last) = (*range.start(), *range.end());
            if first < 100 || last > 599 || first > last {
                return Err(InvalidStatusRange { first, last });
            }
            set.insert(range);
        }
        Ok(set)
    }

    /// Whether `status` is in it; one outside 100 to 599 never is.
    pub fn contains(&self, status: u16) -> bool {
        self.0.get(usize::from(status / 64)).is_some_and(|word| word >> (status % 64) & 1 == 1)
    }

    fn insert(&mut self, range: RangeInclusive<u16>) {
        for status in range {
            if let Some(word) = self.0.get_mut(usize::from(status / 64)) {
                *word |= 1 << (status % 64);
            }
        }
    }
}

/// Says what an ending means. By default failures are HTTP 5xx, the gRPC codes of a server in trouble (`Unknown`,
/// `DeadlineExceeded`, `Internal`, `Unavailable`, `DataLoss`) and every local error but a client that went away; ignored
/// are that client and gRPC `Cancelled`. Where an ending is in both sets it is ignored, as in resilience4j.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    http: Sets<StatusSet>,
    grpc: Sets<u32>,
    local: Sets<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sets<S> {
    failures: S,
    ignored: S,
}

impl Default for Classifier {
    fn default() -> Self {
        let mut server_errors = StatusSet::default();
        server_errors.insert(500..=599);
        let in_trouble = [
            GrpcCode::Unknown,
            GrpcCode::DeadlineExceeded,
            GrpcCode::Internal,
            GrpcCode::Unavailable,
            GrpcCode::DataLoss,
        ];
        let failed = LocalError::ALL.into_iter().filter(|error| *error != LocalError::Cancelled);
        Self {
            http: Sets { failures: server_errors, ignored: StatusSet::default() },
            grpc: Sets { failures: bits(in_trouble, grpc_bit), ignored: grpc_bit(GrpcCode::Cancelled) },
            local: Sets { failures: bits(failed, local_bit), ignored: local_bit(LocalError::Cancelled) },
        }
    }
}

impl Classifier {
    /// Takes the place of the HTTP sets.
    pub fn with_http(self, failures: StatusSet, ignored: StatusSet) -> Self {
        Self { http: Sets { failures, ignored }, ..self }
    }

    /// Takes the place of the gRPC sets.
    pub fn with_grpc(
        self,
        failures: impl IntoIterator<Item = GrpcCode>,
        ignored: impl IntoIterator<Item = GrpcCode>,
    ) -> Self {
        Self { grpc: Sets { failures: bits(failures, grpc_bit), ignored: bits(ignored, grpc_bit) }, ..self }
    }

    /// Takes the place of the sets of local errors.
    pub fn with_local(
        self,
        failures: impl IntoIterator<Item = LocalError>,
        ignored: impl IntoIterator<Item = LocalError>,
    ) -> Self {
        Self { local: Sets { failures: bits(failures, local_bit), ignored: bits(ignored, local_bit) }, ..self }
    }

    /// What `ending` means.
    pub fn classify(&self, ending: Ending) -> Outcome {
        let (failed, ignored) = match ending {
            Ending::Http(status) => (self.http.failures.contains(status), self.http.ignored.contains(status)),
            Ending::Grpc(code) => self.grpc.contain(grpc_bit(code)),
            Ending::Local(error) => self.local.contain(local_bit(error)),
        };
        match (failed, ignored) {
            (_, true) => Outcome::Ignored,
            (true, false) => Outcome::Failure,
            (false, false) => Outcome::Success,
        }
    }
}

impl Sets<u32> {
    fn contain(&self, bit: u32) -> (bool, bool) {
        (self.failures & bit != 0, self.ignored & bit != 0)
    }
}

fn bits<T>(items: impl IntoIterator<Item = T>, bit: impl Fn(T) -> u32) -> u32 {
    items.into_iter().fold(0, |set, item| set | bit(item))
}

fn grpc_bit(code: GrpcCode) -> u32 {
    1 << code as u8
}

fn local_bit(error: LocalError) -> u32 {
    1 << error as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_errors_are_failures_and_client_errors_are_not() {
        let classifier = Classifier::default();
        for status in 0..=u16::MAX {
            let expected = if (500..=599).contains(&status) { Outcome::Failure } else { Outcome::Success };
            assert_eq!(classifier.classify(Ending::Http(status)), expected, "{status}");
        }
    }

    #[test]
    fn a_client_that_goes_away_says_nothing_about_the_backend() {
        let classifier = Classifier::default();
        assert_eq!(classifier.classify(Ending::Local(LocalError::Cancelled)), Outcome::Ignored);
        assert_eq!(classifier.classify(Ending::Grpc(GrpcCode::Cancelled)), Outcome::Ignored);
    }

    #[test]
    fn every_other_local_error_is_a_failure() {
        let classifier = Classifier::default();
        let failed = LocalError::ALL
            .into_iter()
            .filter(|error| classifier.classify(Ending::Local(*error)) == Outcome::Failure)
            .count();
        assert_eq!(failed, LocalError::ALL.len() - 1);
    }

    #[test]
    fn grpc_codes_have_their_numbers() {
        for (number, code) in (0u32..).zip(GrpcCode::ALL) {
            assert_eq!(code as u32, number);
            assert_eq!(GrpcCode::from_number(number), code);
        }
        assert_eq!(GrpcCode::from_number(17), GrpcCode::Unknown);
    }

    #[test]
    fn grpc_codes_of_the_client_are_no_failures() {
        let failures: Vec<GrpcCode> = GrpcCode::ALL
            .into_iter()
            .filter(|code| Classifier::default().classify(Ending::Grpc(*code)) == Outcome::Failure)
            .collect();
        assert_eq!(failures.iter().map(|code| *code as u8).collect::<Vec<_>>(), [2, 4, 13, 14, 15]);
    }

    #[test]
    fn what_is_in_both_sets_is_ignored() {
        let classifier = Classifier::default()
            .with_http(StatusSet::new([429..=429, 500..=599]).unwrap(), StatusSet::new([501..=501]).unwrap())
            .with_grpc([GrpcCode::Ok, GrpcCode::Aborted], [GrpcCode::Aborted])
            .with_local([], [LocalError::Reset]);
        let outcome = |ending| classifier.classify(ending);
        assert_eq!(outcome(Ending::Http(429)), Outcome::Failure);
        assert_eq!(outcome(Ending::Http(501)), Outcome::Ignored);
        assert_eq!(outcome(Ending::Grpc(GrpcCode::Ok)), Outcome::Failure);
        assert_eq!(outcome(Ending::Grpc(GrpcCode::Aborted)), Outcome::Ignored);
        assert_eq!(outcome(Ending::Local(LocalError::Reset)), Outcome::Ignored);
        assert_eq!(outcome(Ending::Local(LocalError::ConnectFailed)), Outcome::Success);
    }

    #[test]
    fn a_range_outside_the_statuses_or_upside_down_is_refused() {
        #[expect(clippy::reversed_empty_ranges, reason = "that it is reversed is what is tested")]
        let bad = [99..=200, 500..=600, 504..=500];
        for range in bad {
            assert!(StatusSet::new([range.clone()]).is_err(), "{range:?}");
        }
        assert!(StatusSet::new([100..=599]).unwrap().contains(599));
    }
}

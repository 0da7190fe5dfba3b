//! The proxy's side: one stream to the control plane, kept up for ever.
//!
//! Invariants: what the sink holds stays when the stream is lost; a transaction reaches the sink whole; the sink is
//! called by one task, one call at a time. Token and CA are read anew at each connect, as both are rotated under us.

mod backoff;
mod connect;
mod holdings;
mod session;

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use control_plane_model::{Delta, GatewayKey, ResourceKey};
use kit_process::{drain::Drain, error::chain};
use tokio::time::Instant;

use backoff::Backoff;
use holdings::Holdings;
use session::Ended;

/// After a stream that was renewed sooner than this there is a pause, so that two peers cannot spin.
const SHORT_STREAM: Duration = Duration::from_secs(1);

/// How a proxy reaches its control plane.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `https://host:port`; `http://` to loopback alone. The certificate must name the host.
    pub endpoint: http::Uri,
    /// PEM file with the certificates that may have signed the control plane's; needed for `https`.
    pub ca_file: Option<PathBuf>,
    /// File with the bearer token.
    pub token_file: PathBuf,
    /// The Gateway whose configuration is wanted.
    pub gateway: GatewayKey,
    /// The proxy's name for the control plane's logs: its pod's.
    pub proxy: String,
}

/// What takes the configuration.
pub trait DeltaSink: Send + Sync {
    /// Takes a transaction: everything at once, less the objects that it returns as refused, of which the older
    /// state (or none) stays in force. The answer is all that is refused at this moment, also of earlier transactions;
    /// what was refused is offered again with the next transaction. A removal cannot be refused.
    fn apply(&self, delta: Delta) -> impl Future<Output = Vec<Refused>> + Send;

    /// Completes when what is refused is worth another offer although nothing came, such as for a port that may be free by
    /// now. Asked again after each transaction; cancel-safe. Never, where it is not overridden.
    fn retry(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Everything that the control plane has for this proxy has been applied. Called after each connect.
    fn synced(&self);

    /// The state of the stream. `Lost` is repeated for each attempt that fails.
    fn connection(&self, state: Connection);
}

impl<S: DeltaSink> DeltaSink for Arc<S> {
    fn apply(&self, delta: Delta) -> impl Future<Output = Vec<Refused>> + Send {
        S::apply(self, delta)
    }

    fn retry(&self) -> impl Future<Output = ()> + Send {
        S::retry(self)
    }

    fn synced(&self) {
        S::synced(self);
    }

    fn connection(&self, state: Connection) {
        S::connection(self, state);
    }
}

/// State of the stream to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The control plane answers.
    Connected,
    /// There is no stream; the last configuration stays in force while the client tries again.
    Lost {
        /// Why, in one line.
        error: String,
    },
}

/// An object that the proxy does not take, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The object.
    pub key: ResourceKey,
    /// One line for the object's status; must not hold a secret.
    pub error: String,
}

/// Keeps `sink` at the control plane's configuration until `drain`. Connects anew for ever, with growing pauses
/// (100 ms to 10 s, jittered); after a reconnect only what differs is sent.
///
/// Not to be cancelled but by `drain`, which it watches wherever it waits for the network: an `apply` that has begun ends.
pub async fn run(options: ClientOptions, sink: impl DeltaSink, drain: Drain) {
    let mut holdings = Holdings::default();
    let mut backoff = Backoff::default();
    loop {
        let mut synced = false;
        let start = Instant::now();
        let ended = session::run(&options, &sink, &drain, &mut holdings, &mut synced).await;
        if synced {
            backoff = Backoff::default();
        }
        match ended {
            Ok(Ended::Drained) => return,
            // The control plane wants a new stream and has served this one, or the verdict of this proxy is another one now.
            Ok(Ended::Renew) if synced => {
                tracing::debug!("discovery stream is renewed");
                if start.elapsed() < SHORT_STREAM {
                    pause(&mut backoff, &drain).await;
                }
            }
            Ok(Ended::Renew) => {
                let error = "the control plane closed the stream before it sent anything".to_owned();
                sink.connection(Connection::Lost { error });
                pause(&mut backoff, &drain).await;
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(server.address = %options.endpoint, %error, "discovery stream lost");
                sink.connection(Connection::Lost { error });
                pause(&mut backoff, &drain).await;
            }
        }
    }
}

async fn pause(backoff: &mut Backoff, drain: &Drain) {
    let delay = backoff.next(rand::random_range(0.5..=1.0));
    tokio::select! {
        () = tokio::time::sleep(delay) => {}
        () = drain.signaled() => {}
    }
}

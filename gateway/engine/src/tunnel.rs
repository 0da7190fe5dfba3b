//! An upgraded connection: bytes in both directions until one side ends or both are silent for too long.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::{
    connection::Downstream, exchange::Completion, filter::FilterSet, spawn::on_this_worker, upstream::Lease,
    watchdog::Phase,
};

/// The two sides of an upgrade that the backend has agreed to.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) backend: OnUpgrade,
    /// Counts as a request under way to its endpoint until the tunnel ends.
    pub(crate) lease: Lease,
}

impl Tunnel {
    /// Joins the two sides once the client has its 101. The account of the request ends with the tunnel.
    ///
    /// The client's connection is watched as before: silence in both directions ends it, and the tunnel with it.
    pub(crate) fn start<F: FilterSet>(self, downstream: Arc<Downstream<F>>, mut completion: Box<Completion>) {
        let Self { client, backend, lease } = self;
        on_this_worker(async move {
            let (client, backend) = match tokio::try_join!(client, backend) {
                Ok(sides) => sides,
                Err(error) => {
                    tracing::debug!(%error, "upgrade did not happen");
                    return;
                }
            };
            downstream.progress.enter(Phase::Tunnel);
            let mut client = TokioIo::new(client);
            let mut backend = TokioIo::new(backend);
            tokio::select! {
                copied = tokio::io::copy_bidirectional(&mut client, &mut backend) => {
                    if let Ok((up, down)) = copied {
                        completion.upload.add(up);
                        completion.response_bytes += down;
                    }
                    completion.body_ended();
                }
                () = downstream.progress.aborted() => {}
            }
            drop(lease);
        });
    }
}

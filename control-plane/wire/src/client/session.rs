//! One stream, from connect to its end.

use std::{collections::VecDeque, time::Duration};

use futures::stream::{self, StreamExt as _};
use kit_process::{drain::Drain, error::chain};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue};

use super::{
    ClientOptions, Connection, DeltaSink, connect,
    connect::ConnectError,
    holdings::{Holdings, Incoming, Offer},
};
use crate::{
    proto::{self, proxy_message::Message},
    resource,
};

/// How long the control plane may take to check the token and answer the call.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// Objects decoded before other tasks of the runtime get their turn.
const DECODE_BATCH: usize = 64;

/// How a stream ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The process drains.
    Drained,
    /// The control plane asks for a new stream, or this proxy has another verdict to give, which each stream's first Ack does.
    Renew,
}

/// Why a stream was lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the control plane does not answer within {} s", CALL_LIMIT.as_secs())]
    Silent,
    #[error("{}", describe(.0))]
    Status(Box<Status>),
}

/// Code and message; for an error of our own transport also what is behind it.
fn describe(status: &Status) -> String {
    let text = format!("{:?}: {}", status.code(), status.message());
    // The first source is what the message was made of.
    match std::error::Error::source(status).and_then(std::error::Error::source) {
        Some(inner) => format!("{text}: {}", chain(inner)),
        None => text,
    }
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Runs one stream to its end. Sets `synced` once the sink has had everything.
pub(super) async fn run(
    options: &ClientOptions,
    sink: &impl DeltaSink,
    drain: &Drain,
    holdings: &mut Holdings,
    synced: &mut bool,
) -> Result<Ended, SessionError> {
    let opened = tokio::select! {
        opened = open(options, holdings) => opened,
        () = drain.signaled() => return Ok(Ended::Drained),
    };
    let (mut updates, acks) = opened?;
    sink.connection(Connection::Connected);
    let mut incoming = Incoming::default();
    let mut is_whole = true;
    loop {
        let update = tokio::select! {
            update = updates.message() => update?,
            () = sink.retry(), if is_whole && *synced => {
                let before = holdings.refusals();
                apply(sink, holdings, Incoming::default()).await;
                if holdings.refusals() != before {
                    return Ok(Ended::Renew);
                }
                continue;
            }
            () = drain.signaled() => return Ok(Ended::Drained),
        };
        let Some(update) = update else { return Ok(Ended::Renew) };
        let (nonce, complete) = (update.nonce, update.synced);
        is_whole = !update.more;
        receive(holdings, &mut incoming, update).await;
        if !is_whole {
            continue;
        }
        apply(sink, holdings, std::mem::take(&mut incoming)).await;
        if complete {
            sink.synced();
            *synced = true;
        }
        let ack = proto::Ack { nonce, refused: holdings.refusals() };
        // The channel has room, as the control plane waits for one Ack before it sends more; where it is closed, the
        // stream has ended and the next read says why.
        let _ = acks.send(message(Message::Ack(ack))).await;
    }
}

async fn open(
    options: &ClientOptions,
    holdings: &Holdings,
) -> Result<(Streaming<proto::Update>, mpsc::Sender<proto::ProxyMessage>), SessionError> {
    let authorization: MetadataValue<_> = connect::authorization(options).await?;
    let mut client = connect::connect(options).await?;
    let hello = proto::Hello {
        gateway: options.gateway.to_string(),
        proxy: options.proxy.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kinds: resource::KINDS.map(str::to_owned).to_vec(),
    };
    let mut greeting: VecDeque<_> = [message(Message::Hello(hello))].into();
    greeting.extend(holdings.known().into_iter().map(|known| message(Message::Known(known))));
    let (acks, receiver) = mpsc::channel(4);
    let mut request = Request::new(stream::iter(greeting).chain(ReceiverStream::new(receiver)));
    request.metadata_mut().insert("authorization", authorization);
    let response = tokio::time::timeout(CALL_LIMIT, client.stream(request)).await.map_err(|_| SessionError::Silent)?;
    Ok((response?.into_inner(), acks))
}

async fn receive(holdings: &Holdings, incoming: &mut Incoming, update: proto::Update) {
    for (index, object) in update.upserted.into_iter().enumerate() {
        if index % DECODE_BATCH == DECODE_BATCH - 1 {
            tokio::task::yield_now().await;
        }
        holdings.receive(incoming, object);
    }
    for key in update.removed {
        Holdings::receive_removed(incoming, key);
    }
}

async fn apply(sink: &impl DeltaSink, holdings: &mut Holdings, incoming: Incoming) {
    let Offer { delta, forms } = holdings.offer(incoming);
    if delta.is_empty() {
        return;
    }
    let upserted = delta.upserted.clone();
    let refused = sink.apply(delta).await;
    holdings.settle(upserted, forms, refused);
}

fn message(message: Message) -> proto::ProxyMessage {
    proto::ProxyMessage { message: Some(message) }
}

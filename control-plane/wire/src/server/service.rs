//! The gRPC service: checks who asks, then turns a subscription into messages, one transaction at a time.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use control_plane_model::{GatewayKey, ResourceKey, Revision};
use futures::{Stream, stream};
use kit_process::drain::Drain;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    AuthenticationError, Authenticator, Greeting, Hub, KnownObject, ProxyIdentity, Subscription, Transaction,
    admission::Admission,
};
use crate::{
    ERROR_LIMIT, KEY_LIMIT, MESSAGE_LIMIT, PART_SIZE, REFUSALS_LIMIT, Version,
    proto::{self, discovery_server, proxy_message::Message},
};

/// How long a proxy may take to say who it is and what it has.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// How long a proxy may take to apply a transaction.
const ACK_LIMIT: Duration = Duration::from_mins(1);

/// How long a stream lives before the proxy has to show its token again, before jitter of a fifth either way.
const MAX_AGE: Duration = Duration::from_mins(30);

/// Memory that what a proxy says that it has may take, bytes: some 500,000 objects, more than any Gateway has.
const KNOWN_LIMIT: usize = 64 << 20;

/// What one object that a proxy has costs beside its key, bytes.
const KNOWN_COST: usize = 64;

/// Proxies that may be connected at one time, with what else opens connections to the port.
const CONNECTION_LIMIT: usize = 8192;

/// Serves the configuration of a [`Hub`] to proxies that an [`Authenticator`] knows.
#[derive(Debug)]
pub struct DiscoveryService<A> {
    hub: Hub,
    authenticator: Arc<A>,
    drain: Drain,
    max_age: Duration,
    connection_limit: usize,
}

impl<A: Authenticator> DiscoveryService<A> {
    /// Serves `hub` until `drain`, which ends every stream, so that proxies go to another replica.
    pub fn new(hub: Hub, authenticator: A, drain: Drain) -> Self {
        let (max_age, connection_limit) = (MAX_AGE, CONNECTION_LIMIT);
        Self { hub, authenticator: Arc::new(authenticator), drain, max_age, connection_limit }
    }

    /// How long a stream lives before its proxy has to show its token again; 30 minutes unless set. Each stream's own age
    /// is up to a fifth longer or shorter.
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// How many connections may be open at one time; 8192 unless set. Those beyond it are closed at once.
    pub fn with_connection_limit(mut self, limit: usize) -> Self {
        self.connection_limit = limit;
        self
    }

    /// What lets connections in.
    pub(super) fn admission(&self) -> Admission {
        Admission::new(self.hub.clone(), self.connection_limit)
    }

    /// The tonic service, with the message limits set.
    pub fn into_server(self) -> discovery_server::DiscoveryServer<Self> {
        discovery_server::DiscoveryServer::new(self)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    async fn identify(&self, metadata: &MetadataMap) -> Result<ProxyIdentity, Status> {
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty())
            .ok_or_else(|| Status::unauthenticated("no bearer token"))?;
        self.authenticator.authenticate(token).await.map_err(|error| match error {
            AuthenticationError::Invalid(_) => Status::unauthenticated(error.to_string()),
            AuthenticationError::Unavailable(_) => Status::unavailable(error.to_string()),
        })
    }
}

#[tonic::async_trait]
impl<A: Authenticator> discovery_server::Discovery for DiscoveryService<A> {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<proto::Update, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<proto::ProxyMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let identity = self.identify(request.metadata()).await.inspect_err(|status| {
            tracing::warn!(error = status.message(), "proxy refused");
        })?;
        let mut messages = request.into_inner();
        let greeted = timeout(GREETING_LIMIT, greet(&mut messages, &identity));
        let (hello, known) = greeted.await.map_err(|_| Status::deadline_exceeded("no Hello, or no last Known"))??;
        tracing::info!(
            gateway = %identity.gateway,
            pod = %identity.pod,
            proxy = %hello.proxy,
            version = %hello.version,
            known = known.len(),
            "proxy subscribed"
        );
        let session = Session {
            subscription: self.hub.subscribe(identity, greeting(hello, known)),
            messages,
            drain: self.drain.clone(),
            expires: Instant::now() + self.max_age.mul_f64(rand::random_range(0.8..=1.2)),
            parts: VecDeque::new(),
            nonce: 0,
            outstanding: None,
        };
        Ok(Response::new(Box::pin(stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(Some(update)) => Some((Ok(update), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        }))))
    }
}

fn greeting(hello: proto::Hello, known: Known) -> Greeting {
    Greeting { version: hello.version, kinds: hello.kinds.into_iter().collect(), known }
}

type Known = HashMap<String, KnownObject>;

/// Reads the Hello and what the proxy has; refuses another Gateway than the token's.
async fn greet(
    messages: &mut Streaming<proto::ProxyMessage>,
    identity: &ProxyIdentity,
) -> Result<(proto::Hello, Known), Status> {
    let Some(Message::Hello(hello)) = read(messages).await? else {
        return Err(Status::invalid_argument("the first message is not a Hello"));
    };
    if hello.gateway != identity.gateway.to_string() {
        tracing::warn!(
            gateway = %identity.gateway,
            pod = %identity.pod,
            requested = %hello.gateway,
            "proxy refused: it asks for another gateway"
        );
        return Err(denied(&hello.gateway, &identity.gateway));
    }
    let mut known = Known::new();
    let mut size = 0;
    loop {
        let Some(Message::Known(message)) = read(messages).await? else {
            return Err(Status::invalid_argument("a Hello is followed by Known messages, the last one marked"));
        };
        for object in message.resources {
            if object.key.len() > KEY_LIMIT {
                return Err(Status::invalid_argument(format!("a key is longer than {KEY_LIMIT} bytes")));
            }
            size += object.key.len() + KNOWN_COST;
            if size > KNOWN_LIMIT {
                return Err(Status::resource_exhausted("more objects than any Gateway has"));
            }
            // A version that is none is one that is not known: the object is sent again.
            let version = Version::from_bytes(&object.version).unwrap_or_else(Version::none);
            known.insert(object.key, KnownObject { version, revision: Revision(object.revision) });
        }
        if message.last {
            return Ok((hello, known));
        }
    }
}

fn denied(requested: &str, own: &GatewayKey) -> Status {
    Status::permission_denied(format!("the token belongs to a proxy of gateway {own}, not of {requested}"))
}

async fn read(messages: &mut Streaming<proto::ProxyMessage>) -> Result<Option<Message>, Status> {
    Ok(messages.message().await?.and_then(|message| message.message))
}

/// A stream after its greeting.
struct Session {
    subscription: Subscription,
    messages: Streaming<proto::ProxyMessage>,
    drain: Drain,
    expires: Instant,
    /// Of the transaction that is being sent.
    parts: VecDeque<proto::Update>,
    nonce: u64,
    /// The nonce that the proxy has to acknowledge before it is sent more, and until when.
    outstanding: Option<(u64, Instant)>,
}

impl Session {
    /// The next message; `None` where the stream is to end.
    async fn next(&mut self) -> Result<Option<proto::Update>, Status> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                return Ok(Some(part));
            }
            let limit = self.outstanding.map_or(self.expires, |(_, limit)| limit);
            tokio::select! {
                () = self.drain.signaled() => return Ok(None),
                () = sleep_until(self.expires) => return Ok(None),
                () = sleep_until(limit), if self.outstanding.is_some() => {
                    return Err(Status::deadline_exceeded("the transaction was not acknowledged in time"));
                }
                message = self.messages.message() => match message? {
                    None => return Ok(None),
                    Some(proto::ProxyMessage { message: Some(Message::Ack(ack)) }) => self.acknowledge(ack)?,
                    Some(_) => return Err(Status::invalid_argument("after its greeting a proxy sends Acks only")),
                },
                transaction = self.subscription.next(), if self.outstanding.is_none() => {
                    self.parts = split(transaction, &mut self.nonce);
                    self.outstanding = Some((self.nonce, Instant::now() + ACK_LIMIT));
                }
            }
        }
    }

    fn acknowledge(&mut self, ack: proto::Ack) -> Result<(), Status> {
        if self.outstanding.is_none_or(|(nonce, _)| nonce != ack.nonce) {
            return Err(Status::invalid_argument(format!("nonce {} is not the one that waits for an Ack", ack.nonce)));
        }
        self.outstanding = None;
        self.subscription.acknowledge(refusals(ack.refused));
        Ok(())
    }
}

/// What an Ack says, within the limits that our own proxies keep: it is stored, logged, and ends in statuses.
fn refusals(refused: Vec<proto::Refusal>) -> BTreeMap<ResourceKey, String> {
    if refused.len() > REFUSALS_LIMIT {
        tracing::warn!(refused = refused.len(), taken = REFUSALS_LIMIT, "a proxy refuses too many objects to report");
    }
    let mut taken = BTreeMap::new();
    for refusal in refused.into_iter().take(REFUSALS_LIMIT) {
        let key = Some(&refusal.key).filter(|key| key.len() <= KEY_LIMIT).and_then(|key| key.parse().ok());
        if let Some(key) = key {
            taken.insert(key, refusal.error.chars().take(ERROR_LIMIT).collect());
        } else {
            tracing::warn!(key.length = refusal.key.len(), "a proxy refuses what this version does not know");
        }
    }
    taken
}

/// Cuts a transaction into messages of some [`PART_SIZE`].
fn split(transaction: Transaction, nonce: &mut u64) -> VecDeque<proto::Update> {
    let mut parts = VecDeque::new();
    let mut part = proto::Update::default();
    let mut size = 0;
    let mut grow = |part: &mut proto::Update, added: usize| {
        if size > 0 && size + added > PART_SIZE {
            size = 0;
            parts.push_back(std::mem::take(part));
        }
        size += added;
    };
    for (key, object) in transaction.upserted {
        let key = key.to_string();
        grow(&mut part, key.len() + object.body.len());
        let version = Bytes::copy_from_slice(object.version.as_bytes());
        let revision = object.revision.0;
        part.upserted.push(proto::Resource { key, version, body: object.body, revision });
    }
    for key in transaction.removed {
        grow(&mut part, key.len());
        part.removed.push(key);
    }
    part.synced = transaction.synced;
    parts.push_back(part);
    let last = parts.len() - 1;
    for (index, part) in parts.iter_mut().enumerate() {
        *nonce += 1;
        part.nonce = *nonce;
        part.more = index < last;
    }
    parts
}

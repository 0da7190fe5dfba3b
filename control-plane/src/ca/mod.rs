//! The control plane's own certificate authority: proxies know by it that they talk to the control plane.
//!
//! Owns the roots (Secret `nebula-ca` in the control plane's namespace), this replica's serving certificate (in memory
//! only) and the bundle that proxies trust. All replicas share the roots: the Secret is created if it is absent and
//! replaced only at the version that was read, so of two replicas that make a root at once one wins and the other reads.
//! Invariant: the serving certificate is signed by a root of the stored bundle.

mod material;
pub mod plan;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::Secret;
use kit_process::{clock::Clock, drain::Drain, error::chain, telemetry::Readiness};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::sync::watch;

pub use material::{MaterialError, Root};
use plan::{Action, Validity};

use crate::kubernetes::{is_status, limited};

/// Name of the Secret with the roots, and of the ConfigMap with the bundle.
pub const NAME: &str = "nebula-ca";
/// Key of the bundle in the ConfigMap.
pub const BUNDLE_KEY: &str = "ca.crt";
/// How often the stored roots are looked at. Far shorter than [`plan::ACTIVATION`], so that every replica hands out a
/// root before any replica signs with it.
const INTERVAL: Duration = Duration::from_mins(10);
const RETRY: Duration = Duration::from_secs(2);
const READINESS: &str = "certificate authority";

/// Why the roots are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The API server does not give or take the Secret.
    #[error("access Secret {namespace}/{NAME} (may the control plane's ServiceAccount get, create and update it?)")]
    Secret {
        /// Where it should be.
        namespace: String,
        /// What the API server says.
        #[source]
        source: kube::Error,
    },
    /// What is stored is no root, or none can be made.
    #[error("use Secret {namespace}/{NAME}")]
    Material {
        /// Where it is.
        namespace: String,
        /// Why not.
        #[source]
        source: MaterialError,
    },
    /// No stored root is valid now.
    #[error("no root is valid now (is the machine's clock right?)")]
    NoSigner,
}

/// Hands out the serving certificate that is current at each handshake.
#[derive(Debug, Default)]
struct Serving(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// The certificate authority of one replica.
pub struct Authority {
    secrets: Api<Secret>,
    namespace: String,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    serving: Arc<Serving>,
    bundle: watch::Sender<Arc<str>>,
}

impl Authority {
    /// For the replica whose discovery port is known by `names`. Does nothing before [`Self::refresh`].
    pub fn new(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            names,
            provider,
            clock,
            serving: Arc::default(),
            bundle: watch::Sender::new("".into()),
        }
    }

    /// The certificates that proxies should trust, PEM; empty until the roots are known.
    pub fn bundle(&self) -> watch::Receiver<Arc<str>> {
        self.bundle.subscribe()
    }

    /// What the discovery port presents; a renewed certificate counts from the next handshake.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.serving.clone()
    }

    /// Keeps roots and serving certificate current until the drain. Marks readiness once both are there.
    pub async fn run(self: Arc<Self>, readiness: Readiness, drain: Drain) {
        readiness.pending(READINESS, "the roots are not read yet");
        let mut held = Held::default();
        loop {
            let wait = match self.refresh(&mut held).await {
                Ok(()) => {
                    readiness.done(READINESS);
                    INTERVAL
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "certificate authority is not up to date");
                    if held.leaf.is_none() {
                        readiness.pending(READINESS, chain(&error));
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.signaled() => return,
            }
        }
    }

    /// One look at the stored roots: adds a root and renews the serving certificate where it is time.
    ///
    /// # Errors: [`CaError`]; the serving certificate and the bundle stay what they were.
    pub async fn refresh(&self, held: &mut Held) -> Result<(), CaError> {
        let now = self.clock.unix_seconds();
        let roots = self.stored_roots(now, &held.roots).await?;
        let validities: Vec<Validity> = roots.iter().map(Root::validity).collect();
        let signer = plan::signer(now, &validities).and_then(|index| roots.get(index)).ok_or(CaError::NoSigner)?;
        let fresh = held.leaf.as_ref().is_some_and(|(root, leaf)| root == signer && now < leaf.half());
        if !fresh {
            let validity = plan::leaf_validity(now, signer.validity());
            let key = signer.serving(&self.names, validity, &self.provider).map_err(|source| self.material(source))?;
            self.serving.0.store(Some(Arc::new(key)));
            tracing::info!(not_after = validity.not_after, "serving certificate made");
            held.leaf = Some((signer.clone(), validity));
        }
        let bundle = material::bundle(&roots);
        self.bundle.send_if_modified(|current| {
            let changed = **current != *bundle;
            *current = bundle.into();
            changed
        });
        held.roots = roots;
        Ok(())
    }

    fn material(&self, source: MaterialError) -> CaError {
        CaError::Material { namespace: self.namespace.clone(), source }
    }

    fn secret(&self, source: kube::Error) -> CaError {
        CaError::Secret { namespace: self.namespace.clone(), source }
    }

    /// The roots in the Secret, after adding one if it is time. A Secret that vanished is made again of what is `held`.
    async fn stored_roots(&self, now: u64, held: &[Root]) -> Result<Vec<Root>, CaError> {
        // Each lost race means that another replica wrote, so the next reading differs: a few rounds suffice.
        for _ in 0..5 {
            let stored = limited(self.secrets.get_opt(NAME)).await.map_err(|source| self.secret(source))?;
            let mut roots = match &stored {
                Some(secret) => {
                    let data = secret.data.clone().unwrap_or_default();
                    material::from_secret(&data).map_err(|source| self.material(source))?
                }
                None => held.to_vec(),
            };
            let validities: Vec<Validity> = roots.iter().map(Root::validity).collect();
            match plan::plan(now, &validities) {
                Action::Keep if stored.is_some() => return Ok(roots),
                Action::Keep => {}
                Action::Add => {
                    roots.retain(|root| root.validity().not_after >= now);
                    roots.push(Root::generate(now).map_err(|source| self.material(source))?);
                }
            }
            if self.write(stored, &roots).await? {
                tracing::info!(roots = roots.len(), "roots stored");
                return Ok(roots);
            }
        }
        let source = kube::Error::Api(kube::core::Status::failure("roots change without end", "Conflict").boxed());
        Err(self.secret(source))
    }

    /// Writes `roots` over the Secret as it was read; `false` when another replica was faster.
    async fn write(&self, stored: Option<Secret>, roots: &[Root]) -> Result<bool, CaError> {
        let data = Some(material::to_secret(roots));
        let written = if let Some(mut secret) = stored {
            secret.data = data;
            limited(self.secrets.replace(NAME, &PostParams::default(), &secret)).await
        } else {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                labels: Some([("app.kubernetes.io/part-of".to_owned(), "nebula".to_owned())].into()),
                ..ObjectMeta::default()
            };
            let secret = Secret { metadata, data, type_: Some("Opaque".to_owned()), ..Secret::default() };
            limited(self.secrets.create(&PostParams::default(), &secret)).await
        };
        match written {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 409) => Ok(false),
            Err(error) => Err(self.secret(error)),
        }
    }
}

/// What a replica keeps in memory between two looks.
#[derive(Debug, Default)]
pub struct Held {
    roots: Vec<Root>,
    leaf: Option<(Root, Validity)>,
}

impl Held {
    /// When the serving certificate is valid.
    pub fn leaf_validity(&self) -> Option<Validity> {
        self.leaf.as_ref().map(|(_, validity)| *validity)
    }
}

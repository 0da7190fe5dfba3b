//! Which version of the Gateway API's definitions the cluster has: an annotation of the GatewayClass definition.
//! Not waited for at the start, as it decides nothing but the condition `SupportedVersion`.

use control_plane_translate::Change;
use futures::StreamExt as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{Event, watcher},
    },
};
use tokio::time::Instant;

use super::{Context, Health, Input, Retry};
use crate::kubernetes::watching;

const DEFINITION: &str = "gatewayclasses.gateway.networking.k8s.io";
const VERSION: &str = "gateway.networking.k8s.io/bundle-version";

/// Tells the apply loop of the version, and of each change of it, until the drain.
pub(super) async fn watch(context: Context) {
    let api = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(context.client.clone());
    // The chart grants this one object by name, so it has to be asked for by name.
    let config = watching().fields(&format!("metadata.name={DEFINITION}"));
    let mut events = Box::pin(watcher(api, config).backoff(Retry::default()));
    let mut health = Health::new("CustomResourceDefinition", false, &context.metrics);
    let mut known = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = health.quiet() => continue,
            () = context.drain.signaled() => return,
        };
        let definition = match event {
            None => return,
            Some(Err(error)) => {
                health.broken(&error);
                continue;
            }
            Some(Ok(event)) => {
                health.alive(&event);
                match event {
                    Event::Apply(definition) | Event::InitApply(definition) => definition,
                    Event::Delete(_) | Event::Init | Event::InitDone => continue,
                }
            }
        };
        let version = definition.metadata.annotations.and_then(|mut annotations| annotations.remove(VERSION));
        let Some(version) = version.filter(|version| known.as_ref() != Some(version)) else { continue };
        known = Some(version.clone());
        let changes = vec![Change::BundleVersion(version)];
        // An error means that the apply loop is gone, and with it the process.
        if context.sink.send(Input::Changes { changes, synced: None, received: Instant::now() }).await.is_err() {
            return;
        }
    }
}

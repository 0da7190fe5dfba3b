//! The provisioner's writes. Each object is looked at before it is changed or deleted, so that nothing of anybody else's is.
//!
//! What is written names the object that was looked at by its uid, and a deletion its version too: whatever another client
//! does in between is a conflict, which is tried again. (A foreign object that is made in between, under a name that was
//! free, is the one case that the API has no way to tell.)

use std::fmt::Debug;

use control_plane_model::GatewayKey;
use control_plane_translate::DeploymentSpec;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{names::resource_name, objects::Objects, observe::made_for};
use crate::kubernetes::{CONTROLLER, FIELD_MANAGER, describe, is_status, limited};

/// Why a Gateway does not get what it wants.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProvisionError {
    /// The API server does not do it.
    #[error("{}", describe(.0))]
    Api(#[from] kube::Error),
    /// The name is taken.
    #[error("{kind} {name:?} in its namespace is not of this Gateway: delete it, or give the Gateway another name")]
    Foreign {
        /// Kind of the object that has the name.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// The API server, as one control plane writes to it.
pub(super) struct Cluster {
    client: Client,
    /// Value of the label [`CONTROLLER`].
    controller: String,
}

impl Cluster {
    pub(super) fn new(client: Client, controller: String) -> Self {
        Self { client, controller }
    }

    /// Applies the trust bundle of a namespace. Its name is ours, whoever made it.
    pub(super) async fn apply_bundle(&self, namespace: &str, bundle: &ConfigMap) -> Result<(), ProvisionError> {
        self.patch(namespace, bundle).await
    }

    pub(super) async fn apply_all(&self, spec: &DeploymentSpec, objects: &Objects) -> Result<(), ProvisionError> {
        self.apply(spec, &objects.service_account).await?;
        self.apply(spec, &objects.deployment).await?;
        match &objects.service {
            Some(service) => self.apply(spec, service).await,
            None => self.delete::<Service>(&spec.gateway).await,
        }
    }

    /// Deletes whatever this control plane made for a Gateway.
    pub(super) async fn remove(&self, gateway: &GatewayKey) -> Result<(), ProvisionError> {
        // The one that is not watched goes first: as long as another one is there, a failure is tried again.
        self.delete::<ServiceAccount>(gateway).await?;
        self.delete::<Service>(gateway).await?;
        self.delete::<Deployment>(gateway).await
    }

    /// Applies one object of a Gateway, unless an object of that name is not the Gateway's.
    async fn apply<K: Object>(&self, spec: &DeploymentSpec, object: &K) -> Result<(), ProvisionError> {
        let namespace = &spec.gateway.0.namespace;
        let name = object.meta().name.clone().unwrap_or_default();
        let found = limited(self.api::<K>(namespace).get_metadata_opt(&name)).await?;
        let Some(found) = found else { return self.patch(namespace, object).await };
        let owners = found.metadata.owner_references.as_deref().unwrap_or_default();
        // A Gateway that was deleted and made again has another uid: the cluster is about to remove what the first one had.
        if !owners.iter().any(|owner| owner.uid == spec.uid) {
            return Err(ProvisionError::Foreign { kind: K::KIND, name });
        }
        let mut object = object.clone();
        object.meta_mut().uid = found.metadata.uid;
        self.patch(namespace, &object).await
    }

    /// Server-side apply, with our fields forced.
    async fn patch<K: Object>(&self, namespace: &str, object: &K) -> Result<(), ProvisionError> {
        let name = object.meta().name.clone().unwrap_or_default();
        let params = PatchParams::apply(FIELD_MANAGER).force();
        limited(self.api::<K>(namespace).patch(&name, &params, &Patch::Apply(object))).await?;
        Ok(())
    }

    /// Deletes an object that this control plane made for a Gateway; leaves any other alone.
    async fn delete<K: Object>(&self, gateway: &GatewayKey) -> Result<(), ProvisionError> {
        let api = self.api::<K>(&gateway.0.namespace);
        let name = resource_name(&gateway.0.name);
        let Some(found) = limited(api.get_metadata_opt(&name)).await? else { return Ok(()) };
        if !self.is_mine(&found.metadata, gateway) {
            return Ok(());
        }
        let ObjectMeta { uid, resource_version, .. } = found.metadata;
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version });
        match limited(api.delete(&name, &params)).await {
            Ok(_) => Ok(()),
            Err(error) if is_status(&error, 404) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_mine(&self, metadata: &ObjectMeta, gateway: &GatewayKey) -> bool {
        let controller = metadata.labels.as_ref().and_then(|labels| labels.get(CONTROLLER));
        controller == Some(&self.controller) && made_for(metadata).as_ref() == Some(gateway)
    }

    fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A kind that the provisioner writes.
trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + k8s_openapi::Resource
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + k8s_openapi::Resource
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

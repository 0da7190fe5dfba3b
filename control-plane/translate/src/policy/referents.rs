//! What a policy names besides its targets: identity providers, entries of ConfigMaps, Secrets; and a record of it, so that
//! a change of one of them is one of the policies too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use control_plane_model::ObjectName;
use crds::IdentityProvider;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::Kind;

/// The type of Secrets whose entries are credentials of clients. No other Secret is read for them.
pub const CREDENTIALS_TYPE: &str = "nebula.dev/credentials";

type Store<T> = BTreeMap<ObjectName, Arc<T>>;

/// The objects that policies may name.
pub(crate) struct Referents<'a> {
    pub(crate) providers: &'a Store<IdentityProvider>,
    pub(crate) config_maps: &'a Store<ConfigMap>,
    pub(crate) secrets: &'a Store<Secret>,
    /// What was asked for, whether it is there or not.
    pub(crate) asked: BTreeSet<(Kind, ObjectName)>,
}

impl<'a> Referents<'a> {
    /// # Errors: the text for the user.
    pub(super) fn provider(&mut self, name: &ObjectName) -> Result<&'a IdentityProvider, String> {
        self.asked.insert((Kind::IdentityProvider, name.clone()));
        self.providers.get(name).map(|object| &**object).ok_or_else(|| format!("there is no IdentityProvider {name}"))
    }

    /// An entry of a ConfigMap, as text.
    ///
    /// # Errors: the text for the user.
    pub(super) fn entry(&mut self, name: &ObjectName, key: &str) -> Result<&'a str, String> {
        self.asked.insert((Kind::ConfigMap, name.clone()));
        let map = self.config_maps.get(name).ok_or_else(|| format!("there is no ConfigMap {name}"))?;
        let entry = map.data.as_ref().and_then(|data| data.get(key));
        entry.map(String::as_str).ok_or_else(|| format!("ConfigMap {name} has no entry {key:?}"))
    }

    /// The entries of a Secret of [`CREDENTIALS_TYPE`].
    ///
    /// # Errors: the text for the user. It never holds any part of an entry.
    pub(super) fn credentials(&mut self, name: &ObjectName) -> Result<BTreeMap<&'a str, &'a [u8]>, String> {
        self.asked.insert((Kind::Secret, name.clone()));
        let missing = || format!("there is no Secret {name} of type {CREDENTIALS_TYPE}");
        let secret = self.secrets.get(name).ok_or_else(missing)?;
        if secret.type_.as_deref() != Some(CREDENTIALS_TYPE) {
            return Err(missing());
        }
        let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
        let text = secret.string_data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
        Ok(data.chain(text).collect())
    }
}

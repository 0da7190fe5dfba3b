//! The policies on the way of a request, compiled once for each chain of them.
//!
//! Invariants: rules point to the slot of their chain, and an edit of a policy replaces what its slots hold: it costs the
//! chains that the policy is part of, not the routes. A chain with a policy that is missing, refused or invalid answers 500.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use arc_swap::ArcSwap;
use control_plane_model::{ListenerKey, Policy, PolicyKey, PolicySpec};
use kit_process::error::chain;

use crate::{
    client,
    filter::{Chain, FilterSet, InvalidPolicy},
    local_reply::{LocalReply, Reason},
    upstream,
};

/// The keys of a chain: of the Gateway, the listener, the route, the rule.
pub(crate) type ChainKey = Arc<[PolicyKey]>;

/// What a chain of policies does at present.
pub(crate) struct PolicySlot<F>(ArcSwap<Compiled<F>>);

/// The filters of a chain, or why it answers by itself.
pub(crate) type Compiled<F> = Result<Chain<F>, LocalReply>;

impl<F> PolicySlot<F> {
    /// What it does for a request that begins now.
    pub(crate) fn load(&self) -> Arc<Compiled<F>> {
        self.0.load_full()
    }
}

impl<F> fmt::Debug for PolicySlot<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PolicySlot")
    }
}

/// The slot of a chain; `None` for a chain without policies.
pub(crate) type ChainSlot<F> = Option<Arc<PolicySlot<F>>>;

/// The chain of policies of a rule, which depends on the listener by which a request came.
pub(crate) enum RulePolicies<F> {
    /// The same for every listener; `None` for no policy at all.
    Same(ChainSlot<F>),
    /// By listener.
    ByListener(Box<[(ListenerKey, ChainSlot<F>)]>),
}

impl<F> RulePolicies<F> {
    /// Of a rule whose route is attached to these listeners.
    pub(crate) fn new(slots: Vec<(ListenerKey, ChainSlot<F>)>) -> Self {
        let pointer = |slot: &ChainSlot<F>| slot.as_ref().map(Arc::as_ptr);
        match slots.first() {
            None => Self::Same(None),
            Some((_, first)) if slots.iter().all(|(_, slot)| pointer(slot) == pointer(first)) => {
                Self::Same(first.clone())
            }
            Some(_) => Self::ByListener(slots.into()),
        }
    }

    /// What they do with a request that came by `listener`; `None` where there is no policy.
    pub(crate) fn of(&self, listener: &ListenerKey) -> Option<Arc<Compiled<F>>> {
        let slot = match self {
            Self::Same(slot) => slot.as_ref(),
            Self::ByListener(slots) => slots.iter().find(|(key, _)| key == listener)?.1.as_ref(),
        };
        slot.map(|slot| slot.load())
    }
}

impl<F> fmt::Debug for RulePolicies<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RulePolicies")
    }
}

/// All chains in use.
pub(crate) struct PolicySlots<F: FilterSet> {
    slots: BTreeMap<ChainKey, Arc<PolicySlot<F>>>,
    by_policy: BTreeMap<PolicyKey, BTreeSet<ChainKey>>,
    /// What outlives an edit: buckets, for example.
    state: Arc<F::State>,
    /// What was made to check policies, until the chains are compiled: what the two have in common is then made once.
    checked: Vec<F>,
}

type Policies = BTreeMap<PolicyKey, Arc<Policy>>;

impl<F: FilterSet> PolicySlots<F> {
    pub(crate) fn new(state: Arc<F::State>) -> Self {
        Self { slots: BTreeMap::new(), by_policy: BTreeMap::new(), state, checked: Vec::new() }
    }

    /// Whether `policy` can be honoured by itself.
    pub(crate) fn check(&mut self, policy: &Arc<Policy>) -> Result<(), InvalidPolicy> {
        match &policy.spec {
            PolicySpec::Invalid => {}
            PolicySpec::Backend(settings) => upstream::check_settings(settings)
                .map_err(|error| InvalidPolicy { policy: policy.key.clone(), message: chain(&error) })?,
            _ => self.checked.extend(F::compile_policies(std::slice::from_ref(policy), &self.state)?),
        }
        Ok(())
    }

    /// To be called once all chains are compiled.
    pub(crate) fn forget_checked(&mut self) {
        self.checked.clear();
    }

    /// The slot of a chain, made where there is none.
    pub(crate) fn slot(&mut self, chain: ChainKey, policies: &Policies) -> Arc<PolicySlot<F>> {
        if let Some(slot) = self.slots.get(&chain) {
            return slot.clone();
        }
        for policy in chain.iter() {
            self.by_policy.entry(policy.clone()).or_default().insert(chain.clone());
        }
        let compiled = Arc::new(self.compile(&chain, policies));
        let slot = Arc::new(PolicySlot(ArcSwap::new(compiled)));
        self.slots.insert(chain, slot.clone());
        slot
    }

    /// Compiles again whatever one of `changed` is part of.
    pub(crate) fn refresh(&mut self, changed: &BTreeSet<PolicyKey>, policies: &Policies) {
        let chains: BTreeSet<&ChainKey> =
            changed.iter().filter_map(|policy| self.by_policy.get(policy)).flatten().collect();
        for chain in chains {
            if let Some(slot) = self.slots.get(chain) {
                slot.0.store(Arc::new(self.compile(chain, policies)));
            }
        }
    }

    /// Forgets the chains that no rule points to any more.
    pub(crate) fn drop_unused(&mut self) {
        let unused: Vec<ChainKey> = self
            .slots
            .iter()
            .filter(|(_, slot)| Arc::strong_count(slot) == 1)
            .map(|(chain, _)| chain.clone())
            .collect();
        for chain in unused {
            self.slots.remove(&chain);
            for policy in chain.iter() {
                if let Some(chains) = self.by_policy.get_mut(policy) {
                    chains.remove(&chain);
                    if chains.is_empty() {
                        self.by_policy.remove(policy);
                    }
                }
            }
        }
    }

    fn compile(&self, chain: &[PolicyKey], policies: &Policies) -> Compiled<F> {
        let mut levels = Vec::with_capacity(chain.len());
        for key in chain {
            match policies.get(key) {
                None => return Err(LocalReply::from(Reason::PolicyUnavailable).by(key)),
                Some(policy) if policy.spec == PolicySpec::Invalid => {
                    return Err(LocalReply::from(Reason::PolicyInvalid).by(key));
                }
                Some(policy) => levels.push(policy.clone()),
            }
        }
        if let Some((policy, message)) = client::contradiction(&levels) {
            tracing::warn!(%policy, error = message, "policies that are valid alone are not together");
            return Err(LocalReply::from(Reason::PolicyInvalid).by(&policy));
        }
        F::compile_policies(&levels, &self.state).map(Chain::new).map_err(|error| {
            tracing::warn!(policy = %error.policy, error = error.message, "policies that are valid alone are not together");
            LocalReply::from(Reason::PolicyInvalid).by(&error.policy)
        })
    }
}

use std::time::Duration;

use control_plane_model::{
    ConcurrencyLimit as ConcurrencySpec, KeyPart, Leveled, Missing, ObjectName, PolicyKind, PolicySpec,
    RateLimit as LimitSpec, Tiers as TiersSpec,
};
use gateway_engine::{filter::Received, notes::Notes, strict::Scheme};
use http::{HeaderMap, Method};
use serde_json::json;

use super::*;

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn quota(rate: u32, burst: u32) -> Quota {
    Quota { rate: number(rate), per: Duration::from_secs(1), burst: number(burst) }
}

fn limit_by(key: KeyPart, rate: u32) -> LimitSpec {
    LimitSpec { quota: quota(rate, rate), key: vec![key], tiers: None }
}

fn with_limits(limits: &[(&str, LimitSpec)]) -> RateLimitSettings {
    let limits = limits.iter().map(|(name, limit)| (Arc::from(*name), limit.clone())).collect();
    RateLimitSettings { limits, ..RateLimitSettings::default() }
}

fn policy(name: &str, settings: RateLimitSettings) -> Arc<Policy> {
    let key = PolicyKey { kind: PolicyKind::RateLimit, name: ObjectName::new("shop", name) };
    Arc::new(Policy { key, spec: PolicySpec::RateLimit(Leveled { settings, overrides: None }) })
}

/// One client's requests.
struct Client<'a> {
    filters: &'a [RateLimit],
    received: Received,
    headers: HeaderMap,
    claims: serde_json::Value,
}

/// What became of a request.
#[derive(Debug)]
struct Answer {
    /// The reason's word; `None` where it passed.
    refused: Option<&'static str>,
    notes: Notes,
}

impl<'a> Client<'a> {
    fn new(filters: &'a [RateLimit], address: &str) -> Self {
        let received = Received {
            method: Method::GET,
            scheme: Scheme::Http,
            host: "shop.example".into(),
            uri: "/".parse().unwrap(),
            listener_port: 80,
            peer: format!("{address}:4711").parse().unwrap(),
            matched_prefix: None,
        };
        Self { filters, received, headers: HeaderMap::new(), claims: json!({}) }
    }

    fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    fn at(&mut self, milliseconds: u64) -> Answer {
        let label = Arc::from("http/shop/cart");
        let mut notes = Notes::default();
        let claims = self.claims.as_object().unwrap().clone();
        if !claims.is_empty() {
            notes.authenticated(Arc::new(Identity { claims: Arc::new(claims), ..Identity::default() }));
        }
        let now = Duration::from_millis(milliseconds);
        let mut context = RequestContext::new(&self.received, &mut self.headers, (&label, &label), now, &mut notes);
        let mut refused = None;
        for filter in self.filters {
            match futures::executor::block_on(filter.on_request(&mut context)) {
                Verdict::Continue => {}
                Verdict::Reply(reply) => {
                    refused = Some(reply.reason().word());
                    break;
                }
                Verdict::Respond(_) => panic!("a limit makes no response of its own"),
            }
        }
        Answer { refused, notes }
    }

    fn passes(&mut self, milliseconds: u64) -> bool {
        self.at(milliseconds).refused.is_none()
    }
}

const ADDRESS: KeyPart = KeyPart::Address { ipv4_prefix: 32, ipv6_prefix: 64 };

#[test]
fn each_client_has_a_bucket_of_its_own_that_fills_again() {
    let filters = compile(&[policy("a", with_limits(&[("client", limit_by(ADDRESS, 2))]))], &State::default()).unwrap();
    let (mut one, mut other) = (Client::new(&filters, "192.0.2.1"), Client::new(&filters, "192.0.2.2"));
    assert!(one.passes(0) && one.passes(0));
    let refusal = one.at(0);
    assert_eq!(refusal.refused, Some("rate_limited"));
    assert!(!refusal.notes.decisions()[0].reported);
    assert_eq!(refusal.notes.decisions()[0].policy.to_string(), "rate-limit/shop/a");
    assert!(other.passes(0));
    assert!(!one.passes(400) && one.passes(500));
}

#[test]
fn a_request_takes_from_all_limits_or_from_none() {
    let header = KeyPart::Header("x-user".parse().unwrap(), Missing::Skip);
    let limits = with_limits(&[("all", limit_by(KeyPart::Shared, 3)), ("user", limit_by(header, 1))]);
    let filters = compile(&[policy("a", limits)], &State::default()).unwrap();
    let mut user = Client::new(&filters, "192.0.2.1").with_header("x-user", "ada");
    assert!(user.passes(0) && !user.passes(0) && !user.passes(0));
    let mut nobody = Client::new(&filters, "192.0.2.1");
    assert!(nobody.passes(0) && nobody.passes(0), "what was refused took nothing");
    assert!(!nobody.passes(0));
}

#[test]
fn a_part_that_is_missing_is_never_a_bucket_for_all_by_accident() {
    let key = |missing| KeyPart::Header("x-user".parse().unwrap(), missing);
    for (missing, expected) in [(Missing::Address, true), (Missing::Shared, false), (Missing::Skip, true)] {
        let filters =
            compile(&[policy("a", with_limits(&[("user", limit_by(key(missing), 1))]))], &State::default()).unwrap();
        assert!(Client::new(&filters, "192.0.2.1").passes(0));
        assert_eq!(Client::new(&filters, "192.0.2.2").passes(0), expected, "{missing:?}");
        assert_eq!(Client::new(&filters, "192.0.2.1").passes(0), missing == Missing::Skip, "{missing:?}");
    }
}

#[test]
fn keys_are_made_of_cookies_and_query_parameters_as_the_router_reads_them() {
    let cookie = KeyPart::Cookie("session".into(), Missing::Skip);
    let query = KeyPart::Query("tenant".into(), Missing::Skip);
    let limits = LimitSpec { quota: quota(1, 1), key: vec![cookie, query], tiers: None };
    let filters = compile(&[policy("a", with_limits(&[("session", limits)]))], &State::default()).unwrap();
    let client = |cookie: &str, uri: &str| {
        let mut client = Client::new(&filters, "192.0.2.1").with_header("cookie", cookie);
        client.received.uri = uri.parse().unwrap();
        client
    };
    assert!(client("x=1; session=abc", "/?tenant=a+b").passes(0));
    assert!(!client("session=abc; x=2", "/?tenant=a%20b").passes(0), "the same client");
    assert!(client("session=abd", "/?tenant=a+b").passes(0));
    assert!(client("session=abc", "/?tenant=c").passes(0));
    assert!(client("sessions=abc", "/?tenant=a+b").passes(0), "another cookie");
}

#[test]
fn tiers_give_some_clients_another_quota_and_act_after_authentication() {
    let quotas = [(Arc::from("pro"), quota(3, 3))].into();
    let tiers = Some(TiersSpec { claim: "account.plan".into(), quotas });
    let limit = LimitSpec { quota: quota(1, 1), key: vec![KeyPart::Claim("sub".into(), Missing::Address)], tiers };
    let filters = compile(&[policy("a", with_limits(&[("user", limit)]))], &State::default()).unwrap();
    assert_eq!(filters.iter().map(HttpFilter::stage).collect::<Vec<_>>(), [Stage::RateLimit]);
    let client = |claims: serde_json::Value| {
        let mut client = Client::new(&filters, "192.0.2.1");
        client.claims = claims;
        (0..5).filter(|_| client.passes(0)).count()
    };
    assert_eq!(client(json!({"sub": "ada", "account": {"plan": "pro"}})), 3);
    assert_eq!(client(json!({"sub": "bob", "account": {"plan": "free"}})), 1);
    assert_eq!(client(json!({})), 1, "by address");
}

#[test]
fn requests_in_flight_are_counted_until_they_end() {
    let limits = [(Arc::from("slow"), ConcurrencySpec { limit: number(1), key: Vec::new() })].into();
    let settings = RateLimitSettings { concurrency: limits, ..RateLimitSettings::default() };
    let filters = compile(&[policy("a", settings)], &State::default()).unwrap();
    let mut client = Client::new(&filters, "192.0.2.1");
    let first = client.at(0);
    assert_eq!(first.refused, None);
    assert_eq!(client.at(0).refused, Some("concurrency_limited"));
    drop(first);
    assert!(client.passes(0));
}

#[test]
fn report_mode_lets_pass_and_says_so() {
    let settings = RateLimitSettings { mode: Some(Mode::Report), ..with_limits(&[("client", limit_by(ADDRESS, 1))]) };
    let filters = compile(&[policy("a", settings)], &State::default()).unwrap();
    let mut client = Client::new(&filters, "192.0.2.1");
    assert!(client.at(0).notes.decisions().is_empty());
    let second = client.at(0);
    assert_eq!(second.refused, None);
    assert!(second.notes.decisions()[0].reported);
}

#[test]
fn buckets_survive_an_edit_and_belong_to_the_policy_that_the_limit_is_from() {
    let state = State::default();
    let levels = |rate| {
        [
            policy("gateway", with_limits(&[("client", limit_by(ADDRESS, 1))])),
            policy("route", with_limits(&[("other", limit_by(ADDRESS, rate))])),
        ]
    };
    let before = compile(&levels(5), &state).unwrap();
    assert!(Client::new(&before, "192.0.2.1").passes(0));
    let after = compile(&levels(9), &state).unwrap();
    let refusal = Client::new(&after, "192.0.2.1").at(0);
    assert_eq!(refusal.notes.decisions()[0].policy.to_string(), "rate-limit/shop/gateway");
}

#[test]
fn a_chain_that_is_disabled_or_empty_has_no_filter() {
    let off = RateLimitSettings { disabled: Some(true), ..with_limits(&[("client", limit_by(ADDRESS, 1))]) };
    assert!(compile(&[policy("a", off)], &State::default()).unwrap().is_empty());
    assert!(compile(&[policy("a", RateLimitSettings::default())], &State::default()).unwrap().is_empty());
}

#[test]
fn a_quota_that_cannot_be_kept_names_its_policy_and_field() {
    let mut limit = limit_by(ADDRESS, 1);
    limit.quota.per = Duration::from_hours(400 * 24);
    let error = compile(&[policy("a", with_limits(&[("client", limit)]))], &State::default()).unwrap_err();
    assert_eq!(error.policy.name.name.as_ref(), "a");
    assert_eq!(error.message, "limits.client: the period is longer than 366 days");
}

//! A bug in one request's path is that request's alone.

use std::sync::Arc;

use control_plane_model::{BackendProtocol, Filter, HeaderModifier, Policy};
use gateway_engine::{
    filter::{FilterSet, HttpFilter, InvalidFilter, InvalidPolicy, RequestContext, Stage, Verdict},
    limits::Limits,
};
use http::StatusCode;

use crate::harness::{Proxy, backend, collect, request, route, rule, saying};

/// A filter with a bug.
struct Panics;

impl HttpFilter for Panics {
    fn stage(&self) -> Stage {
        Stage::Fault
    }

    async fn on_request(&self, _: &mut RequestContext<'_>) -> Verdict {
        panic!("as planned")
    }
}

impl FilterSet for Panics {
    type State = ();

    fn compile(_: &Filter) -> Result<Self, InvalidFilter> {
        Ok(Self)
    }

    fn compile_policies(_: &[Arc<Policy>], _: &Arc<()>) -> Result<Vec<Self>, InvalidPolicy> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_panic_answers_500_and_the_next_request_is_served() {
    let mut broken = rule("/broken", &[("one", 1)]);
    broken.filters = vec![Filter::RequestHeaderModifier(HeaderModifier::default())];
    let mut objects = backend("one", BackendProtocol::Http1, &[saying("fine").await]).to_vec();
    objects.push(route("all", vec![broken, rule("/", &[("one", 1)])]));
    let proxy = Proxy::<Panics>::start_filtering(Limits::default(), objects).await;
    for _ in 0..4 {
        let mut client = proxy.client().await;
        let response = collect(client.send_request(request("/broken")).await.unwrap()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["x-nebula-reason"], "internal_error");
        assert_eq!(proxy.get("/").await.body(), "fine");
    }
    assert_eq!(proxy.log.lines(8).await.len(), 8, "each of them is logged");
}

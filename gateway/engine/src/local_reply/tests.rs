use super::*;

fn request(accept: &[&'static str], content_type: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in accept {
        headers.append(header::ACCEPT, HeaderValue::from_static(value));
    }
    if let Some(value) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
    }
    headers
}

fn context(form: Form) -> ReplyContext {
    ReplyContext { form, request_id: HeaderValue::from_static("id-1"), head_only: false, version: Version::HTTP_11 }
}

#[test]
fn the_form_is_what_the_client_prefers() {
    for (accept, content_type, form) in [
        (&[][..], None, Form::Problem),
        (&["*/*"], None, Form::Problem),
        (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], None, Form::Html),
        (&["text/html;q=0.5, application/json"], None, Form::Problem),
        (&["application/json;q=0.1", "text/html;level=1;q=0.2"], None, Form::Html),
        (&["text/html;q=0"], None, Form::Problem),
        (&["text/html"], Some("application/grpc"), Form::Grpc),
        (&[], Some("application/grpc+proto"), Form::Grpc),
        (&[], Some("application/grpcx"), Form::Problem),
        (&[], Some("application/grpc-x"), Form::Problem),
        (&[], Some("application/grpc-web"), Form::GrpcWeb),
        (&[], Some("Application/gRPC-Web+proto"), Form::GrpcWeb),
    ] {
        assert_eq!(Form::of(&request(accept, content_type)), form, "{accept:?} {content_type:?}");
    }
}

#[test]
fn a_problem_document_says_why_and_for_which_request() {
    let response = LocalReply::from(Reason::NoRoute).render(&context(Form::Problem));
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()["x-request-id"], "id-1");
    assert_eq!(response.headers()["x-nebula-reason"], "no_route");
    assert!(!response.headers().contains_key(header::CONNECTION));
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "type": format!("{ERRORS_PAGE}#no_route"),
            "title": "No route",
            "status": 404,
            "detail": "No route matches the request.",
            "reason": "no_route",
            "request_id": "id-1",
        })
    );
}

#[test]
fn a_member_extends_the_problem_document_and_replaces_none_of_its_own() {
    let reply = LocalReply::from(Reason::RequestInvalid)
        .with_member("errors", serde_json::json!([{"pointer": "#/a"}]))
        .with_member("status", 200.into());
    let body: serde_json::Value = serde_json::from_slice(reply.render(&context(Form::Problem)).body()).unwrap();
    assert_eq!((&body["errors"][0]["pointer"], &body["status"]), (&"#/a".into(), &400.into()));
    let page = reply.render(&context(Form::Html));
    assert!(!std::str::from_utf8(page.body()).unwrap().contains("pointer"));
}

#[test]
fn grpc_gets_its_status_in_the_head_and_no_body() {
    let reply = LocalReply::from(Reason::NoRoute).with_detail("größer 100%");
    let response = reply.render(&context(Form::Grpc));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "12");
    assert_eq!(response.headers()["grpc-message"], "gr%C3%B6%C3%9Fer 100%25");
    assert_eq!(response.headers()["x-nebula-reason"], "no_route");
    assert!(response.body().is_empty() && !response.headers().contains_key(header::CONTENT_LENGTH));
}

#[test]
fn grpc_web_is_answered_as_such_and_is_not_taken_for_grpc() {
    let response = LocalReply::from(Reason::NoRoute).render(&context(Form::GrpcWeb));
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/grpc-web+proto");
    assert_eq!(response.headers()["grpc-status"], "12");
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc; charset=utf-8", true),
        ("application/grpc-web+proto", false),
        ("application/grpc-web-text", false),
    ] {
        assert_eq!(Form::of(&request(&[], Some(content_type))) == Form::Grpc, expected, "{content_type}");
    }
}

#[test]
fn a_reply_to_head_has_the_length_but_not_the_body() {
    let full = LocalReply::from(Reason::NoRoute).render(&context(Form::Problem));
    let head = LocalReply::from(Reason::NoRoute).render(&ReplyContext { head_only: true, ..context(Form::Problem) });
    assert_eq!(full.headers()[header::CONTENT_LENGTH], full.body().len().to_string());
    assert_eq!(head.headers(), full.headers());
    assert!(head.body().is_empty());
}

#[test]
fn a_reply_that_closes_says_so_where_the_version_allows_it() {
    let reply = LocalReply::from(Reason::ConflictingLength);
    assert_eq!(reply.render(&context(Form::Problem)).headers()[header::CONNECTION], "close");
    let http2 = ReplyContext { version: Version::HTTP_2, ..context(Form::Problem) };
    assert!(!reply.render(&http2).headers().contains_key(header::CONNECTION));
}

#[test]
fn a_page_escapes_what_it_shows() {
    let hostile = ReplyContext { request_id: HeaderValue::from_static("<script>&\""), ..context(Form::Html) };
    let response = LocalReply::from(Reason::Internal).render(&hostile);
    let page = std::str::from_utf8(response.body()).unwrap();
    assert!(page.contains("request &lt;script&gt;&amp;&quot;</p>") && !page.contains("<script>"));
}

#[test]
fn a_reply_keeps_the_fields_that_were_added() {
    let reply = LocalReply::from(Reason::NoEndpoints).with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
    assert_eq!(reply.render(&context(Form::Problem)).headers()[header::RETRY_AFTER], "1");
}

//! From a line of the access log to what was decided, in order.

use serde::Serialize;

use super::line::Line;
use crate::{
    output::shown,
    reasons::{self, BROKEN_SECTION, Reason},
};

/// What was decided about one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Story {
    request_id: String,
    time: String,
    method: String,
    host: String,
    path: String,
    status: u16,
    flag: Option<String>,
    trace_id: Option<String>,
    steps: Vec<Step>,
    /// What to do; `None` where all went well.
    next: Option<String>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Refused,
    Broke,
    /// It would have been refused, had the policy not been told to report only.
    #[serde(rename = "reported")]
    Told,
    Sent,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Step {
    #[serde(rename = "step")]
    name: &'static str,
    outcome: Outcome,
    text: String,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Broke => "broke",
            Self::Told => "reported",
            Self::Sent => "sent",
        }
    }
}

impl Story {
    /// Tells what `line` says.
    pub fn of(line: &Line) -> Self {
        let reason = line.flag.as_deref().map(|word| {
            reasons::find(word).unwrap_or_else(|| Reason {
                word: word.to_owned(),
                section: String::new(),
                meaning: "This version of nebulactl does not know the reason.".to_owned(),
                advice: "See docs/errors.md of the gateway's version.".to_owned(),
            })
        });
        Self {
            request_id: line.request_id.clone(),
            time: line.time.clone(),
            method: line.method.clone(),
            host: line.host.clone(),
            path: line.path.clone(),
            status: line.status,
            flag: line.flag.clone(),
            trace_id: line.trace_id.clone(),
            steps: steps(line, reason.as_ref()),
            next: next(line, reason.as_ref()),
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let flag = self.flag.as_ref().map(|flag| format!(" ({})", shown(flag))).unwrap_or_default();
        let trace = self.trace_id.as_ref().map(|trace| format!(", trace {}", shown(trace))).unwrap_or_default();
        let target = if self.path.is_empty() {
            format!("{}, target not read", shown(&self.method))
        } else {
            format!("{} {}{}", shown(&self.method), shown(&self.host), shown(&self.path))
        };
        let mut lines = vec![
            format!("{target}: {}{flag}", self.status),
            format!("  request {} at {}{trace}", shown(&self.request_id), shown(&self.time)),
        ];
        lines.extend(
            self.steps.iter().map(|step| format!("  {:<8} {:<9} {}", step.outcome.as_str(), step.name, step.text)),
        );
        lines.extend(self.next.iter().map(|next| format!("  {:<18} {next}", "what to do")));
        lines.push(String::new());
        lines.join("\n")
    }
}

fn ok(name: &'static str, text: impl Into<String>) -> Step {
    Step { name, outcome: Outcome::Ok, text: text.into() }
}

fn steps(line: &Line, reason: Option<&Reason>) -> Vec<Step> {
    let mut steps = vec![ok("received", received(line))];
    if line.listener.is_some() || reason.is_some_and(|reason| reason.section == "Routing") {
        steps.push(ok("read", "host, path and headers can be read in one way only"));
    }
    if let Some(listener) = &line.listener {
        steps.push(ok("listener", format!("{} serves the host", shown(listener))));
    }
    if let Some(route) = &line.route {
        steps.push(ok("route", object(route)));
    }
    if let Some(rule) = &line.rule {
        steps.push(ok("rule", shown(rule)));
    }
    let reported = line.reported.iter().flat_map(|reported| reported.split(", "));
    steps.extend(reported.map(|decision| Step {
        name: "policy",
        outcome: Outcome::Told,
        text: self::reported(decision),
    }));
    if let Some(backend) = &line.backend {
        steps.push(ok("backend", service(backend)));
    }
    if let Some(endpoint) = &line.endpoint {
        steps.push(ok("endpoint", attempts(line, endpoint)));
    }
    steps.extend(reason.map(|reason| refusal(line, reason)));
    steps.push(Step { name: "answer", outcome: Outcome::Sent, text: answer(line, reason) });
    steps
}

fn received(line: &Line) -> String {
    let client = line.client.as_deref().unwrap_or("an unknown address");
    let agent = line.user_agent.as_ref().map(|agent| format!(", user agent {}", shown(agent))).unwrap_or_default();
    format!("from {} over HTTP/{}{agent}", shown(client), shown(&line.protocol))
}

/// `http/shop/cart` as kubectl calls it.
fn object(route: &str) -> String {
    let name = match route.split_once('/') {
        Some(("http", name)) => format!("HTTPRoute {name}"),
        Some(("grpc", name)) => format!("GRPCRoute {name}"),
        _ => route.to_owned(),
    };
    shown(&name)
}

/// `shop/cart/80` as kubectl calls it.
fn service(backend: &str) -> String {
    let name = backend.rsplit_once('/').map(|(name, port)| format!("Service {name}, port {port}"));
    shown(&name.unwrap_or_else(|| backend.to_owned()))
}

fn attempts(line: &Line, endpoint: &str) -> String {
    let tried = match line.attempts {
        0 => "not tried".to_owned(),
        1 => "1 attempt".to_owned(),
        count => format!("{count} attempts, this the last"),
    };
    let answered = line
        .upstream_duration_us
        .map_or_else(|| "no answer".to_owned(), |time| format!("answered after {}", duration(time)));
    format!("{}: {tried}, {answered}", shown(endpoint))
}

/// What a policy in mode Report would have refused, from `kind/namespace/name reason`.
fn reported(decision: &str) -> String {
    let (policy, word) = decision.split_once(' ').unwrap_or((decision, ""));
    let meaning = reasons::find(word).map(|reason| format!(": {}", reason.meaning)).unwrap_or_default();
    format!("{} would refuse it as {}{meaning}", shown(policy), shown(word))
}

/// The step at which the request was refused, or broke.
fn refusal(line: &Line, reason: &Reason) -> Step {
    if let Some(policy) = &line.policy {
        let text = format!("{} refuses it as {}: {}", shown(policy), shown(&reason.word), reason.meaning);
        return Step { name: "policy", outcome: Outcome::Refused, text };
    }
    let name = match (reason.section.as_str(), reason.word.as_str()) {
        ("Requests that are refused" | "Limits", _) if line.listener.is_none() => "read",
        ("Requests that are refused" | "Limits", _) => "body",
        ("Routing", "no_route") => "route",
        ("Routing", _) => "listener",
        ("Configuration", "policy_unavailable" | "policy_invalid") => "policy",
        ("Configuration", _) => "rule",
        ("Backends", "no_endpoints") => "endpoint",
        ("Backends", _) => "attempt",
        (BROKEN_SECTION, _) => "exchange",
        ("The proxy itself", _) => "proxy",
        _ => "policy",
    };
    let outcome = if reason.section == BROKEN_SECTION { Outcome::Broke } else { Outcome::Refused };
    Step { name, outcome, text: format!("{}: {}", shown(&reason.word), reason.meaning) }
}

fn answer(line: &Line, reason: Option<&Reason>) -> String {
    let by = match reason {
        Some(reason) if reason.section != BROKEN_SECTION => "from the gateway itself",
        _ if line.backend.is_some() => "from the backend",
        None => "from the gateway itself, as the rule says (a redirect)",
        Some(_) => "",
    };
    let space = if by.is_empty() { "" } else { " " };
    let whole = duration(line.duration_us);
    format!("{}{space}{by}, {} bytes, {whole} in all", line.status, line.response_bytes)
}

fn next(line: &Line, reason: Option<&Reason>) -> Option<String> {
    if let Some(reason) = reason {
        return Some(reason.advice.clone());
    }
    let endpoint = line.endpoint.as_deref().filter(|_| line.status >= 500)?;
    Some(format!("The answer is the backend's own: look at its log, at {}.", shown(endpoint)))
}

fn duration(microseconds: u64) -> String {
    let (whole, part) = (microseconds / 1_000, microseconds % 1_000 / 100);
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{whole}.{part} ms"),
        _ => format!("{}.{} s", whole / 1_000, whole % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_that_fits() {
        let times = [0, 999, 1_000, 1_234, 999_999, 1_000_000, 61_500_000].map(duration);
        assert_eq!(times, ["0 µs", "999 µs", "1.0 ms", "1.2 ms", "999.9 ms", "1.0 s", "61.5 s"]);
    }
}

//! A fake API server: objects by path, with resource versions that are checked on every write. Knows nothing of kinds.
//! In memory, without a socket, so that a test may pause the clock.
//! Invariant: as the real one, it refuses to create what exists and to write over a version that is not the newest.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

/// A write of somebody else that comes between a reading and the write that follows.
type Meddler = Box<dyn FnOnce(&mut Value) + Send>;

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    version: u64,
    log: Vec<String>,
    /// Applied to an object right after it is read.
    meddlers: Vec<Meddler>,
    broken: bool,
    /// Writes to paths that hold this are refused as invalid.
    refused: Option<&'static str>,
    /// What a TokenReview of a token answers.
    reviews: BTreeMap<String, Value>,
    /// What watches tell, oldest first: the version, the object's path and the event.
    history: Vec<(u64, String, Value)>,
    /// The newest version.
    news: watch::Sender<u64>,
}

/// The way from a client to the server.
#[derive(Default)]
struct Line {
    /// Nothing comes back, and nothing says so.
    silent: watch::Sender<bool>,
    /// How long an answer is on its way.
    delay: Mutex<Duration>,
}

impl Line {
    async fn pass(&self) {
        // The sender is in the line itself, so it cannot be gone.
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }
}

/// The fake and a client for it. Clones share both.
#[derive(Clone)]
pub struct Fake {
    store: Arc<Mutex<Store>>,
    line: Arc<Line>,
    pub client: Client,
}

impl Fake {
    /// An empty server.
    pub fn start() -> Self {
        Self::connect(Arc::default())
    }

    /// The same server over a line of its own.
    pub fn other_line(&self) -> Self {
        Self::connect(self.store.clone())
    }

    fn connect(store: Arc<Mutex<Store>>) -> Self {
        let line = Arc::<Line>::default();
        let router = Router::new().fallback(answer).with_state((store.clone(), line.clone()));
        Self { store, line, client: Client::new(router, "default") }
    }

    /// From now on the server hears what this client asks, and the client hears nothing; or it does again.
    pub fn fall_silent(&self, silent: bool) {
        self.line.silent.send_replace(silent);
    }

    /// Each answer to this client takes so long, from now on. The server has done by then what it was asked to.
    pub fn answer_after(&self, delay: Duration) {
        *self.line.delay.lock() = delay;
    }

    /// Puts an object there, as it is.
    pub fn put(&self, path: &str, object: Value) {
        let mut store = self.store.lock();
        store.write(path, object);
    }

    /// The object at `path`.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.store.lock().objects.get(path).cloned()
    }

    /// Removes the object at `path`.
    pub fn remove(&self, path: &str) {
        self.store.lock().delete(path);
    }

    /// After the next reading of an object, somebody changes it.
    pub fn meddle(&self, meddler: impl FnOnce(&mut Value) + Send + 'static) {
        self.store.lock().meddlers.push(Box::new(meddler));
    }

    /// From now on every request fails, or no longer does.
    pub fn break_down(&self, broken: bool) {
        self.store.lock().broken = broken;
    }

    /// From now on writes to paths that hold `part` are refused as invalid.
    pub fn refuse(&self, part: Option<&'static str>) {
        self.store.lock().refused = part;
    }

    /// What the API server says of `token`, once it is asked. Tokens that were never named are not confirmed.
    pub fn review(&self, token: &str, status: Value) {
        self.store.lock().reviews.insert(token.to_owned(), status);
    }

    /// The paths of all objects.
    pub fn paths(&self) -> Vec<String> {
        self.store.lock().objects.keys().cloned().collect()
    }

    /// How many watches of `collection` were asked for.
    pub fn watches(&self, collection: &str) -> usize {
        let wanted = format!("WATCH {collection}");
        self.store.lock().log.iter().filter(|line| **line == wanted).count()
    }

    /// How many requests with `method` were answered with `status`.
    pub fn count(&self, method: &str, status: u16) -> usize {
        let wanted = format!("{method} {status}");
        self.store.lock().log.iter().filter(|line| **line == wanted).count()
    }
}

impl Store {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        let uid = self
            .objects
            .get(path)
            .map_or_else(|| json!(format!("uid-{}", self.version)), |known| known["metadata"]["uid"].clone());
        object["metadata"]["uid"] = uid;
        object["metadata"]["resourceVersion"] = json!((self.version + 1).to_string());
        let known = self.objects.insert(path.to_owned(), object.clone()).is_some();
        self.tell(path, if known { "MODIFIED" } else { "ADDED" }, &object);
        object
    }

    fn delete(&mut self, path: &str) -> Value {
        let Some(mut object) = self.objects.remove(path) else { return Value::Null };
        object["metadata"]["resourceVersion"] = json!((self.version + 1).to_string());
        self.tell(path, "DELETED", &object);
        object
    }

    fn tell(&mut self, path: &str, kind: &str, object: &Value) {
        self.version += 1;
        self.history.push((self.version, path.to_owned(), json!({"type": kind, "object": object})));
        self.news.send_replace(self.version);
    }

    /// The first event of `collection` after `version`, with its own version.
    fn event_after(&self, collection: &str, selector: &Selector, version: u64) -> Option<(u64, String)> {
        let later = self
            .history
            .iter()
            .filter(|(at, path, event)| *at > version && is_in(path, collection) && selector.matches(&event["object"]));
        later.map(|(at, _, event)| (*at, format!("{event}\n"))).next()
    }

    fn list(&self, collection: &str, selector: &Selector) -> Value {
        let of_it = self.objects.iter().filter(|(path, object)| is_in(path, collection) && selector.matches(object));
        let items: Vec<&Value> = of_it.map(|(_, object)| object).collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})
    }

    fn answer(&mut self, method: &Method, path: &str, apply: bool, body: Value) -> (u16, Value) {
        if self.broken {
            return failure(500, "broken");
        }
        if method != Method::GET && self.refused.is_some_and(|part| path.contains(part)) {
            return failure(422, "metadata.labels: Invalid value");
        }
        if path.ends_with("/tokenreviews") {
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let status = self.reviews.get(token).cloned().unwrap_or_else(|| json!({"authenticated": false}));
            return (201, json!({"spec": body["spec"], "status": status}));
        }
        let path = path.strip_suffix("/status").unwrap_or(path);
        let stored = self.objects.get(path).cloned();
        let newest = stored.as_ref().map(|object| object["metadata"]["resourceVersion"].clone());
        let uid = stored.as_ref().map(|object| object["metadata"]["uid"].clone());
        let holder = if method == Method::DELETE { &body["preconditions"] } else { &body["metadata"] };
        let (version, identity) = (&holder["resourceVersion"], &holder["uid"]);
        let outdated = (!version.is_null() && Some(version) != newest.as_ref())
            || (!identity.is_null() && Some(identity) != uid.as_ref());
        match method.as_str() {
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) {
                    return failure(409, "already exists");
                }
                (201, self.write(&path, body))
            }
            "GET" => {
                let Some(object) = stored else { return failure(404, "not found") };
                if let Some(meddler) = self.meddlers.pop() {
                    let mut meddled = object.clone();
                    meddler(&mut meddled);
                    self.write(path, meddled);
                }
                (200, object)
            }
            "PATCH" if stored.is_none() && apply => (201, self.write(path, body)),
            "PUT" | "PATCH" | "DELETE" if stored.is_none() => failure(404, "not found"),
            "PUT" | "PATCH" | "DELETE" if stored.is_some() && outdated => failure(409, "conflict"),
            "PUT" => (200, self.write(path, body)),
            "PATCH" => {
                let mut object = stored.unwrap_or_default();
                merge(&mut object, body);
                (200, self.write(path, object))
            }
            "DELETE" => (200, self.delete(path)),
            _ => failure(405, "no such method"),
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&field);
        } else {
            merge(&mut target[field], value);
        }
    }
}

fn failure(code: u16, message: &str) -> (u16, Value) {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "reason": reason});
    (code, status)
}

/// The labels that a list or a watch asks for. (A watch does not tell that an object has lost one.)
#[derive(Clone)]
struct Selector(Vec<(String, String)>);

impl Selector {
    fn of(query: &BTreeMap<&str, &str>) -> Self {
        let text = query.get("labelSelector").copied().unwrap_or_default();
        let text = text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let labels = text.split(',').filter_map(|label| label.split_once('='));
        Self(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(name, value)| object["metadata"]["labels"][name] == json!(value))
    }
}

/// Whether the object at `path` is of `collection`, which is that of a namespace or of the whole cluster.
fn is_in(path: &str, collection: &str) -> bool {
    let parent = path.rsplit_once('/').map_or(path, |(parent, _)| parent);
    let wide = parent.split_once("/namespaces/").and_then(|(group, rest)| Some((group, rest.split_once('/')?.1)));
    parent == collection || wide.is_some_and(|(group, plural)| collection == format!("{group}/{plural}"))
}

async fn answer(
    State((store, line)): State<(Arc<Mutex<Store>>, Arc<Line>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query: BTreeMap<&str, &str> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    if query.contains_key("watch") {
        store.lock().log.push(format!("WATCH {}", uri.path()));
        line.pass().await;
        return events(store, line, uri.path().to_owned(), &query);
    }
    let apply = headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (code, answer) = {
        let mut store = store.lock();
        let (code, answer) = if query.contains_key("limit") && !store.broken {
            (200, store.list(uri.path(), &Selector::of(&query)))
        } else {
            store.answer(&method, uri.path(), apply, body)
        };
        store.log.push(format!("{method} {code}"));
        (code, answer)
    };
    let delay = *line.delay.lock();
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    line.pass().await;
    (StatusCode::from_u16(code).unwrap(), Json(answer)).into_response()
}

/// A watch of `collection`: what came after the version that was asked for, until its time is over.
fn events(store: Arc<Mutex<Store>>, line: Arc<Line>, collection: String, query: &BTreeMap<&str, &str>) -> Response {
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<u64>().ok());
    let (from, selector) = (number("resourceVersion").unwrap_or(0), Selector::of(query));
    let end = Instant::now() + Duration::from_secs(number("timeoutSeconds").unwrap_or(290));
    let stream = futures::stream::unfold(from, move |seen| {
        let (store, line, collection, selector) = (store.clone(), line.clone(), collection.clone(), selector.clone());
        async move {
            loop {
                let mut news = store.lock().news.subscribe();
                let next = store.lock().event_after(&collection, &selector, seen);
                if let Some((version, event)) = next {
                    line.pass().await;
                    return Some((Ok::<_, Infallible>(Bytes::from(event)), version));
                }
                tokio::select! {
                    _ = news.changed() => {}
                    () = tokio::time::sleep_until(end) => {
                        line.pass().await;
                        return None;
                    }
                }
            }
        }
    });
    Body::from_stream(stream).into_response()
}

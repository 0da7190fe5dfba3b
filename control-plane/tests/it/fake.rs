//! A fake API server: objects by path, with resource versions that are checked on every write. Knows nothing of kinds.
//! Invariant: as the real one, it refuses to create what exists and to write over a version that is not the newest.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};

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
}

/// The fake and a client for it. Clones share it.
#[derive(Clone)]
pub struct Fake {
    store: Arc<Mutex<Store>>,
    pub client: Client,
}

impl Fake {
    /// Listens on a port of its own for as long as the test's runtime lives.
    pub async fn start() -> Self {
        let store = Arc::new(Mutex::new(Store::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(store.clone());
        let (trigger, drain) = kit_process::drain::channel();
        let tasks = kit_process::tasks::Tasks::new(drain);
        tasks.spawn_detached("fake API server", async move {
            axum::serve(listener, router).await.unwrap();
            drop(trigger);
        });
        // The provider is the process's; another test may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = kube::Config::new(format!("http://{address}").parse().unwrap());
        Self { store, client: Client::try_from(config).unwrap() }
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
        self.store.lock().objects.remove(path);
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

    /// How many requests with `method` were answered with `status`.
    pub fn count(&self, method: &str, status: u16) -> usize {
        let wanted = format!("{method} {status}");
        self.store.lock().log.iter().filter(|line| **line == wanted).count()
    }
}

impl Store {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        object
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
        let version = &body["metadata"]["resourceVersion"];
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
            "PUT" | "PATCH" if !version.is_null() && Some(version) != newest.as_ref() => failure(409, "conflict"),
            "PUT" => (200, self.write(path, body)),
            "PATCH" => {
                let mut object = stored.unwrap_or_default();
                merge(&mut object, body);
                (200, self.write(path, object))
            }
            "DELETE" => (200, self.objects.remove(path).unwrap_or_default()),
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

async fn answer(
    State(store): State<Arc<Mutex<Store>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let apply = headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut store = store.lock();
    let (code, answer) = store.answer(&method, uri.path(), apply, body);
    store.log.push(format!("{method} {code}"));
    (StatusCode::from_u16(code).unwrap(), Json(answer)).into_response()
}

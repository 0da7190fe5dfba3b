//! What an OpenAPI document says that a route needs to know: servers and paths.
//!
//! Invariant: base paths and paths begin with `/`; a base path ends without one, and is empty for the root.

use std::{collections::BTreeSet, path::Path};

use control_plane_files::{Node, Position, SyntaxError, Value, parse};

/// What a document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// `info.title`.
    pub title: Option<String>,
    /// Hosts of its servers.
    pub hosts: BTreeSet<String>,
    /// Paths of its servers.
    pub bases: BTreeSet<String>,
    /// Its path templates, each once.
    pub paths: BTreeSet<String>,
}

/// Why it is not what it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct DocumentError {
    position: Option<Position>,
    message: String,
}

impl DocumentError {
    fn at(node: &Node, message: impl Into<String>) -> Self {
        Self { position: Some(node.position), message: message.into() }
    }

    /// The whole line, with the file.
    pub fn of(&self, file: &Path) -> String {
        let place = self.position.map(|position| format!(":{}:{}", position.line, position.column));
        format!("{}{}: {}", file.display(), place.unwrap_or_default(), self.message)
    }
}

impl From<SyntaxError> for DocumentError {
    fn from(error: SyntaxError) -> Self {
        Self { position: error.position, message: error.message }
    }
}

impl Document {
    /// Reads a document, YAML or JSON.
    ///
    /// # Errors: [`DocumentError`] with the place.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let documents = parse(text)?;
        let Some(root) = documents.first() else {
            return Err(DocumentError { position: None, message: "holds no document".to_owned() });
        };
        version(root)?;
        let title = root.get("info").and_then(|info| info.get("title")).and_then(Node::as_text).map(str::to_owned);
        let mut document = Self { title, ..Self::default() };
        document.take_servers(root)?;
        document.take_paths(root)?;
        Ok(document)
    }

    fn take_servers(&mut self, root: &Node) -> Result<(), DocumentError> {
        for server in root.get("servers").map(list).unwrap_or_default() {
            let Some(url) = server.get("url") else { return Err(DocumentError::at(server, "a server has no url")) };
            let text = url.as_text().ok_or_else(|| DocumentError::at(url, "want a string"))?;
            let text = substituted(text, server).map_err(|message| DocumentError::at(url, message))?;
            let (host, path) = split(&text);
            self.hosts.extend(host);
            let path = path.trim_end_matches('/');
            check_path(path).map_err(|message| DocumentError::at(url, message))?;
            self.bases.insert(path.to_owned());
        }
        if self.bases.is_empty() {
            // OpenAPI 3.1 §4.8.1: without servers, there is one at the root.
            self.bases.insert(String::new());
        }
        Ok(())
    }

    fn take_paths(&mut self, root: &Node) -> Result<(), DocumentError> {
        let Some(paths) = root.get("paths") else { return Err(DocumentError::at(root, "has no paths")) };
        let Value::Map(entries) = &paths.value else { return Err(DocumentError::at(paths, "paths: want a map")) };
        for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            let wrong = |message: String| DocumentError { position: Some(entry.position), message };
            if !entry.key.starts_with('/') {
                return Err(wrong(format!("paths: {:?} does not begin with /", entry.key)));
            }
            check_path(&entry.key).map_err(wrong)?;
            self.paths.insert(entry.key.clone());
        }
        if self.paths.is_empty() {
            return Err(DocumentError::at(paths, "paths: there is none"));
        }
        Ok(())
    }
}

fn version(root: &Node) -> Result<(), DocumentError> {
    let found = root.get("openapi").and_then(Node::as_text).unwrap_or_default();
    if found.starts_with("3.0.") || found.starts_with("3.1.") {
        return Ok(());
    }
    let what = match root.get("swagger") {
        Some(_) => "is a Swagger document".to_owned(),
        None if found.is_empty() => "has no field openapi".to_owned(),
        None => format!("openapi: is {found:?}"),
    };
    Err(DocumentError::at(root, format!("{what}: want OpenAPI 3.0 or 3.1")))
}

fn list(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => &[],
    }
}

/// A server's URL with the defaults of its variables (OpenAPI 3.1 §4.8.6).
fn substituted(url: &str, server: &Node) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = url;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a brace is not closed")?;
        let variable = server.get("variables").and_then(|variables| variables.get(name));
        let default = variable.and_then(|variable| variable.get("default")).and_then(Node::as_text);
        text.push_str(before);
        text.push_str(default.ok_or_else(|| format!("the variable {name} has no default"))?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// Host, where there is one, and path of a URL, which may be a path alone.
fn split(url: &str) -> (Option<String>, &str) {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((_, rest)) = url.split_once("://") else { return (None, url) };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(host, |(host, _)| host);
    (Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty()), path)
}

/// The gateway compares paths in one form only; a document must be written in it.
fn check_path(path: &str) -> Result<(), String> {
    if !path.is_empty() && !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with /"));
    }
    let is_odd = |segment: &str| matches!(segment, "." | "..");
    let empty_inside = path.trim_end_matches('/').get(1..).is_some_and(|rest| rest.split('/').any(str::is_empty));
    let bad_byte = path.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#' | b'\\' | b'"'));
    if path.split('/').any(is_odd) || empty_inside || bad_byte || path.to_ascii_lowercase().contains("%2f") {
        return Err(format!(
            "{path:?} is no path that a request can have here: percent-encode it, without empty or dot segments"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(servers: &str, paths: &str) -> Result<Document, String> {
        Document::parse(&format!("openapi: 3.1.0\ninfo: {{title: Cart}}\nservers: {servers}\npaths: {paths}\n"))
            .map_err(|error| error.of(Path::new("a.yaml")))
    }

    fn set(texts: &[&str]) -> BTreeSet<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn servers_give_hosts_and_base_paths() {
        let document = parsed(
            "[{url: 'https://api.example.com:8443/v1/'}, {url: /v2}, {url: '{s}://x.{d}/v1', variables: {s: {default: \
             http}, d: {default: EXAMPLE.org}}}]",
            "{/a: {}, x-note: 1}",
        );
        let document = document.unwrap();
        assert_eq!(document.hosts, set(&["api.example.com", "x.example.org"]));
        assert_eq!((document.bases, document.paths), (set(&["/v1", "/v2"]), set(&["/a"])));
        assert_eq!(document.title.as_deref(), Some("Cart"));
        assert_eq!(parsed("[]", "{/a: {}}").unwrap().bases, set(&[""]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (servers, paths, want) in [
            ("[]", "{a: {}}", "a.yaml:4:9: paths: \"a\" does not begin with /"),
            ("[]", "{/a/../b: {}}", "a.yaml:4:9: \"/a/../b\" is no path that"),
            ("[]", "{/a//b: {}}", "a.yaml:4:9: \"/a//b\" is no path that"),
            ("[]", "{}", "a.yaml:4:8: paths: there is none"),
            ("[{url: '/{x}'}]", "{/a: {}}", "a.yaml:3:17: the variable x has no default"),
            ("[{}]", "{/a: {}}", "a.yaml:3:11: a server has no url"),
        ] {
            let error = parsed(servers, paths).unwrap_err();
            assert!(error.starts_with(want), "{error}");
        }
        let swagger = Document::parse("swagger: '2.0'\npaths: {}\n").unwrap_err();
        assert_eq!(swagger.of(Path::new("a")), "a:1:1: is a Swagger document: want OpenAPI 3.0 or 3.1");
        assert_eq!(Document::parse("a: [").unwrap_err().of(Path::new("a")), "a:1:4: unclosed bracket '['");
    }
}

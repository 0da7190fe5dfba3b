//! Finds in a document what a refusal speaks of, so that people get a line and not only a name.

use crate::node::{Node, Position, Value};

/// What a refusal speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'m> {
    /// Where it stands.
    pub position: Position,
    /// The path that the message begins with, as far as it leads; empty where it leads nowhere.
    pub path: String,
    /// The message without that path.
    pub rest: &'m str,
}

/// The place of a refusal: the listener that `section` names, then as far as the paths at the beginning of `message` lead
/// (`rules[0]: matches[1]: …`), from `spec` on. Where nothing leads anywhere, the document's.
pub fn refusal<'m>(document: &Node, section: &str, message: &'m str) -> Place<'m> {
    let mut place = Place { position: document.position, path: String::new(), rest: message };
    let Some(spec) = document.get("spec") else { return place };
    if let Some(message) = message.strip_prefix("spec.") {
        return of_field(spec, message, place);
    }
    let mut node = spec;
    if let Some(listener) = listener(spec, section) {
        (node, place.position) = (listener, listener.position);
    }
    while let Some((step, rest)) = place.rest.split_once(": ") {
        let Some(next) = walk(node, step) else { break };
        (node, place.position, place.rest) = (next, next.position, rest);
        let dot = if place.path.is_empty() { "" } else { "." };
        place.path.push_str(dot);
        place.path.push_str(step);
    }
    place
}

/// The place of a message that begins with a field of `spec`, as those of policies do: `limits.a.key[0].name: …`. As deep as
/// its path leads, for a field that is missing has no place of its own.
fn of_field<'m>(spec: &Node, message: &'m str, mut place: Place<'m>) -> Place<'m> {
    let end = message.find([' ', ':']).unwrap_or(message.len());
    let (path, rest) = message.split_at_checked(end).unwrap_or((message, ""));
    let mut node = spec;
    let mut leads_to_the_end = true;
    for step in path.split('.') {
        let Some(next) = walk(node, step) else {
            leads_to_the_end = false;
            break;
        };
        (node, place.position) = (next, next.position);
        let dot = if place.path.is_empty() { "" } else { "." };
        place.path.push_str(dot);
        place.path.push_str(step);
    }
    // Said of the whole path, the rest is a sentence without its subject.
    place.rest = rest.strip_prefix(": ").filter(|_| leads_to_the_end).unwrap_or(place.rest);
    place
}

/// The place of a field of `spec`; the document's where it is missing.
pub fn field(document: &Node, name: &str) -> Position {
    document.get("spec").and_then(|spec| spec.entry(name)).map_or(document.position, |entry| entry.position)
}

fn listener<'a>(spec: &'a Node, name: &str) -> Option<&'a Node> {
    let Value::List(listeners) = &spec.get("listeners")?.value else { return None };
    listeners.iter().find(|listener| listener.get("name").and_then(Node::as_text) == Some(name))
}

/// Follows `rules[0].backendRefs[1]`; `None` where the path leads nowhere or is not one.
fn walk<'a>(from: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(from, |node, step| {
        let (key, index) = match step.split_once('[') {
            Some((key, index)) => (key, Some(index.strip_suffix(']')?.parse::<usize>().ok()?)),
            None => (step, None),
        };
        let node = node.get(key)?;
        match (index, &node.value) {
            (None, _) => Some(node),
            (Some(index), Value::List(items)) => items.get(index),
            (Some(_), _) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{super::node::parse, *};

    #[test]
    fn a_refusal_is_placed_as_deep_as_its_words_lead() {
        let text = "kind: X\nspec:\n  rules:\n  - matches:\n    - path: a\n    backendRefs:\n    - name: b\n  \
                    listeners:\n  - name: http\n    tls: {}\n";
        let document = parse(text).unwrap().remove(0);
        for (section, message, line) in [
            ("", "rules[0]: matches[0]: path is wrong", 5),
            ("", "rules[0].backendRefs[0]: Service default/b has no port 81", 7),
            ("Gateway edge", "rules[0]: redirect with status 200", 4),
            ("", "rules[9]: nothing there", 1),
            ("http", "tls.certificateRefs names no certificate", 9),
            ("", "no listener has this name", 1),
        ] {
            assert_eq!(refusal(&document, section, message).position.line, line, "{message}");
        }
        let place = refusal(&document, "", "spec.rules[0].matches[0].method: is wrong");
        assert_eq!((place.path.as_str(), place.position.line), ("rules[0].matches[0]", 5));
        assert!(place.rest.starts_with("spec.rules[0]"), "{place:?}");
        let place = refusal(&document, "", "spec.rules[0].matches: is wrong");
        assert_eq!((place.path.as_str(), place.rest), ("rules[0].matches", "is wrong"));
        let place = refusal(&document, "", "rules[0]: matches[0]: path is: wrong");
        assert_eq!((place.path.as_str(), place.rest), ("rules[0].matches[0]", "path is: wrong"));
        assert_eq!(field(&document, "listeners").line, 8);
        assert_eq!(field(&document, "missing").line, 1);
    }
}

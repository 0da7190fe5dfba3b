//! Path templates (OpenAPI 3.1 §4.8.8.2): the most concrete one that matches a path.
//!
//! A parameter stands for a part of one segment that is not empty and does not contain `/`.

use std::collections::HashMap;

/// A template, cut at its slashes.
#[derive(Debug)]
pub(crate) struct Template {
    segments: Vec<Segment>,
}

/// Literals around parameters: `report-{id}.csv` is a parameter between two literals.
#[derive(Debug)]
struct Segment {
    /// Before the first parameter; all of it where there is none.
    prefix: String,
    /// Each parameter and the literal after it.
    parameters: Vec<(String, String)>,
}

/// Why a template is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvalidTemplate {
    NoSlash,
    Braces,
    /// Nothing says where the one ends and the other begins.
    Adjacent,
    Repeated(String),
}

impl Template {
    pub(crate) fn parse(template: &str) -> Result<Self, InvalidTemplate> {
        let path = template.strip_prefix('/').ok_or(InvalidTemplate::NoSlash)?;
        let segments = path.split('/').map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        let template = Self { segments };
        let mut names: Vec<&str> = template.parameters().collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(InvalidTemplate::Repeated(pair.concat())),
            None => Ok(template),
        }
    }

    pub(crate) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().flat_map(|segment| segment.parameters.iter().map(|(name, _)| name.as_str()))
    }

    fn is_concrete(&self) -> bool {
        self.parameters().next().is_none()
    }

    /// Equal for templates that differ in nothing but the names of their parameters. Of two that match one path the smaller
    /// is the more concrete: a literal before a part of one before a mere parameter, from the first segment on.
    pub(crate) fn rank(&self) -> Vec<(usize, usize, String)> {
        let rank = |segment: &Segment| {
            let literals: Vec<&str> = segment.parameters.iter().map(|(_, literal)| literal.as_str()).collect();
            let length = segment.prefix.len() + literals.iter().map(|literal| literal.len()).sum::<usize>();
            let kind = match (literals.is_empty(), length) {
                (true, _) => 0,
                (false, 1..) => 1,
                (false, 0) => 2,
            };
            let hole = if literals.is_empty() { "" } else { "{}" };
            (kind, usize::MAX - length, format!("{}{hole}{}", segment.prefix, literals.join("{}")))
        };
        self.segments.iter().map(rank).collect()
    }

    /// The parameters' parts of the path, as they are written there.
    fn matches<'p>(&self, segments: &[&'p str]) -> Option<Vec<(&str, &'p str)>> {
        let mut values = Vec::new();
        for (template, segment) in self.segments.iter().zip(segments) {
            template.matches(segment, &mut values)?;
        }
        Some(values)
    }
}

impl Segment {
    fn parse(segment: &str) -> Result<Self, InvalidTemplate> {
        let mut pieces = segment.split('{');
        let prefix = pieces.next().unwrap_or_default();
        let mut parameters: Vec<(String, String)> = Vec::new();
        if prefix.contains('}') {
            return Err(InvalidTemplate::Braces);
        }
        for piece in pieces {
            let (name, literal) = piece.split_once('}').ok_or(InvalidTemplate::Braces)?;
            if name.is_empty() || literal.contains('}') {
                return Err(InvalidTemplate::Braces);
            }
            if parameters.last().is_some_and(|(_, literal)| literal.is_empty()) {
                return Err(InvalidTemplate::Adjacent);
            }
            parameters.push((name.to_owned(), literal.to_owned()));
        }
        Ok(Self { prefix: prefix.to_owned(), parameters })
    }

    fn matches<'t, 'p>(&'t self, segment: &'p str, values: &mut Vec<(&'t str, &'p str)>) -> Option<()> {
        let mut rest = segment.strip_prefix(self.prefix.as_str())?;
        let last = self.parameters.len().checked_sub(1);
        for (index, (name, literal)) in self.parameters.iter().enumerate() {
            let end = if Some(index) == last {
                rest.len().checked_sub(literal.len()).filter(|_| rest.ends_with(literal.as_str()))?
            } else {
                rest.find(literal.as_str())?
            };
            let (value, after) = rest.split_at_checked(end).filter(|(value, _)| !value.is_empty())?;
            values.push((name, value));
            rest = after.strip_prefix(literal.as_str())?;
        }
        rest.is_empty().then_some(())
    }
}

/// What stands for each template, found by path. Time is linear in the templates with as many segments as the path.
#[derive(Debug)]
pub(crate) struct Paths<T> {
    concrete: HashMap<String, T>,
    /// By number of segments, the most concrete first.
    templated: HashMap<usize, Vec<(Template, T)>>,
}

impl<T> Paths<T> {
    /// The templates differ in more than their parameters' names.
    pub(crate) fn new(entries: Vec<(String, Template, T)>) -> Self {
        let mut paths = Self { concrete: HashMap::new(), templated: HashMap::new() };
        for (text, template, value) in entries {
            if template.is_concrete() {
                paths.concrete.insert(text, value);
            } else {
                paths.templated.entry(template.segments.len()).or_default().push((template, value));
            }
        }
        for templates in paths.templated.values_mut() {
            templates.sort_by_cached_key(|(template, _)| template.rank());
        }
        paths
    }

    pub(crate) fn find<'p>(&self, path: &'p str) -> Option<(&T, Vec<(&str, &'p str)>)> {
        if let Some(value) = self.concrete.get(path) {
            return Some((value, Vec::new()));
        }
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let templates = self.templated.get(&segments.len())?;
        templates.iter().find_map(|(template, value)| Some((value, template.matches(&segments)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(templates: &[&str]) -> Paths<String> {
        let entry = |text: &&str| ((*text).to_owned(), Template::parse(text).unwrap(), (*text).to_owned());
        Paths::new(templates.iter().map(entry).collect())
    }

    #[test]
    fn the_most_concrete_template_wins() {
        let paths = paths(&["/pets/{id}", "/pets/mine", "/{kind}/mine", "/pets/x-{id}", "/pets/{name}.{type}", "/"]);
        for (path, template, values) in [
            ("/pets/mine", "/pets/mine", vec![]),
            ("/pets/7", "/pets/{id}", vec![("id", "7")]),
            ("/pets/x-7", "/pets/x-{id}", vec![("id", "7")]),
            ("/pets/a.b.c", "/pets/{name}.{type}", vec![("name", "a"), ("type", "b.c")]),
            ("/dogs/mine", "/{kind}/mine", vec![("kind", "dogs")]),
            ("/", "/", vec![]),
        ] {
            assert_eq!(paths.find(path), Some((&template.to_owned(), values)), "{path}");
        }
        for path in ["/pets", "/pets/", "/pets/7/", "/pets/7/x", "", "pets/7", "/dogs/yours"] {
            assert_eq!(paths.find(path), None, "{path}");
        }
    }

    #[test]
    fn templates_that_cannot_be_matched_are_refused() {
        for (template, error) in [
            ("pets", InvalidTemplate::NoSlash),
            ("/{a", InvalidTemplate::Braces),
            ("/a}", InvalidTemplate::Braces),
            ("/{}", InvalidTemplate::Braces),
            ("/{a}{b}", InvalidTemplate::Adjacent),
        ] {
            assert_eq!(Template::parse(template).unwrap_err(), error, "{template}");
        }
        assert!(matches!(Template::parse("/{a}/{a}"), Err(InvalidTemplate::Repeated(_))));
    }

    #[test]
    fn templates_that_match_the_same_paths_have_one_rank() {
        let rank = |template| Template::parse(template).unwrap().rank();
        assert_eq!(rank("/a/{b}/c-{d}"), rank("/a/{x}/c-{y}"));
        assert_ne!(rank("/a/{b}"), rank("/a/b"));
    }
}

//! A JSON Schema, compiled once and shared: drafts 4, 6, 7, 2019-09 and 2020-12.
//!
//! Invariants: nothing is fetched, a reference resolves among the given documents and the drafts' own metaschemas; a
//! validation takes a bounded number of steps, whatever the instance; a violation contains no value of the instance.

use jsonschema::PatternOptions;
use jsonschema::error::ValidationErrorKind;
use referencing::{Registry, Retrieve, Uri};
use serde_json::Value;

use crate::metered::{Meter, Metered, MeteredNode, is_sound};
use crate::references::{self, ANONYMOUS};
use crate::violation::{self, Validator, Violations};

/// A version of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draft {
    /// draft-fge-json-schema-validation-00, of 2013.
    Draft4,
    /// draft-wright-json-schema-validation-01, of 2017.
    Draft6,
    /// draft-handrews-json-schema-validation-01, of 2018.
    Draft7,
    /// draft-handrews-json-schema-validation-02.
    Draft201909,
    /// draft-bhutton-json-schema-validation-01.
    Draft202012,
}

impl Draft {
    fn library(self) -> referencing::Draft {
        match self {
            Self::Draft4 => referencing::Draft::Draft4,
            Self::Draft6 => referencing::Draft::Draft6,
            Self::Draft7 => referencing::Draft::Draft7,
            Self::Draft201909 => referencing::Draft::Draft201909,
            Self::Draft202012 => referencing::Draft::Draft202012,
        }
    }

    /// The draft whose metaschema has this URI, with or without an empty fragment.
    pub fn of_uri(uri: &str) -> Option<Self> {
        match referencing::Draft::from_schema_uri(uri) {
            referencing::Draft::Draft4 => Some(Self::Draft4),
            referencing::Draft::Draft6 => Some(Self::Draft6),
            referencing::Draft::Draft7 => Some(Self::Draft7),
            referencing::Draft::Draft201909 => Some(Self::Draft201909),
            referencing::Draft::Draft202012 => Some(Self::Draft202012),
            _ => None,
        }
    }

    fn check(self, schema: &Value) -> Result<(), jsonschema::ValidationError<'_>> {
        match self {
            Self::Draft4 => jsonschema::draft4::meta::validate(schema),
            Self::Draft6 => jsonschema::draft6::meta::validate(schema),
            Self::Draft7 => jsonschema::draft7::meta::validate(schema),
            Self::Draft201909 => jsonschema::draft201909::meta::validate(schema),
            Self::Draft202012 => jsonschema::draft202012::meta::validate(schema),
        }
    }
}

/// Whether `format` is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Formats {
    /// As the dialect says: drafts 4 to 7 check it, 2019-09 and 2020-12 take it as an annotation unless their metaschema
    /// has the format-assertion vocabulary.
    #[default]
    ByDialect,
    /// Known formats are checked, unknown ones ignored.
    Assert,
    /// It is an annotation.
    Annotate,
}

/// How `pattern` and `patternProperties` are matched. The syntax is ECMA-262's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Patterns {
    /// In time linear in the string. A pattern that needs a back reference, or looks around elsewhere than at its start, is
    /// refused when the schema is compiled.
    #[default]
    Linear,
    /// With backtracking, which ends after this many steps for a string: the value is then refused.
    Backtracking(usize),
}

/// What a schema and a validation may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// JSON values in the schema and its resources together. Default 100,000.
    pub nodes: usize,
    /// Nesting of each of them. Default 128; more than 256 counts as 256.
    pub depth: usize,
    /// References on the longest way that does not descend into the instance. Default 32; more than 256 counts as 256.
    pub references: usize,
    /// Schemas within one another that apply to the same place of an instance, by `allOf` and its like or by reference.
    /// Default 64; more than 256 counts as 256. The stack that a validation takes is this times the depth of the instance.
    pub nesting: usize,
    /// Schemas that apply to one place of an instance. Default 4,096.
    pub fan_out: usize,
    /// Bytes of one compiled pattern. Default 1 MiB.
    pub pattern_bytes: usize,
    /// Reads of the instance in one validation, and as many again to say what is wrong; 64 bytes of a string count as one.
    /// Default 4,000,000.
    pub steps: usize,
    /// Violations that are reported. Default 16; 0 counts as 1.
    pub violations: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 100_000,
            depth: 128,
            references: 32,
            nesting: 64,
            fan_out: 4096,
            pattern_bytes: 1 << 20,
            steps: 4_000_000,
            violations: 16,
        }
    }
}

impl Limits {
    fn bounded(mut self) -> Self {
        self.depth = self.depth.min(256);
        self.references = self.references.min(256);
        self.nesting = self.nesting.min(256);
        self.violations = self.violations.max(1);
        self
    }
}

/// How a schema is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Whether `format` is checked.
    pub formats: Formats,
    /// How patterns are matched.
    pub patterns: Patterns,
    /// What it may cost.
    pub limits: Limits,
}

/// Why a schema is refused. Locations are URI fragments in the schema, or URIs with one in a resource.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// More values than [`Limits::nodes`].
    #[error("the schema has more than {limit} values")]
    Size {
        /// The limit.
        limit: usize,
    },
    /// More nesting than [`Limits::depth`].
    #[error("the schema is nested more than {limit} deep")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// `$schema` names neither a draft that is known nor a given resource.
    #[error("unknown dialect {uri}")]
    Dialect {
        /// The value of `$schema`.
        uri: String,
    },
    /// The metaschema refuses it, or a pattern does not compile.
    #[error("invalid schema at {location}: {keyword}: {message}")]
    Invalid {
        /// Where in the schema.
        location: String,
        /// The keyword of the metaschema that is broken, or of the schema for a pattern.
        keyword: String,
        /// What the metaschema asks for.
        message: String,
    },
    /// The reference is to nothing in the given documents.
    #[error("{reference} at {location} is not among the given documents")]
    Unresolved {
        /// As it is written.
        reference: String,
        /// Where it stands; empty where the place is not known.
        location: String,
    },
    /// More references after one another than [`Limits::references`].
    #[error("more than {limit} references lead to {location}")]
    References {
        /// Where there was one too many.
        location: String,
        /// The limit.
        limit: usize,
    },
    /// More schemas within one another than [`Limits::nesting`].
    #[error("more than {limit} schemas within one another apply to one value at {location}")]
    Nesting {
        /// Where there was one too many.
        location: String,
        /// The limit.
        limit: usize,
    },
    /// A reference leads back to where it stands, for the same value.
    #[error("the reference at {location} leads back to itself")]
    Endless {
        /// A schema of the loop.
        location: String,
    },
    /// More schemas apply to one value than [`Limits::fan_out`].
    #[error("more than {limit} schemas apply to one value at {location}")]
    FanOut {
        /// Where there was one too many.
        location: String,
        /// The limit.
        limit: usize,
    },
    /// A resource is named by something else than an absolute URI without a fragment, or two have one name.
    #[error("{uri} is no name for a resource, or names two")]
    Resource {
        /// The name.
        uri: String,
    },
}

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// The schema's own URI, which locations leave out.
    root: Option<String>,
    limits: Limits,
}

/// Errors that are made while it is found out what is wrong, those within alternatives included.
const DIAGNOSED_ERRORS: usize = 1000;

/// Fetches nothing.
#[derive(Clone, Default)]
struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is not among the given documents").into())
    }
}

impl Schema {
    /// Compiles `document`, in the dialect that its `$schema` names, else in `draft`, else in 2020-12. References resolve in
    /// `resources`, pairs of absolute URI and document, and in the drafts' metaschemas.
    ///
    /// Costs milliseconds; the result is meant to be shared.
    ///
    /// # Errors: [`SchemaError`].
    pub fn compile(
        document: &Value,
        draft: Option<Draft>,
        resources: &[(&str, &Value)],
        options: &Options,
    ) -> Result<Self, SchemaError> {
        let limits = options.limits.bounded();
        let documents = resources.iter().map(|(_, resource)| *resource);
        check_size(std::iter::once(document).chain(documents), &limits)?;
        let named = document.get("$schema").and_then(Value::as_str);
        let default = draft.unwrap_or(Draft::Draft202012);
        let known = named.map_or(Some(default), Draft::of_uri);
        if let (None, Some(uri)) = (known, named)
            && !resources.iter().any(|(name, _)| name.trim_end_matches('#') == uri.trim_end_matches('#'))
        {
            return Err(SchemaError::Dialect { uri: uri.to_owned() });
        }
        if let Some(known) = known {
            check_metaschema(known, document, "")?;
        }
        for (uri, resource) in resources {
            let draft = resource.get("$schema").and_then(Value::as_str).map_or(known, Draft::of_uri);
            if let Some(draft) = draft {
                check_metaschema(draft, resource, uri)?;
            }
        }
        let registry = registry(resources, known)?;
        Self::build(document, known, &registry, options)
    }

    /// Compiles a document that has been checked, with resources that have been too.
    fn build(
        document: &Value,
        known: Option<Draft>,
        registry: &Registry<'_>,
        options: &Options,
    ) -> Result<Self, SchemaError> {
        let limits = options.limits.bounded();
        let library = known.map_or(referencing::Draft::Unknown, Draft::library);
        let resource = referencing::ResourceRef::new(document, library);
        let root = resource.id().map(|id| id.trim_end_matches('#').to_owned());
        let base = absolute(root.as_deref());
        let refuse = |error: referencing::Error| refused(&error, "", Some(document));
        let whole = registry.add(&base, resource).map_err(refuse)?;
        let whole = whole.retriever(Nothing).draft(library).prepare().map_err(refuse)?;
        let uri = referencing::uri::from_str(&base).map_err(refuse)?;
        references::check(document, whole.resolver(uri), library, &limits, options.patterns)?;

        let mut builder = jsonschema::options_for::<Metered>().with_registry(registry).with_retriever(Nothing);
        if let Some(known) = known {
            builder = builder.with_draft(known.library());
        }
        builder = match options.formats {
            Formats::ByDialect => builder,
            Formats::Assert => builder.should_validate_formats(true),
            Formats::Annotate => builder.should_validate_formats(false),
        };
        builder = match options.patterns {
            // The engine backtracks only for patterns that have been refused; it alone takes look-ahead apart.
            Patterns::Linear => {
                builder.with_pattern_options(PatternOptions::fancy_regex().size_limit(limits.pattern_bytes))
            }
            Patterns::Backtracking(steps) => builder.with_pattern_options(
                PatternOptions::fancy_regex().backtrack_limit(steps).size_limit(limits.pattern_bytes),
            ),
        };
        builder = builder.with_keyword(crate::readonly::KEYWORD, crate::readonly::compile);
        let validator = builder.build(document).map_err(|error| invalid(&error, ""))?;
        Ok(Self { validator, root: root.filter(|root| root.contains(':')), limits })
    }

    /// The schema at a place of a document in the registry, which has been checked. Locations leave its URI out.
    pub(crate) fn at(
        uri: &str,
        pointer: &str,
        draft: Draft,
        registry: &Registry<'_>,
        options: &Options,
    ) -> Result<Self, SchemaError> {
        let reference = format!("{uri}#{}", violation::fragment(pointer));
        let schema = Self::build(&serde_json::json!({ "$ref": reference }), Some(draft), registry, options)?;
        Ok(Self { root: Some(uri.to_owned()), ..schema })
    }

    /// Whether `instance` satisfies the schema.
    ///
    /// # Errors: [`Violations`], also where judging it would take more than [`Limits::steps`]; see
    /// [`Violations::is_limit`]. Nothing is allocated for an instance that satisfies most schemas.
    pub fn validate(&self, instance: &Value) -> Result<(), Violations> {
        self.validate_within(instance, usize::MAX)
    }

    /// As [`Self::validate`], in `steps` at the most where the limit is higher.
    ///
    /// # Errors: [`Violations`].
    pub fn validate_within(&self, instance: &Value, steps: usize) -> Result<(), Violations> {
        let steps = steps.min(self.limits.steps);
        let meter = Meter::new(steps, usize::MAX);
        let is_valid = self.validator.is_valid(MeteredNode::new(instance, &meter));
        if meter.has_run_out() {
            return Err(Violations::one(violation::limit(steps)));
        }
        if is_valid { Ok(()) } else { Err(self.diagnose(instance, steps)) }
    }

    /// Says what is wrong with an instance that is not valid. A meter of its own bounds it, as alternatives within
    /// alternatives may take far longer to explain than to judge.
    fn diagnose(&self, instance: &Value, steps: usize) -> Violations {
        let meter = Meter::new(steps, DIAGNOSED_ERRORS);
        let errors = self.validator.iter_errors(MeteredNode::new(instance, &meter));
        let sound = errors.filter(|error| is_sound(error.instance()));
        let mut entries = Vec::new();
        for error in sound {
            entries.extend(violation::from_error(&error, self.root.as_deref()));
            if entries.len() > self.limits.violations {
                break;
            }
        }
        let more = entries.len() > self.limits.violations || meter.has_run_out();
        entries.truncate(self.limits.violations);
        if entries.is_empty() {
            entries.push(violation::unexplained());
        }
        Violations { entries, more }
    }
}

pub(crate) fn check_size<'a>(documents: impl Iterator<Item = &'a Value>, limits: &Limits) -> Result<(), SchemaError> {
    let mut nodes = 0;
    for document in documents {
        let (size, depth) = references::size(document);
        nodes += size;
        if depth > limits.depth.min(256) {
            return Err(SchemaError::Depth { limit: limits.depth });
        }
    }
    if nodes > limits.nodes { Err(SchemaError::Size { limit: limits.nodes }) } else { Ok(()) }
}

/// `uri` and `pointer` say where the schema is.
pub(crate) fn check_metaschema(draft: Draft, schema: &Value, location: &str) -> Result<(), SchemaError> {
    draft.check(schema).map_err(|error| invalid(&error, location))
}

/// The documents that references resolve in.
pub(crate) fn registry<'a>(resources: &[(&str, &'a Value)], draft: Option<Draft>) -> Result<Registry<'a>, SchemaError> {
    let library = draft.map_or(referencing::Draft::Draft202012, Draft::library);
    let mut builder = Registry::new().retriever(Nothing).draft(library);
    let mut names = std::collections::HashSet::new();
    for (uri, resource) in resources {
        let name = uri.trim_end_matches('#');
        let is_name = referencing::uri::from_str(name).is_ok_and(|uri| uri.fragment().is_none()) && name.contains(':');
        if !is_name || !names.insert(name) {
            return Err(SchemaError::Resource { uri: (*uri).to_owned() });
        }
        builder = builder.add(name, *resource).map_err(|error| refused(&error, uri, None))?;
    }
    builder.prepare().map_err(|error| {
        let place = resources.iter().find_map(|(uri, document)| {
            let (reference, location) = references::locate(document, target(&error))?;
            Some(SchemaError::Unresolved { reference, location: format!("{}{location}", uri.trim_end_matches('#')) })
        });
        place.unwrap_or_else(|| refused(&error, "", None))
    })
}

fn absolute(root: Option<&str>) -> String {
    let Some(root) = root else { return ANONYMOUS.to_owned() };
    let base = referencing::uri::from_str(ANONYMOUS).ok();
    let resolved = base.and_then(|base| referencing::uri::resolve_against(&base.borrow(), root).ok());
    resolved.map_or_else(|| ANONYMOUS.to_owned(), |uri| uri.as_str().to_owned())
}

/// The document that is missing.
fn target(error: &referencing::Error) -> Option<&str> {
    match error {
        referencing::Error::Unretrievable { uri, .. } => Some(uri),
        _ => None,
    }
}

/// The library's errors of references name what does not resolve, not where it stands.
fn refused(error: &referencing::Error, uri: &str, document: Option<&Value>) -> SchemaError {
    let unresolved = |reference: &str| {
        let place = document.and_then(|document| references::locate(document, target(error)));
        let (reference, location) = place.unwrap_or_else(|| (reference.to_owned(), String::new()));
        SchemaError::Unresolved { reference, location }
    };
    match error {
        referencing::Error::Unretrievable { uri, .. } => unresolved(uri),
        referencing::Error::PointerToNowhere { pointer }
        | referencing::Error::InvalidPercentEncoding { pointer, .. }
        | referencing::Error::InvalidArrayIndex { pointer, .. } => unresolved(pointer),
        referencing::Error::NoSuchAnchor { anchor } | referencing::Error::InvalidAnchor { anchor } => {
            unresolved(&format!("#{anchor}"))
        }
        referencing::Error::UnknownSpecification { specification: uri }
        | referencing::Error::CircularMetaschema { uri } => SchemaError::Dialect { uri: uri.clone() },
        referencing::Error::InvalidUri(_) if uri.is_empty() => unresolved(""),
        referencing::Error::InvalidUri(_) => SchemaError::Resource { uri: uri.to_owned() },
    }
}

fn invalid(error: &jsonschema::ValidationError<'_>, document: &str) -> SchemaError {
    if let ValidationErrorKind::Referencing(error) = error.kind() {
        return refused(error, document, None);
    }
    let at = violation::fragment(error.instance_path().as_str());
    let location = if document.contains('#') { format!("{document}{at}") } else { format!("{document}#{at}") };
    SchemaError::Invalid {
        location,
        keyword: violation::keyword(error.kind()).to_owned(),
        message: violation::message(error.kind()),
    }
}

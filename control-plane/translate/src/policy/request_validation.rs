//! RequestValidationPolicy. Schemas and documents are compiled here too, so that one that proxies could not honour is not
//! accepted.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use control_plane_model::{
    Leveled,
    validation::{
        BodySettings, Content, Draft, Formats, InvalidStatus, JsonText, Numbers, OpenApi, Otherwise, Parameter,
        ParameterPlace, ParameterStyle, SchemaSource, ValidationSettings,
    },
};
use crds::request_validation_policy::{self as resource, RequestValidationPolicySpec};
use policy_schema::{
    BASE_URI,
    settings::{Cache, Checks},
};
use serde_json::Value;

use super::{documents::Documents, rate_limit::mode};

/// The most entries of each map.
const MAX_ENTRIES: usize = 64;
/// The most bytes of a body that is held whole.
const MOST_BYTES: u32 = 16 << 20;

/// # Errors: the text for the policy's owner, the field's path first.
pub(super) fn translate(
    spec: &RequestValidationPolicySpec,
    documents: &Documents<'_>,
) -> Result<Leveled<ValidationSettings>, String> {
    let own = settings(&spec.settings(), documents).map_err(|error| format!("spec.{error}"))?;
    let overrides = spec.overrides.as_ref().map(|overrides| settings(overrides, documents)).transpose();
    let overrides = overrides.map_err(|error| format!("spec.overrides.{error}"))?;
    Ok(Leveled { settings: own, overrides })
}

/// The documents that `spec` takes from ConfigMaps: name and key.
pub(super) fn references(spec: &RequestValidationPolicySpec) -> Vec<&resource::ConfigMapReference> {
    fn within<'s>(
        schemas: &'s BTreeMap<String, resource::SchemaDocument>,
        openapi: Option<&'s resource::OpenApiRules>,
    ) -> impl Iterator<Item = &'s resource::ConfigMapReference> {
        let schemas = schemas.values().filter_map(|document| document.config_map_ref.as_ref());
        schemas.chain(openapi.and_then(|openapi| openapi.config_map_ref.as_ref()))
    }
    let own = within(&spec.schemas, spec.openapi.as_ref());
    let overrides = spec.overrides.iter().flat_map(|over| within(&over.schemas, over.openapi.as_ref()));
    own.chain(overrides).collect()
}

fn settings(
    settings: &resource::RequestValidationSettings,
    documents: &Documents<'_>,
) -> Result<ValidationSettings, String> {
    bounded("schemas", settings.schemas.len())?;
    bounded("parameters", settings.parameters.len())?;
    let schemas = Schemas {
        resources: Arc::new(resources(&settings.schemas, documents)?),
        draft: draft(settings.draft.unwrap_or_default()),
        formats: match settings.formats.unwrap_or_default() {
            resource::Formats::ByDraft => Formats::ByDraft,
            resource::Formats::Assert => Formats::Assert,
            resource::Formats::Annotate => Formats::Annotate,
        },
    };
    let parameters = settings.parameters.iter().map(|(name, rule)| {
        let parameter = parameter(name, rule, &schemas).map_err(|error| format!("parameters.{name}.{error}"))?;
        Ok((Arc::from(name.as_str()), Arc::new(parameter)))
    });
    let settings = ValidationSettings {
        disabled: settings.disabled,
        mode: settings.mode.map(mode),
        status: settings.status_code.map(status).transpose()?,
        unknown_media_types: settings.unknown_media_types.map(otherwise),
        unknown_query: settings.unknown_query_parameters.map(otherwise),
        max_depth: settings.max_depth.map(depth).transpose()?,
        numbers: settings.numbers.map(|numbers| match numbers {
            resource::Numbers::Exact => Numbers::Exact,
            resource::Numbers::Nearest => Numbers::Nearest,
        }),
        body: settings.body.as_ref().map(|rules| body(rules, &schemas)).transpose()?.unwrap_or_default(),
        parameters: parameters.collect::<Result<_, String>>()?,
        openapi: settings.openapi.as_ref().map(|rules| openapi(rules, documents)).transpose()?.map(Arc::new),
    };
    Checks::compile(&settings, &Cache::default()).map_err(|error| error.to_string())?;
    Ok(settings)
}

fn bounded(field: &str, entries: usize) -> Result<(), String> {
    if entries > MAX_ENTRIES { Err(format!("{field} has {entries} entries, {MAX_ENTRIES} at most")) } else { Ok(()) }
}

fn status(code: i32) -> Result<InvalidStatus, String> {
    match code {
        400 => Ok(InvalidStatus::BadRequest),
        422 => Ok(InvalidStatus::UnprocessableContent),
        other => Err(format!("statusCode is {other}, want 400 or 422")),
    }
}

fn otherwise(otherwise: resource::Otherwise) -> Otherwise {
    match otherwise {
        resource::Otherwise::Reject => Otherwise::Reject,
        resource::Otherwise::Pass => Otherwise::Pass,
    }
}

fn depth(depth: i32) -> Result<u16, String> {
    let most = ValidationSettings::MOST_DEPTH;
    let number = u16::try_from(depth).ok().filter(|depth| (1..=most).contains(depth));
    number.ok_or_else(|| format!("maxDepth is {depth}, want 1 to {most}"))
}

fn draft(draft: resource::Draft) -> Draft {
    match draft {
        resource::Draft::Draft4 => Draft::Draft4,
        resource::Draft::Draft6 => Draft::Draft6,
        resource::Draft::Draft7 => Draft::Draft7,
        resource::Draft::Draft201909 => Draft::Draft201909,
        resource::Draft::Draft202012 => Draft::Draft202012,
    }
}

/// What all schemas of a policy have in common.
struct Schemas {
    resources: Arc<BTreeMap<Arc<str>, JsonText>>,
    draft: Draft,
    formats: Formats,
}

impl Schemas {
    fn source(&self, schema: &Value) -> Arc<SchemaSource> {
        let (draft, formats) = (self.draft, self.formats);
        Arc::new(SchemaSource { schema: text(schema), resources: self.resources.clone(), draft, formats })
    }
}

fn text(document: &Value) -> JsonText {
    document.to_string().into()
}

fn resources(
    schemas: &BTreeMap<String, resource::SchemaDocument>,
    documents: &Documents<'_>,
) -> Result<BTreeMap<Arc<str>, JsonText>, String> {
    let mut resources = BTreeMap::new();
    for (name, document) in schemas {
        let at = |error: String| format!("schemas.{name}{error}");
        let uri = uri(name, document).map_err(|error| at(error.to_owned()))?;
        let found = documents.one(document.inline.as_ref(), document.config_map_ref.as_ref()).map_err(at)?;
        if resources.insert(Arc::from(uri.as_str()), text(&found)).is_some() {
            return Err(at(format!(".uri: {uri} names another document too")));
        }
    }
    Ok(resources)
}

/// What references call a document.
fn uri(name: &str, document: &resource::SchemaDocument) -> Result<String, &'static str> {
    if let Some(uri) = document.uri.as_deref() {
        return Ok(uri.strip_suffix('#').unwrap_or(uri).to_owned());
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        return Err(": a name with other characters than A-Z, a-z, 0-9, -, _ and . needs a uri");
    }
    Ok(format!("{BASE_URI}{name}"))
}

fn body(rules: &resource::BodyRules, schemas: &Schemas) -> Result<BodySettings, String> {
    bounded("body.content", rules.content.len())?;
    let max_bytes = rules.max_bytes.map(|bytes| {
        let number = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MOST_BYTES).and_then(NonZeroU32::new);
        number.ok_or_else(|| format!("body.maxBytes is {bytes}, want 1 to {MOST_BYTES}"))
    });
    let mut content = BTreeMap::new();
    for (media, rule) in &rules.content {
        let described = match (&rule.schema, rule.unchecked.unwrap_or(false)) {
            (Some(_), true) => return Err(format!("body.content.{media}: has a schema and is unchecked")),
            (schema, false) => Content::Checked(schema.as_ref().map(|schema| schemas.source(schema))),
            (None, true) => Content::Unchecked,
        };
        if content.insert(Arc::from(media.to_ascii_lowercase()), described).is_some() {
            return Err(format!("body.content.{media}: is there twice, as capitals do not count"));
        }
    }
    Ok(BodySettings { required: rules.required, max_bytes: max_bytes.transpose()?, content })
}

fn parameter(key: &str, rule: &resource::ParameterRule, schemas: &Schemas) -> Result<Parameter, String> {
    let name = rule.name.as_deref().unwrap_or(key);
    if name.is_empty() {
        return Err("name: is empty".to_owned());
    }
    Ok(Parameter {
        place: match rule.place {
            resource::ParameterPlace::Query => ParameterPlace::Query,
            resource::ParameterPlace::Header => ParameterPlace::Header,
            resource::ParameterPlace::Cookie => ParameterPlace::Cookie,
        },
        name: name.into(),
        required: rule.required.unwrap_or(false),
        style: rule.style.map(|style| match style {
            resource::ParameterStyle::Form => ParameterStyle::Form,
            resource::ParameterStyle::Simple => ParameterStyle::Simple,
            resource::ParameterStyle::SpaceDelimited => ParameterStyle::SpaceDelimited,
            resource::ParameterStyle::PipeDelimited => ParameterStyle::PipeDelimited,
            resource::ParameterStyle::DeepObject => ParameterStyle::DeepObject,
        }),
        explode: rule.explode,
        schema: rule.schema.as_ref().map(|schema| schemas.source(schema)),
    })
}

fn openapi(rules: &resource::OpenApiRules, documents: &Documents<'_>) -> Result<OpenApi, String> {
    let base_path = rules.base_path.as_deref().unwrap_or_default();
    let segments = base_path.strip_prefix('/').map(|path| path.split('/'));
    let is_path = segments.is_some_and(|mut segments| segments.all(|segment| !segment.is_empty()));
    if !(base_path.is_empty() || is_path && !base_path.contains(['?', '#'])) {
        return Err(format!(
            "openapi.basePath is {base_path:?}, want a path that does not end with a slash, as /api/v1"
        ));
    }
    let document = documents.one(rules.inline.as_ref(), rules.config_map_ref.as_ref());
    let document = document.map_err(|error| format!("openapi{error}"))?;
    Ok(OpenApi {
        document: text(&document),
        base_path: base_path.into(),
        unmatched: rules.unmatched.map(otherwise).unwrap_or_default(),
    })
}

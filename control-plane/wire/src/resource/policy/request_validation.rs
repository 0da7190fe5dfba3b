//! Settings of a RequestValidationPolicy. Schemas and documents travel as text; whoever compiles them judges them.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use control_plane_model::validation::{
    BodySettings, Content, Draft, Formats, InvalidStatus, JsonText, Numbers, OpenApi, Otherwise, Parameter,
    ParameterPlace, ParameterStyle, SchemaSource, ValidationSettings,
};

use super::{entries, mode_from_wire, mode_to_wire};
use crate::{
    proto::{self, body_content::Described},
    resource::error::{Field as _, InvalidResource, each, required},
};

/// Documents that schemas refer to: one set for all schemas of a policy, most often.
type Resources = Arc<BTreeMap<Arc<str>, JsonText>>;

pub(super) fn to_wire(settings: &ValidationSettings) -> proto::RequestValidationSettings {
    let mut sets = Sets(Vec::new());
    let content = settings.body.content.iter().map(|(media, content)| proto::BodyContent {
        media_type: media.to_string(),
        described: Some(match content {
            Content::Unchecked => Described::Unchecked(proto::UncheckedBody {}),
            Content::Checked(schema) => {
                Described::Checked(proto::CheckedBody { schema: schema.as_ref().map(|schema| sets.schema(schema)) })
            }
        }),
    });
    let content = content.collect();
    let parameters = settings.parameters.iter().map(|(key, parameter)| proto::Parameter {
        key: key.to_string(),
        place: place_to_wire(parameter.place).into(),
        name: parameter.name.to_string(),
        required: parameter.required,
        style: style_to_wire(parameter.style).into(),
        explode: parameter.explode,
        schema: parameter.schema.as_ref().map(|schema| sets.schema(schema)),
    });
    let parameters = parameters.collect();
    proto::RequestValidationSettings {
        disabled: settings.disabled,
        mode: mode_to_wire(settings.mode),
        status: match settings.status {
            None => proto::InvalidStatus::Unspecified,
            Some(InvalidStatus::BadRequest) => proto::InvalidStatus::BadRequest,
            Some(InvalidStatus::UnprocessableContent) => proto::InvalidStatus::UnprocessableContent,
        }
        .into(),
        unknown_media_types: otherwise_to_wire(settings.unknown_media_types).into(),
        unknown_query: otherwise_to_wire(settings.unknown_query).into(),
        max_depth: settings.max_depth.map(u32::from),
        numbers: match settings.numbers {
            None => proto::Numbers::Unspecified,
            Some(Numbers::Exact) => proto::Numbers::Exact,
            Some(Numbers::Nearest) => proto::Numbers::Nearest,
        }
        .into(),
        body_required: settings.body.required,
        max_bytes: settings.body.max_bytes.map(NonZeroU32::get),
        content,
        parameters,
        openapi: settings.openapi.as_ref().map(|openapi| proto::OpenApi {
            document: openapi.document.as_str().to_owned(),
            base_path: openapi.base_path.to_string(),
            unmatched: otherwise_to_wire(Some(openapi.unmatched)).into(),
        }),
        resources: sets.into_wire(),
    }
}

pub(super) fn from_wire(wire: proto::RequestValidationSettings) -> Result<ValidationSettings, InvalidResource> {
    let sets = each(wire.resources, "resources", resources_from_wire)?;
    let content = entries(wire.content, "content", |wire| {
        let content = match required(wire.described)? {
            Described::Unchecked(_) => Content::Unchecked,
            Described::Checked(wire) => Content::Checked(schema_from_wire(wire.schema, &sets).field("checked.schema")?),
        };
        Ok((text(wire.media_type).field("media_type")?, content))
    })?;
    let parameters = entries(wire.parameters, "parameters", |wire| {
        let parameter = Parameter {
            place: place_from_wire(wire.place).field("place")?,
            name: text(wire.name).field("name")?,
            required: wire.required,
            style: style_from_wire(wire.style).field("style")?,
            explode: wire.explode,
            schema: schema_from_wire(wire.schema, &sets).field("schema")?,
        };
        Ok((text(wire.key).field("key")?, Arc::new(parameter)))
    })?;
    Ok(ValidationSettings {
        disabled: wire.disabled,
        mode: mode_from_wire(wire.mode).field("mode")?,
        status: match proto::InvalidStatus::try_from(wire.status) {
            Ok(proto::InvalidStatus::Unspecified) => None,
            Ok(proto::InvalidStatus::BadRequest) => Some(InvalidStatus::BadRequest),
            Ok(proto::InvalidStatus::UnprocessableContent) => Some(InvalidStatus::UnprocessableContent),
            Err(_) => return Err(InvalidResource::unknown()).field("status"),
        },
        unknown_media_types: otherwise_from_wire(wire.unknown_media_types).field("unknown_media_types")?,
        unknown_query: otherwise_from_wire(wire.unknown_query).field("unknown_query")?,
        max_depth: wire.max_depth.map(depth).transpose().field("max_depth")?,
        numbers: match proto::Numbers::try_from(wire.numbers) {
            Ok(proto::Numbers::Unspecified) => None,
            Ok(proto::Numbers::Exact) => Some(Numbers::Exact),
            Ok(proto::Numbers::Nearest) => Some(Numbers::Nearest),
            Err(_) => return Err(InvalidResource::unknown()).field("numbers"),
        },
        body: BodySettings {
            required: wire.body_required,
            max_bytes: wire.max_bytes.map(bytes).transpose().field("max_bytes")?,
            content,
        },
        parameters,
        openapi: wire.openapi.map(openapi_from_wire).transpose().field("openapi")?.map(Arc::new),
    })
}

fn text(text: String) -> Result<Arc<str>, InvalidResource> {
    if text.is_empty() { Err(InvalidResource::new("is empty")) } else { Ok(text.into()) }
}

fn depth(depth: u32) -> Result<u16, InvalidResource> {
    let most = ValidationSettings::MOST_DEPTH;
    let number = u16::try_from(depth).ok().filter(|depth| (1..=most).contains(depth));
    number.ok_or_else(|| InvalidResource::new(format_args!("{depth} is not between 1 and {most}")))
}

fn bytes(bytes: u32) -> Result<NonZeroU32, InvalidResource> {
    NonZeroU32::new(bytes).ok_or_else(|| InvalidResource::new("is 0"))
}

/// The distinct sets of documents, in the order in which schemas name them.
struct Sets(Vec<Resources>);

impl Sets {
    fn schema(&mut self, source: &SchemaSource) -> proto::SchemaSource {
        let known = self.0.iter().position(|set| Arc::ptr_eq(set, &source.resources) || *set == source.resources);
        let index = known.unwrap_or_else(|| {
            self.0.push(source.resources.clone());
            self.0.len() - 1
        });
        let draft = match source.draft {
            Draft::Draft4 => proto::Draft::Draft4,
            Draft::Draft6 => proto::Draft::Draft6,
            Draft::Draft7 => proto::Draft::Draft7,
            Draft::Draft201909 => proto::Draft::Draft201909,
            Draft::Draft202012 => proto::Draft::Draft202012,
        };
        let formats = match source.formats {
            Formats::ByDraft => proto::Formats::ByDraft,
            Formats::Assert => proto::Formats::Assert,
            Formats::Annotate => proto::Formats::Annotate,
        };
        proto::SchemaSource {
            schema: source.schema.as_str().to_owned(),
            resources: u32::try_from(index).unwrap_or(u32::MAX),
            draft: draft.into(),
            formats: formats.into(),
        }
    }

    fn into_wire(self) -> Vec<proto::SchemaResources> {
        let document = |(uri, document): (&Arc<str>, &JsonText)| proto::SchemaResource {
            uri: uri.to_string(),
            document: document.as_str().to_owned(),
        };
        let set = |set: Resources| proto::SchemaResources { documents: set.iter().map(document).collect() };
        self.0.into_iter().map(set).collect()
    }
}

fn resources_from_wire(wire: proto::SchemaResources) -> Result<Resources, InvalidResource> {
    let document = |wire: proto::SchemaResource| {
        let document = text(wire.document).field("document")?;
        Ok((text(wire.uri).field("uri")?, JsonText::from(document)))
    };
    entries(wire.documents, "documents", document).map(Arc::new)
}

fn schema_from_wire(
    wire: Option<proto::SchemaSource>,
    sets: &[Resources],
) -> Result<Option<Arc<SchemaSource>>, InvalidResource> {
    let Some(wire) = wire else { return Ok(None) };
    let set = usize::try_from(wire.resources).ok().and_then(|index| sets.get(index));
    let set = set.ok_or_else(|| InvalidResource::new(format_args!("{} is no set of documents", wire.resources)));
    let draft = match proto::Draft::try_from(wire.draft) {
        Ok(proto::Draft::Draft4) => Draft::Draft4,
        Ok(proto::Draft::Draft6) => Draft::Draft6,
        Ok(proto::Draft::Draft7) => Draft::Draft7,
        Ok(proto::Draft::Draft201909) => Draft::Draft201909,
        Ok(proto::Draft::Draft202012) => Draft::Draft202012,
        Ok(proto::Draft::Unspecified) | Err(_) => return Err(InvalidResource::unknown()).field("draft"),
    };
    let formats = match proto::Formats::try_from(wire.formats) {
        Ok(proto::Formats::ByDraft) => Formats::ByDraft,
        Ok(proto::Formats::Assert) => Formats::Assert,
        Ok(proto::Formats::Annotate) => Formats::Annotate,
        Ok(proto::Formats::Unspecified) | Err(_) => return Err(InvalidResource::unknown()).field("formats"),
    };
    let schema = JsonText::from(text(wire.schema).field("schema")?);
    Ok(Some(Arc::new(SchemaSource { schema, resources: set.field("resources")?.clone(), draft, formats })))
}

fn openapi_from_wire(wire: proto::OpenApi) -> Result<OpenApi, InvalidResource> {
    let base_path = wire.base_path;
    if !base_path.is_empty() && (!base_path.starts_with('/') || base_path.ends_with('/')) {
        return Err(InvalidResource::new("does not begin with a slash, or ends with one")).field("base_path");
    }
    Ok(OpenApi {
        document: JsonText::from(text(wire.document).field("document")?),
        base_path: base_path.into(),
        unmatched: required(otherwise_from_wire(wire.unmatched).field("unmatched")?).field("unmatched")?,
    })
}

fn otherwise_to_wire(otherwise: Option<Otherwise>) -> proto::Otherwise {
    match otherwise {
        None => proto::Otherwise::Unspecified,
        Some(Otherwise::Reject) => proto::Otherwise::Reject,
        Some(Otherwise::Pass) => proto::Otherwise::Pass,
    }
}

fn otherwise_from_wire(wire: i32) -> Result<Option<Otherwise>, InvalidResource> {
    match proto::Otherwise::try_from(wire) {
        Ok(proto::Otherwise::Unspecified) => Ok(None),
        Ok(proto::Otherwise::Reject) => Ok(Some(Otherwise::Reject)),
        Ok(proto::Otherwise::Pass) => Ok(Some(Otherwise::Pass)),
        Err(_) => Err(InvalidResource::unknown()),
    }
}

fn place_to_wire(place: ParameterPlace) -> proto::ParameterPlace {
    match place {
        ParameterPlace::Query => proto::ParameterPlace::Query,
        ParameterPlace::Header => proto::ParameterPlace::Header,
        ParameterPlace::Cookie => proto::ParameterPlace::Cookie,
    }
}

fn place_from_wire(wire: i32) -> Result<ParameterPlace, InvalidResource> {
    match proto::ParameterPlace::try_from(wire) {
        Ok(proto::ParameterPlace::Query) => Ok(ParameterPlace::Query),
        Ok(proto::ParameterPlace::Header) => Ok(ParameterPlace::Header),
        Ok(proto::ParameterPlace::Cookie) => Ok(ParameterPlace::Cookie),
        Ok(proto::ParameterPlace::Unspecified) | Err(_) => Err(InvalidResource::unknown()),
    }
}

fn style_to_wire(style: Option<ParameterStyle>) -> proto::ParameterStyle {
    match style {
        None => proto::ParameterStyle::Unspecified,
        Some(ParameterStyle::Form) => proto::ParameterStyle::Form,
        Some(ParameterStyle::Simple) => proto::ParameterStyle::Simple,
        Some(ParameterStyle::SpaceDelimited) => proto::ParameterStyle::SpaceDelimited,
        Some(ParameterStyle::PipeDelimited) => proto::ParameterStyle::PipeDelimited,
        Some(ParameterStyle::DeepObject) => proto::ParameterStyle::DeepObject,
    }
}

fn style_from_wire(wire: i32) -> Result<Option<ParameterStyle>, InvalidResource> {
    match proto::ParameterStyle::try_from(wire) {
        Ok(proto::ParameterStyle::Unspecified) => Ok(None),
        Ok(proto::ParameterStyle::Form) => Ok(Some(ParameterStyle::Form)),
        Ok(proto::ParameterStyle::Simple) => Ok(Some(ParameterStyle::Simple)),
        Ok(proto::ParameterStyle::SpaceDelimited) => Ok(Some(ParameterStyle::SpaceDelimited)),
        Ok(proto::ParameterStyle::PipeDelimited) => Ok(Some(ParameterStyle::PipeDelimited)),
        Ok(proto::ParameterStyle::DeepObject) => Ok(Some(ParameterStyle::DeepObject)),
        Err(_) => Err(InvalidResource::unknown()),
    }
}

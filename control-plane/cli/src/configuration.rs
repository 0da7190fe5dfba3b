//! Configuration as the gateway's `/config` shows it (`control-plane-dump`): the same from files and from a running gateway.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use control_plane_files::{Inputs, Problem};
use http::Uri;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{admin, output::Failure, source};

/// Where configuration is looked at.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Place {
    /// A file, a folder, or - for standard input; repeatable
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// The admin port of a running gateway
    #[arg(long, value_name = "URL")]
    pub admin: Option<Uri>,
}

/// What is served, and what is wrong with it.
pub struct Configuration {
    /// By the text form of their keys.
    pub objects: Map<String, Value>,
    /// Ports as they were opened, by listener; empty where nothing runs.
    pub opened: BTreeMap<String, Opened>,
    /// Everything that is refused.
    pub problems: Vec<Problem>,
    origin: Origin,
}

/// Whom to ask for more.
enum Origin {
    Files(Box<Inputs>),
    Gateway(Uri),
}

/// What a running gateway made of a listener.
#[derive(Clone, Debug, Deserialize)]
pub struct Opened {
    listener: String,
    /// The port in place of the listener's.
    #[serde(rename = "opened")]
    pub port: u16,
    /// Whether it could be opened.
    pub is_open: bool,
}

#[derive(Deserialize)]
struct Dump {
    listeners: Vec<Opened>,
    objects: Map<String, Value>,
}

impl Configuration {
    /// Reads it from where the command line says.
    ///
    /// # Errors: a path cannot be read, or the gateway does not answer.
    pub fn of(place: &Place) -> Result<Self, Failure> {
        if let Some(admin) = &place.admin {
            return Ok(Self::running(admin)?);
        }
        let mut inputs = Inputs::for_inspection();
        inputs.update(source::read(&place.paths)?);
        Ok(Self {
            objects: control_plane_dump::objects(inputs.snapshot()),
            opened: BTreeMap::new(),
            problems: inputs.problems(),
            origin: Origin::Files(Box::new(inputs)),
        })
    }

    /// What acts on the route `key` (`http/shop/cart`), as `/explain` has it; `None` where it is not served.
    ///
    /// # Errors: a running gateway does not answer.
    pub fn explain(&self, key: &str) -> Result<Option<Value>, admin::AdminError> {
        match &self.origin {
            Origin::Files(inputs) => {
                let key = control_plane_dump::route_key(key);
                Ok(key.and_then(|key| control_plane_dump::explain(inputs.snapshot(), &key)))
            }
            Origin::Gateway(admin) => admin::find(admin, &format!("/explain?route={key}")),
        }
    }

    /// What a running gateway says of itself.
    ///
    /// # Errors: it does not answer.
    pub fn running(admin: &Uri) -> Result<Self, admin::AdminError> {
        let dump: Dump = admin::get(admin, "/config")?;
        let problems = admin::get(admin, "/problems")?;
        let opened = dump.listeners.into_iter().map(|opened| (opened.listener.clone(), opened)).collect();
        Ok(Self { objects: dump.objects, opened, problems, origin: Origin::Gateway(admin.clone()) })
    }
}

//! The Kubernetes objects that run one Gateway's proxies. Pure: a description in, objects out.
//!
//! Invariant: nothing here depends on the listeners but the Service's ports (container ports need not be listed), so a
//! change of listeners never rolls pods. Pods run as an unprivileged user without capabilities on a read-only root;
//! ports below 1024 come from the sysctl `net.ipv4.ip_unprivileged_port_start`, which Kubernetes counts as safe.

use std::collections::BTreeMap;

use control_plane_model::GatewayKey;
use control_plane_translate::DeploymentSpec;
use crds::gateway_config::{LogFormat, ServiceType};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec as DeploymentFields, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction,
            PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, SeccompProfile,
            SecurityContext, Service, ServiceAccount, ServiceAccountTokenProjection, ServicePort, ServiceSpec, Sysctl,
            TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::api::ObjectMeta;

use super::names::{bundle_name, label_value, resource_name};
use crate::{
    authenticate::AUDIENCE,
    ca,
    kubernetes::{CONTROLLER, MANAGED_BY, MANAGER},
};

/// Label that names the Gateway (GEP-1762).
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const TELEMETRY_PORT: u16 = 15020;
const TOKEN_DIRECTORY: &str = "/var/run/nebula";
const CA_DIRECTORY: &str = "/var/run/nebula-ca";
/// User and group of the proxy; the number that distroless images call `nonroot`.
const USER: i64 = 65532;
/// Longest time from SIGTERM to the end: what the proxy needs to drain long requests.
const TERMINATION_GRACE_SECONDS: i64 = 60;
const TOKEN_LIFETIME_SECONDS: i64 = 3600;

/// What all proxies have in common.
#[derive(Clone, Debug)]
pub struct ProxyDefaults {
    /// The image.
    pub image: String,
    /// Where the control plane is: `https://host:port`.
    pub discovery: String,
    /// Which control plane it is: [`super::names::controller_label`].
    pub controller: String,
}

/// The objects of one Gateway, all of one name and namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// The proxies' identity.
    pub service_account: ServiceAccount,
    /// The proxies.
    pub deployment: Deployment,
    /// Their address; `None` while the Gateway has no port to serve, as a Service needs one.
    pub service: Option<Service>,
}

/// Describes what is to run for the Gateway of `spec`.
pub fn objects(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> Objects {
    Objects {
        service_account: ServiceAccount {
            metadata: metadata(spec, defaults, &BTreeMap::new()),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        deployment: deployment(spec, defaults),
        service: (!spec.ports.is_empty()).then(|| service(spec, defaults)),
    }
}

/// The bundle that proxies trust, for the namespace of `gateways` (each with its uid): it goes when the last of them does.
pub fn trust_bundle(
    namespace: &str,
    bundle: &str,
    gateways: &[(&GatewayKey, &str)],
    defaults: &ProxyDefaults,
) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(bundle_name(&defaults.controller)),
            namespace: Some(namespace.to_owned()),
            labels: Some(made_by(defaults)),
            owner_references: Some(gateways.iter().filter_map(|(key, uid)| owner(key, uid, false)).collect()),
            ..ObjectMeta::default()
        },
        data: Some([(ca::BUNDLE_KEY.to_owned(), bundle.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// The Gateway that an object was made for.
pub fn gateway_of(metadata: &ObjectMeta) -> Option<GatewayKey> {
    let mut owners = metadata.owner_references.iter().flatten();
    let owner =
        owners.find(|owner| owner.kind == "Gateway" && owner.api_version.starts_with("gateway.networking.k8s.io/"))?;
    let namespace = metadata.namespace.as_deref()?;
    Some(GatewayKey(control_plane_model::ObjectName::new(namespace, owner.name.as_str())))
}

fn owner(gateway: &GatewayKey, uid: &str, controller: bool) -> Option<OwnerReference> {
    (!uid.is_empty()).then(|| OwnerReference {
        api_version: "gateway.networking.k8s.io/v1".to_owned(),
        kind: "Gateway".to_owned(),
        name: gateway.0.name.to_string(),
        uid: uid.to_owned(),
        controller: controller.then_some(true),
        block_owner_deletion: None,
    })
}

fn made_by(defaults: &ProxyDefaults) -> BTreeMap<String, String> {
    [(MANAGED_BY.to_owned(), MANAGER.to_owned()), (CONTROLLER.to_owned(), defaults.controller.clone())].into()
}

/// What selects the pods. Never changes for a Gateway: a Deployment's selector cannot.
fn selector(spec: &DeploymentSpec) -> BTreeMap<String, String> {
    [(GATEWAY_NAME.to_owned(), label_value(&spec.gateway.0.name)), (MANAGED_BY.to_owned(), MANAGER.to_owned())].into()
}

/// The user's labels with ours over them: a user cannot make the selector miss.
fn labels(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> BTreeMap<String, String> {
    let mut labels = spec.labels.clone();
    labels.extend(made_by(defaults));
    labels.extend(selector(spec));
    labels
}

fn metadata(spec: &DeploymentSpec, defaults: &ProxyDefaults, annotations: &BTreeMap<String, String>) -> ObjectMeta {
    let mut all = annotations.clone();
    all.extend(spec.annotations.clone());
    ObjectMeta {
        name: Some(resource_name(&spec.gateway.0.name)),
        namespace: Some(spec.gateway.0.namespace.to_string()),
        labels: Some(labels(spec, defaults)),
        annotations: (!all.is_empty()).then_some(all),
        owner_references: Some(owner(&spec.gateway, &spec.uid, true).into_iter().collect()),
        ..ObjectMeta::default()
    }
}

fn service(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> Service {
    let port = |port: &std::num::NonZeroU16| ServicePort {
        name: Some(format!("port-{port}")),
        port: i32::from(port.get()),
        target_port: Some(IntOrString::Int(i32::from(port.get()))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let kind = spec.settings.service.kind;
    let static_address = match spec.addresses.as_slice() {
        [address] if kind == ServiceType::LoadBalancer => Some(address.to_string()),
        _ => None,
    };
    Service {
        metadata: metadata(spec, defaults, &spec.settings.service.annotations),
        spec: Some(ServiceSpec {
            type_: Some(kind.as_str().to_owned()),
            selector: Some(selector(spec)),
            ports: Some(spec.ports.iter().map(port).collect()),
            load_balancer_ip: static_address,
            ip_family_policy: Some("PreferDualStack".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn deployment(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> Deployment {
    let annotations = (!spec.annotations.is_empty()).then(|| spec.annotations.clone());
    Deployment {
        metadata: metadata(spec, defaults, &BTreeMap::new()),
        spec: Some(DeploymentFields {
            // Absent, the API server starts with one and an autoscaler may own the field.
            replicas: spec.settings.replicas,
            selector: LabelSelector { match_labels: Some(selector(spec)), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::Int(1)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(spec, defaults)),
                    annotations,
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(spec, defaults)),
            },
            ..DeploymentFields::default()
        }),
        status: None,
    }
}

fn pod(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> PodSpec {
    PodSpec {
        service_account_name: Some(resource_name(&spec.gateway.0.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            sysctls: Some(vec![Sysctl {
                name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
                value: "0".to_owned(),
            }]),
            ..PodSecurityContext::default()
        }),
        topology_spread_constraints: Some(vec![TopologySpreadConstraint {
            max_skew: 1,
            topology_key: "kubernetes.io/hostname".to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(LabelSelector { match_labels: Some(selector(spec)), match_expressions: None }),
            ..TopologySpreadConstraint::default()
        }]),
        containers: vec![container(spec, defaults)],
        volumes: Some(volumes(defaults)),
        ..PodSpec::default()
    }
}

fn container(spec: &DeploymentSpec, defaults: &ProxyDefaults) -> Container {
    let log_format = match spec.settings.log.format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let argument = |flag: &str, value: String| [format!("--{flag}"), value];
    let arguments = [
        argument("discovery", defaults.discovery.clone()),
        argument("gateway", spec.gateway.to_string()),
        argument("token-file", format!("{TOKEN_DIRECTORY}/token")),
        argument("ca-file", format!("{CA_DIRECTORY}/{}", ca::BUNDLE_KEY)),
        argument("log", spec.settings.log.filter.clone()),
        argument("log-format", log_format.to_owned()),
    ];
    let probe = |path: &str, period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(TELEMETRY_PORT)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    };
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    Container {
        name: "gateway".to_owned(),
        image: Some(defaults.image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments.into_iter().flatten().collect()),
        ports: Some(vec![ContainerPort {
            name: Some("telemetry".to_owned()),
            container_port: i32::from(TELEMETRY_PORT),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(spec.settings.resources.to_requirements()),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount("token", TOKEN_DIRECTORY), mount("ca", CA_DIRECTORY)]),
        ..Container::default()
    }
}

fn volumes(defaults: &ProxyDefaults) -> Vec<Volume> {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_LIFETIME_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let projected = ProjectedVolumeSource { sources: Some(vec![token]), ..ProjectedVolumeSource::default() };
    let bundle = ConfigMapVolumeSource { name: bundle_name(&defaults.controller), ..ConfigMapVolumeSource::default() };
    vec![
        Volume { name: "token".to_owned(), projected: Some(projected), ..Volume::default() },
        Volume { name: "ca".to_owned(), config_map: Some(bundle), ..Volume::default() },
    ]
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use control_plane_model::ObjectName;
    use crds::gateway_config::GatewayConfigSpec;

    use super::*;

    fn spec() -> DeploymentSpec {
        let mut settings = GatewayConfigSpec::default();
        settings.service.annotations.insert("balancer".to_owned(), "internal".to_owned());
        DeploymentSpec {
            gateway: GatewayKey(ObjectName::new("infra", "edge")),
            uid: "b5c0".to_owned(),
            ports: [80, 443].into_iter().filter_map(NonZeroU16::new).collect(),
            labels: [("team".to_owned(), "red".to_owned()), (MANAGED_BY.to_owned(), "me".to_owned())].into(),
            annotations: [("note".to_owned(), "hello".to_owned())].into(),
            addresses: Vec::new(),
            settings,
        }
    }

    fn defaults() -> ProxyDefaults {
        ProxyDefaults {
            image: "nebula/gateway:1".to_owned(),
            discovery: "https://cp.ns.svc:15010".to_owned(),
            controller: "0a1b2c3d4e".to_owned(),
        }
    }

    #[test]
    fn infrastructure_labels_and_annotations_are_on_everything_and_cannot_take_the_selector_over() {
        let made = objects(&spec(), &defaults());
        let template = made.deployment.spec.clone().unwrap().template.metadata.unwrap();
        let service = made.service.unwrap();
        for metadata in [&made.service_account.metadata, &made.deployment.metadata, &service.metadata, &template] {
            let labels = metadata.labels.as_ref().unwrap();
            assert_eq!(labels["team"], "red");
            assert_eq!(labels[MANAGED_BY], MANAGER);
            assert_eq!(labels[GATEWAY_NAME], "edge");
            assert_eq!(metadata.annotations.as_ref().unwrap()["note"], "hello");
        }
        assert_eq!(service.metadata.annotations.unwrap()["balancer"], "internal");
        assert!(!made.deployment.metadata.annotations.unwrap().contains_key("balancer"));
    }

    #[test]
    fn another_listener_port_changes_the_service_and_leaves_the_pods_alone() {
        let mut changed = spec();
        changed.ports.push(NonZeroU16::new(8080).unwrap());
        let (before, after) = (objects(&spec(), &defaults()), objects(&changed, &defaults()));
        assert_eq!(before.deployment, after.deployment);
        let ports: Vec<i32> =
            after.service.unwrap().spec.unwrap().ports.unwrap().iter().map(|port| port.port).collect();
        assert_eq!(ports, [80, 443, 8080]);
    }

    #[test]
    fn pods_have_no_privileges() {
        let pod = objects(&spec(), &defaults()).deployment.spec.unwrap().template.spec.unwrap();
        let security = pod.security_context.unwrap();
        assert_eq!(security.run_as_non_root, Some(true));
        assert!(security.run_as_user.unwrap() > 0);
        assert_eq!(pod.automount_service_account_token, Some(false));
        let container = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(container.read_only_root_filesystem, Some(true));
        assert_eq!(container.allow_privilege_escalation, Some(false));
        assert_eq!(container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    }

    #[test]
    fn one_static_address_is_asked_of_the_load_balancer() {
        let mut with_address = spec();
        with_address.addresses = vec!["172.30.0.9".parse().unwrap()];
        let service = objects(&with_address, &defaults()).service.unwrap();
        assert_eq!(service.spec.unwrap().load_balancer_ip.as_deref(), Some("172.30.0.9"));
        with_address.settings.service.kind = ServiceType::ClusterIp;
        let service = objects(&with_address, &defaults()).service.unwrap();
        assert_eq!(service.spec.unwrap().load_balancer_ip, None);
    }

    #[test]
    fn a_gateway_without_ports_has_no_service() {
        let mut without = spec();
        without.ports.clear();
        assert_eq!(objects(&without, &defaults()).service, None);
    }

    #[test]
    fn what_is_made_leads_back_to_its_gateway() {
        let made = objects(&spec(), &defaults());
        assert_eq!(gateway_of(&made.deployment.metadata), Some(spec().gateway));
        assert_eq!(gateway_of(&ObjectMeta::default()), None);
    }
}

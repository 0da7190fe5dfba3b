use crds::{
    GatewayConfig,
    gateway_config::{AccessLog, LogFormat, Sampling, ServiceType},
};
use kube_core::CustomResourceExt as _;
use serde_json::{Value, json};

fn read(spec: &str) -> GatewayConfig {
    let text = format!("apiVersion: nebula.dev/v1alpha1\nkind: GatewayConfig\nmetadata: {{name: a}}\nspec: {spec}\n");
    serde_saphyr::from_str(&text).unwrap()
}

fn schema() -> Value {
    let definition = serde_json::to_value(GatewayConfig::crd()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].clone()
}

#[test]
fn an_empty_spec_is_whole() {
    let config = read("{}");
    assert_eq!(config.spec, crds::gateway_config::GatewayConfigSpec::default());
    assert_eq!(config.spec.replicas, None);
    assert_eq!(config.spec.service.kind, ServiceType::LoadBalancer);
    assert_eq!(config.spec.log.filter, "info");
    assert_eq!(config.spec.log.format, LogFormat::Json);
    assert_eq!(config.spec.log.access_log, AccessLog::Json);
    assert_eq!(config.spec.telemetry.tracing, None);
}

#[test]
fn the_schema_states_the_same_defaults_as_the_types() {
    let defaults: Value = schema()["spec"]["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())))
        .collect();
    let types = serde_json::to_value(crds::gateway_config::GatewayConfigSpec::default()).unwrap();
    assert_eq!(defaults, types);
}

#[test]
fn every_field_of_the_schema_explains_itself() {
    fn check(path: &str, schema: &Value, poor: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = field["description"].as_str().unwrap_or_default();
            if description.len() < 8 {
                poor.push(path.clone());
            }
            check(&path, field, poor);
            check(&path, &field["items"], poor);
        }
    }
    let mut poor = Vec::new();
    check("spec", &schema()["spec"], &mut poor);
    assert_eq!(poor, Vec::<String>::new());
    assert!(schema()["spec"]["properties"]["log"]["properties"]["filter"].is_object());
}

#[test]
fn quantities_reach_the_container_as_written_whether_number_or_text() {
    let config = read("{resources: {requests: {cpu: 1, memory: 64Mi}, limits: {memory: 128Mi}}}");
    let requirements = serde_json::to_value(config.spec.resources.to_requirements()).unwrap();
    assert_eq!(requirements, json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "128Mi"}}));
    assert_eq!(serde_json::to_value(read("{}").spec.resources.to_requirements()).unwrap(), json!({}));
}

#[test]
fn sampling_is_a_share_from_zero_to_one_whatever_is_written() {
    let ratio = |numerator, denominator| Sampling { numerator, denominator }.ratio();
    for (numerator, denominator, expected) in
        [(0, 100, 0.0), (1, 4, 0.25), (100, 100, 1.0), (7, 2, 1.0), (-1, 2, 0.0), (1, 0, 0.0), (1, -5, 0.0)]
    {
        assert!((ratio(numerator, denominator) - expected).abs() < f64::EPSILON, "{numerator}/{denominator}");
    }
    let tracing =
        read("{telemetry: {tracing: {endpoint: 'http://otel:4317', sampling: {numerator: 5}}}}").spec.telemetry.tracing;
    assert_eq!(tracing.unwrap().sampling, Sampling { numerator: 5, denominator: 100 });
}

#[test]
fn the_definition_has_a_status_columns_and_rules() {
    let definition = serde_json::to_value(GatewayConfig::crd()).unwrap();
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"]["status"], json!({}));
    let columns: Vec<_> =
        version["additionalPrinterColumns"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Replicas", "Service", "Accepted", "Age"]);
    let resources = &schema()["spec"]["properties"]["resources"];
    assert_eq!(resources["x-kubernetes-validations"][0]["message"], "a request must not be above its limit");
    assert_eq!(resources["properties"]["limits"]["maxProperties"], 16);
    assert_eq!(schema()["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"], json!(["type"]));
}

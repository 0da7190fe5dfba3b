//! What runs on the node and with which flags: the configuration files of containerd, the kubelet, kube-proxy and the
//! CNI plugins, and the list that `kubenode node` supervises.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::network::Addresses;
use crate::images::PAUSE_IMAGE;

/// The only node's name.
pub const NODE: &str = "node1";

/// `nodeConfig` of `e2e/cluster/kubenode/node.go`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeConfig<'a> {
    directory: &'a Path,
    kubeconfig: String,
    node: &'a str,
    load_balancers: String,
    binds: Vec<Bind>,
    components: Vec<Component>,
}

#[derive(Serialize)]
struct Bind {
    source: String,
    target: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component {
    name: &'static str,
    argv: Vec<String>,
    needs_api: bool,
}

/// Writes all configuration below `directory`; `node.json` there is what the node is started with.
pub fn write(directory: &Path, kubenode: &Path, addresses: Addresses) -> Result<()> {
    for name in ["log", "cni", "containerd"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    std::fs::write(at("kubeconfig"), kubeconfig(directory, addresses, "admin"))?;
    std::fs::write(at("kubelet.kubeconfig"), kubeconfig(directory, addresses, "kubelet"))?;
    std::fs::write(at("containerd.toml"), containerd(directory))?;
    std::fs::write(at("cni/10-pods.conflist"), pod_network(addresses))?;
    std::fs::write(at("kubelet.yaml"), kubelet(directory, addresses))?;
    std::fs::write(at("kube-proxy.yaml"), kube_proxy(directory, addresses))?;
    std::fs::write(at("resolv.conf"), "nameserver 127.0.0.1\n")?;
    let config = NodeConfig {
        directory,
        kubeconfig: at("kubeconfig"),
        node: NODE,
        load_balancers: addresses.load_balancers(),
        binds: vec![
            Bind { source: at("var/kubelet"), target: "/var/lib/kubelet" },
            Bind { source: at("var/cni"), target: "/var/lib/cni" },
            Bind { source: at("var/log"), target: "/var/log" },
        ],
        components: components(directory, kubenode, addresses),
    };
    std::fs::write(at("node.json"), serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

fn components(directory: &Path, kubenode: &Path, addresses: Addresses) -> Vec<Component> {
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let pki = |name: &str| at(&format!("pki/{name}"));
    let flag = |name: &str, value: &str| format!("--{name}={value}");
    let program = |name: &'static str, needs_api: bool, flags: Vec<String>| {
        let argv = [kubenode.to_string_lossy().into_owned(), name.to_owned()].into_iter().chain(flags).collect();
        Component { name, argv, needs_api }
    };
    let node = addresses.node().to_string();
    vec![
        program(
            "etcd",
            false,
            vec![
                flag("data-dir", &at("etcd")),
                flag("listen-client-urls", "http://127.0.0.1:2379"),
                flag("advertise-client-urls", "http://127.0.0.1:2379"),
                flag("listen-peer-urls", "http://127.0.0.1:2380"),
                "--unsafe-no-fsync".to_owned(),
            ],
        ),
        Component {
            name: "containerd",
            argv: vec!["containerd".to_owned(), "--config".to_owned(), at("containerd.toml")],
            needs_api: false,
        },
        program(
            "kube-apiserver",
            false,
            vec![
                flag("etcd-servers", "http://127.0.0.1:2379"),
                flag("bind-address", "0.0.0.0"),
                flag("advertise-address", &node),
                flag("secure-port", "6443"),
                flag("tls-cert-file", &pki("apiserver.crt")),
                flag("tls-private-key-file", &pki("apiserver.key")),
                flag("client-ca-file", &pki("ca.crt")),
                flag("service-account-key-file", &pki("service-accounts.key")),
                flag("service-account-signing-key-file", &pki("service-accounts.key")),
                flag("service-account-issuer", "https://kubernetes.default.svc"),
                flag("service-cluster-ip-range", &addresses.services()),
                flag("authorization-mode", "Node,RBAC"),
                flag("kubelet-client-certificate", &pki("admin.crt")),
                flag("kubelet-client-key", &pki("admin.key")),
                flag("kubelet-certificate-authority", &pki("ca.crt")),
                flag("kubelet-preferred-address-types", "InternalIP"),
                flag("requestheader-client-ca-file", &pki("ca.crt")),
                flag("requestheader-allowed-names", "front-proxy"),
                flag("proxy-client-cert-file", &pki("admin.crt")),
                flag("proxy-client-key-file", &pki("admin.key")),
                "--allow-privileged".to_owned(),
            ],
        ),
        program(
            "kube-controller-manager",
            true,
            vec![
                flag("kubeconfig", &at("kubeconfig")),
                flag("service-account-private-key-file", &pki("service-accounts.key")),
                flag("root-ca-file", &pki("ca.crt")),
                flag("cluster-signing-cert-file", &pki("ca.crt")),
                flag("cluster-signing-key-file", &pki("ca.key")),
                flag("service-cluster-ip-range", &addresses.services()),
                flag("kube-api-qps", "200"),
                flag("kube-api-burst", "400"),
                flag("leader-elect", "false"),
                "--use-service-account-credentials".to_owned(),
            ],
        ),
        program(
            "kube-scheduler",
            true,
            vec![
                flag("kubeconfig", &at("kubeconfig")),
                flag("leader-elect", "false"),
                flag("kube-api-qps", "200"),
                flag("kube-api-burst", "400"),
            ],
        ),
        program(
            "kubelet",
            true,
            vec![
                flag("kubeconfig", &at("kubelet.kubeconfig")),
                flag("config", &at("kubelet.yaml")),
                flag("hostname-override", NODE),
                flag("node-ip", &node),
            ],
        ),
        program("kube-proxy", true, vec![flag("config", &at("kube-proxy.yaml"))]),
    ]
}

fn kubeconfig(directory: &Path, addresses: Addresses, user: &str) -> String {
    let (pki, server) = (directory.join("pki"), addresses.node());
    let pki = pki.display();
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: nebula, cluster: {{server: \"https://{server}:6443\", certificate-authority: \"{pki}/ca.crt\"}}}}]
users: [{{name: {user}, user: {{client-certificate: \"{pki}/{user}.crt\", client-key: \"{pki}/{user}.key\"}}}}]
contexts: [{{name: nebula, context: {{cluster: nebula, user: {user}}}}}]
current-context: nebula
"
    )
}

/// `restrict_oom_score_adj`: without CAP_SYS_RESOURCE runc would fail on pods whose score is below the node's own.
fn containerd(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"version = 2
root = "{directory}/containerd/root"
state = "/run/containerd"
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  max_concurrent_downloads = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

fn pod_network(addresses: Addresses) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": addresses.pods()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "loopback"},
        ],
    })
    .to_string()
}

/// No limits of rate: images are never pulled, and the tests make and delete many pods at once. cgroups of version 1 will
/// do, and no hierarchy of quality of service is made in them: the machine's own stays as it is.
fn kubelet(directory: &Path, addresses: Addresses) -> String {
    let (directory, dns) = (directory.display(), addresses.dns());
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
containerRuntimeEndpoint: unix://{directory}/containerd.sock
authentication: {{x509: {{clientCAFile: {directory}/pki/ca.crt}}, anonymous: {{enabled: false}}, webhook: {{enabled: true}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {directory}/pki/kubelet.crt
tlsPrivateKeyFile: {directory}/pki/kubelet.key
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: {directory}/resolv.conf
imageGCHighThresholdPercent: 100
evictionHard: {{}}
maxPods: 500
kubeAPIQPS: 200
kubeAPIBurst: 400
eventRecordQPS: 0
configMapAndSecretChangeDetectionStrategy: Watch
syncFrequency: 10s
"
    )
}

fn kube_proxy(directory: &Path, addresses: Addresses) -> String {
    let (directory, pods) = (directory.display(), addresses.pods());
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
nftables: {{minSyncPeriod: 50ms}}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: {directory}/kubeconfig, qps: 200, burst: 400}}
conntrack: {{maxPerCore: 0, min: 0}}
hostnameOverride: {NODE}
"
    )
}

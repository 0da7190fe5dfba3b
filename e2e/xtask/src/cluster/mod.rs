//! `cargo xtask cluster`: a real Kubernetes of one node on this machine, without a container registry.
//! Owns the state below `CACHE/clusters/NAME` and nothing else; see `e2e/cluster/README.md` for how it is put together.
//! Invariant: a cluster ends with the process that made it, however that ends, unless it is complete and was to be kept.

mod components;
mod network;
mod node;
mod pki;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::artifacts::Artifact;
use crate::clock::{Stopwatch, wait_for};
use crate::images::{self, Product, Profile};
use crate::settings::Settings;
use crate::{packages, shell, target};

use network::Addresses;

/// Time for the API server and the node to be ready, on a machine that has other things to do.
const START_LIMIT: Duration = Duration::from_mins(3);

/// The cluster that is meant when none is named.
pub const DEFAULT: &str = "default";

/// Written when everything of a cluster is ready.
const COMPLETE: &str = "complete";

/// The commands of `cargo xtask cluster`.
#[derive(Subcommand)]
pub enum Command {
    /// Start it. One that runs already is left as it is.
    Up(Name),
    /// Stop it and remove all its traces. Nothing there is fine.
    Down(Name),
    /// Compile the product and load its images (or archives of other images) into it.
    Load {
        /// gateway, control-plane, or the path of a docker-archive; default: both products.
        images: Vec<String>,
        /// Compile for measuring (profile bench-quick) rather than as the tests do.
        #[arg(long)]
        release: bool,
        #[command(flatten)]
        name: Name,
    },
    /// Print the path of its kubeconfig.
    Kubeconfig(Name),
    /// Say whether it runs and what is in it.
    Status(Name),
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub struct Name {
    /// A second cluster beside the first has a name, and addresses of its own.
    #[arg(long = "name", default_value = DEFAULT)]
    name: String,
}

/// Carries out one command.
pub fn run(settings: &Settings, command: Command) -> Result<()> {
    match command {
        Command::Up(name) => up(settings, &Cluster::named(settings, &name.name)?),
        Command::Down(name) => Cluster::named(settings, &name.name)?.down(settings),
        Command::Load { images, release, name } => {
            let cluster = Cluster::named(settings, &name.name)?;
            cluster.expect_running()?;
            load(settings, &cluster, &images, if release { Profile::Measure } else { Profile::Dev })
        }
        Command::Kubeconfig(name) => {
            let cluster = Cluster::named(settings, &name.name)?;
            cluster.expect_running()?;
            println!("{}", cluster.kubeconfig().display());
            Ok(())
        }
        Command::Status(name) => status(settings, &Cluster::named(settings, &name.name)?),
    }
}

/// A cluster by name, running or not.
#[derive(Clone, Debug)]
pub struct Cluster {
    name: String,
    directory: PathBuf,
}

impl Cluster {
    /// # Errors: the name cannot be part of the names of files and cgroups.
    pub fn named(settings: &Settings, name: &str) -> Result<Self> {
        let valid = !name.is_empty()
            && name.len() <= 24
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        ensure!(valid, "a cluster's name is 1 to 24 of a-z, 0-9 and -, not {name:?}");
        let directory = settings.cache.join("clusters").join(name);
        // A Unix socket's path has at most 107 bytes (unix(7)).
        let socket = directory.join("containerd.sock");
        ensure!(socket.as_os_str().len() < 108, "{}: too long for a socket", socket.display());
        Ok(Self { name: name.to_owned(), directory })
    }

    /// The cluster of this machine whose kubeconfig that is.
    pub fn of_kubeconfig(settings: &Settings, kubeconfig: &Path) -> Result<Option<Self>> {
        let clusters = settings.cache.join("clusters");
        let name = kubeconfig.strip_prefix(&clusters).ok().and_then(|rest| rest.parent()).and_then(Path::to_str);
        name.map(|name| Self::named(settings, name)).transpose()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Whether it was once complete and still runs.
    pub fn is_running(&self) -> bool {
        self.directory.join(COMPLETE).exists() && node::running(&self.directory).is_some()
    }

    fn expect_running(&self) -> Result<()> {
        ensure!(self.is_running(), "cluster {} does not run: cargo xtask cluster up --name {0}", self.name);
        Ok(())
    }

    /// An address for LoadBalancer Services that is given only to who asks for it.
    pub fn static_address(&self) -> Result<std::net::Ipv4Addr> {
        Ok(self.addresses()?.context("the cluster has no addresses")?.static_load_balancer())
    }

    fn addresses(&self) -> Result<Option<Addresses>> {
        match std::fs::read_to_string(self.directory.join("index")) {
            Ok(text) => Ok(text.trim().parse().ok().and_then(Addresses::new)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn kubectl(&self, settings: &Settings) -> Result<Process> {
        target::kubectl(settings, &self.kubeconfig())
    }

    /// Loads archives under the names recorded beside them.
    pub fn import(&self, archives: &[PathBuf]) -> Result<()> {
        for archive in archives {
            self.ctr(&["images", "import", &archive.to_string_lossy()])?;
            let names = images::tags(archive)?;
            if let [first, others @ ..] = names.as_slice() {
                for other in others {
                    self.ctr(&["images", "tag", "--force", &canonical(first), &canonical(other)])?;
                }
            }
        }
        Ok(())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Process::new("ctr");
        command.arg("--address").arg(self.directory.join("containerd.sock")).args(["--namespace", "k8s.io"]);
        shell::output(command.args(arguments))
    }

    /// Ends it and removes its state, interface and cgroups; used on what a killed run left as well.
    pub fn down(&self, settings: &Settings) -> Result<()> {
        let _lock = lock(settings, &self.name)?;
        self.down_locked()
    }

    fn down_locked(&self) -> Result<()> {
        node::end(&self.directory)?;
        if let Some(addresses) = self.addresses()? {
            // The kernel removes the interface with its namespace, a moment after the last process.
            let gone = || Ok(!network::interface_exists(addresses));
            if wait_for("the interface to go", Duration::from_secs(5), gone).is_err() {
                network::remove(addresses)?;
            }
        }
        remove_cgroups(&self.directory)?;
        if self.directory.exists() {
            let mounts = std::fs::read_to_string("/proc/self/mounts")?;
            let prefix = format!(" {}/", self.directory.display());
            ensure!(!mounts.contains(&prefix), "something is still mounted below {}", self.directory.display());
            std::fs::remove_dir_all(&self.directory).with_context(|| format!("remove {}", self.directory.display()))?;
        }
        Ok(())
    }
}

/// containerd's form of an image's name.
fn canonical(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains('.') || host == "localhost" => name.to_owned(),
        _ => format!("docker.io/{name}"),
    }
}

/// Starts the cluster unless it runs. It stays when this program ends.
fn up(settings: &Settings, cluster: &Cluster) -> Result<()> {
    match up_for_this_run(settings, cluster)? {
        Some(started) => started.keep(),
        None => Ok(()),
    }
}

/// A cluster that was started for this run: it ends with this program, however that ends, unless it is kept.
pub struct Started(node::Starting);

impl Started {
    /// Lets it live until somebody takes it down.
    pub fn keep(self) -> Result<()> {
        self.0.hand_over()
    }
}

/// Starts the cluster; `None` when it runs already.
pub fn up_for_this_run(settings: &Settings, cluster: &Cluster) -> Result<Option<Started>> {
    ensure!(nix::unistd::geteuid().is_root(), "a cluster needs root: it makes namespaces and interfaces");
    packages::install_missing()?;
    let kubenode = Artifact::Kubenode.get(settings)?;
    let support = images::build_support(settings)?;
    let _lock = lock(settings, &cluster.name)?;
    if cluster.is_running() {
        println!("cluster {} runs already; kubeconfig: {}", cluster.name, cluster.kubeconfig().display());
        return Ok(None);
    }
    cluster.down_locked().context("remove what an earlier run left")?;
    let watch = Stopwatch::start();
    let node = start(settings, cluster, &kubenode, &support).map_err(|error| {
        let logs = shell::tail_of(&cluster.directory.join("log/node.log"));
        // The cause is worth more than a second error.
        let _ = cluster.down_locked();
        error.context(format!("start cluster {}; the node said:\n{logs}", cluster.name))
    })?;
    println!("cluster {} is up after {watch}; kubeconfig: {}", cluster.name, cluster.kubeconfig().display());
    Ok(Some(Started(node)))
}

fn start(settings: &Settings, cluster: &Cluster, kubenode: &Path, support: &[PathBuf]) -> Result<node::Starting> {
    let directory = &cluster.directory;
    let addresses = reserve(settings, cluster)?;
    pki::create(&directory.join("pki"), addresses, components::NODE)?;
    components::write(directory, kubenode, addresses)?;
    let mut node = node::Starting::spawn(directory, kubenode)?;
    network::lay(addresses, node.init())?;
    node.network_laid()?;
    let mut reached = |what: &str, file: &str| {
        wait_for(what, START_LIMIT, || {
            node.check(directory)?;
            Ok(directory.join(file).exists())
        })
    };
    reached("containerd", "containerd.sock")?;
    wait_for("containerd to answer", START_LIMIT, || Ok(cluster.ctr(&["version"]).is_ok()))?;
    cluster.import(support)?;
    reached("the API server", "api-ready")?;
    let dns = include_str!("../../../cluster/coredns.yaml")
        .replace("${IMAGE}", images::COREDNS_IMAGE)
        .replace("${CLUSTER_IP}", &addresses.dns().to_string());
    shell::output_with_input(cluster.kubectl(settings)?.args(["apply", "--server-side", "-f", "-"]), &dns)?;
    reached("the node", "ready")?;
    shell::run(cluster.kubectl(settings)?.args([
        "--namespace=kube-system",
        "rollout",
        "status",
        "deployment/coredns",
        "--timeout=120s",
    ]))?;
    File::create(directory.join(COMPLETE))?;
    Ok(node)
}

/// Takes the lowest index that no cluster and no interface of the machine has.
fn reserve(settings: &Settings, cluster: &Cluster) -> Result<Addresses> {
    let clusters = settings.cache.join("clusters");
    let _lock = lock(settings, "")?;
    let mut taken = Vec::new();
    for entry in std::fs::read_dir(&clusters)? {
        let path = entry?.path();
        if path.is_dir() {
            let other = Cluster { name: String::new(), directory: path };
            taken.extend(other.addresses()?.map(Addresses::index));
        }
    }
    let free = (0..network::CLUSTERS)
        .filter(|index| !taken.contains(index))
        .filter_map(Addresses::new)
        .find(|addresses| !network::interface_exists(*addresses));
    let Some(addresses) = free else { bail!("all {} clusters that one machine can hold exist", network::CLUSTERS) };
    std::fs::create_dir_all(&cluster.directory)?;
    std::fs::write(cluster.directory.join("index"), addresses.index().to_string())?;
    Ok(addresses)
}

/// Held while a cluster is made or removed; an empty name stands for the list of clusters.
fn lock(settings: &Settings, name: &str) -> Result<File> {
    let clusters = settings.cache.join("clusters");
    std::fs::create_dir_all(&clusters)?;
    let file = File::create(clusters.join(format!("{name}.lock")))?;
    file.lock()?;
    Ok(file)
}

fn load(settings: &Settings, cluster: &Cluster, names: &[String], profile: Profile) -> Result<()> {
    let mut products = Vec::new();
    let mut archives = Vec::new();
    for name in names {
        match Product::ALL.into_iter().find(|product| product.name() == name) {
            Some(product) => products.push(product),
            None if Path::new(name).is_file() => archives.push(PathBuf::from(name)),
            None => bail!("{name}: neither gateway, control-plane nor the path of an image archive"),
        }
    }
    if names.is_empty() {
        products.extend(Product::ALL);
    }
    if !products.is_empty() {
        let tags = images::cluster_tags(settings)?;
        archives.extend(images::build_products(settings, &products, profile, &tags)?);
    }
    let watch = Stopwatch::start();
    cluster.import(&archives)?;
    println!("loaded {} images in {watch}", archives.len());
    Ok(())
}

fn status(settings: &Settings, cluster: &Cluster) -> Result<()> {
    let Some(pid) = node::running(&cluster.directory) else {
        println!("cluster {} does not run", cluster.name);
        return Ok(());
    };
    let addresses = cluster.addresses()?.context("the cluster has no addresses")?;
    println!(
        "cluster {} runs: process {pid}, interface {}, node {}, load balancers {}, logs in {}",
        cluster.name,
        addresses.interface(),
        addresses.node(),
        addresses.load_balancers(),
        cluster.directory.join("log").display(),
    );
    print!(
        "{}",
        shell::output(cluster.kubectl(settings)?.args(["get", "nodes,pods", "--all-namespaces", "-o", "wide"]))?
    );
    Ok(())
}

/// Removes the cgroups of containers that ended with the node rather than by its hand. runc puts each below `k8s.io`,
/// named by its id, which no other cluster of the machine has.
fn remove_cgroups(directory: &Path) -> Result<()> {
    let mut ids = Vec::new();
    for kind in ["sandboxes", "containers"] {
        let path = directory.join("containerd/root/io.containerd.grpc.v1.cri").join(kind);
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            ids.push(entry?.file_name());
        }
    }
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten() {
        let parent = hierarchy?.path().join("k8s.io");
        for cgroup in ids.iter().map(|id| parent.join(id)).filter(|cgroup| cgroup.is_dir()) {
            remove_cgroup(&cgroup)?;
        }
        // Stays as long as another cluster has something in it.
        let _ = std::fs::remove_dir(&parent);
    }
    Ok(())
}

fn remove_cgroup(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    wait_for(&format!("{} to be empty", path.display()), Duration::from_secs(5), || {
        Ok(std::fs::remove_dir(path).is_ok())
    })
}
